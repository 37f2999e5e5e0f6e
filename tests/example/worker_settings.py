"""The test suite's settings for worker processes that tests of the example start and kill."""

from __future__ import annotations

import os

from django import VERSION as DJANGO_VERSION

from tests.settings import *  # noqa: F403

MEDIA_ROOT = os.environ.get("EXAMPLE_MEDIA_ROOT", "")
if DJANGO_VERSION < (6, 1):
    EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
DJANGO_WORKFLOWS = {"LEASE": 2.0}
