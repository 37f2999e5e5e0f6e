"""Settings of the benchmarks: the tests' databases under names of their own."""

import os

os.environ.setdefault("DATABASE_NAME", "workflows_benchmark")

from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["django.contrib.contenttypes", "django_workflows", "benchmarks"]
ROOT_URLCONF = None
MIDDLEWARE: list[str] = []
DEBUG = False
DJANGO_WORKFLOWS: dict[str, object] = {}
if "STICKY_CACHE_SIZE" in os.environ:
    DJANGO_WORKFLOWS["STICKY_CACHE_SIZE"] = int(os.environ["STICKY_CACHE_SIZE"])
