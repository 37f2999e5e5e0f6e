"""The test suite's settings for worker processes that tests of the example start and kill."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403

MEDIA_ROOT = os.environ.get("EXAMPLE_MEDIA_ROOT", "")
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
DJANGO_WORKFLOWS = {"LEASE": 2.0}
