"""Settings of the benchmarks: the tests' databases under names of their own."""

import os

os.environ.setdefault("DATABASE_NAME", "workflows_benchmark")

from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["django.contrib.contenttypes", "django_workflows", "benchmarks"]
ROOT_URLCONF = None
MIDDLEWARE: list[str] = []
DEBUG = False
REDIS_URL = os.environ.get("BENCHMARK_REDIS_URL", "redis://127.0.0.1:6379/9")
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL},
}


def with_wakeups(by: str) -> dict[str, object]:
    """Return the settings in which hints travel by Redis, not at all, or by what the database has."""
    return {"redis": {"WAKEUPS_CACHE": "redis"}, "polling": {"LISTEN_DATABASE": None}}.get(by, {})


DJANGO_WORKFLOWS = with_wakeups(os.environ.get("BENCHMARK_WAKEUPS", ""))
