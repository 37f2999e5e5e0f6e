"""Settings of the test suite. DATABASE picks the vendor, DATABASE_NAME the database, DATABASE_PORT the server's port.

Child processes that import this module meet the test database, because conftest.py puts its name into DATABASE_NAME.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from django import VERSION as DJANGO_VERSION

# Without a DATABASE_NAME every run has a test database of its own, so that suites may run side by side.
NAME = os.environ.get("DATABASE_NAME", "workflows")
TEST_NAME = f"test_{NAME}" if "DATABASE_NAME" in os.environ else f"test_{NAME}_{os.getpid()}"


def sqlite_path(name: str) -> str:
    return name if os.path.isabs(name) else str(Path(tempfile.gettempdir(), f"{name}.sqlite3"))


def database(vendor: str) -> dict[str, Any]:
    if vendor == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": sqlite_path(NAME),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": float(os.environ.get("SQLITE_TIMEOUT", "20")),
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;"
                + os.environ.get("SQLITE_PRAGMA", ""),
            },
            # A file, because a database in memory is seen by one connection only.
            "TEST": {"NAME": sqlite_path(TEST_NAME)},
        }
    if vendor == "postgresql":
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": int(os.environ.get("DATABASE_PORT", "5432")),
            "USER": "root",
            "NAME": NAME,
            "OPTIONS": {"connect_timeout": 10},
            "TEST": {"NAME": TEST_NAME},
        }
    if vendor == "mariadb":
        return {
            "ENGINE": "django.db.backends.mysql",
            "HOST": "127.0.0.1",
            "PORT": int(os.environ.get("DATABASE_PORT", "3306")),
            "USER": "root",
            "PASSWORD": "",
            "NAME": NAME,
            "OPTIONS": {"charset": "utf8mb4", "isolation_level": "read committed", "connect_timeout": 10},
            "TEST": {"NAME": TEST_NAME, "CHARSET": "utf8mb4"},
        }
    raise ValueError(f"DATABASE must be sqlite, postgresql or mariadb, found {vendor!r}")


# For the tests that start a Redis of their own.
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{os.environ.get('REDIS_PORT', '6379')}/0",
    },
}

DATABASES = {"default": database(os.environ.get("DATABASE", "sqlite"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Django 6.1 warns without it; Django's test runner puts its own backend in place.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}}
if DJANGO_VERSION < (6, 1):
    del MAILERS
SECRET_KEY = "used by tests only"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # tests log in often
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
ROOT_URLCONF = "tests.urls"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django.contrib.staticfiles",
    "django_workflows",
    "example_project.orders",
    "example_project.imports",
    "tests.testapp",
    "tests.reliability",  # autodiscovered by worker processes
    "tests.conformance",  # likewise
]
MIGRATION_MODULES = {"testapp": None}  # its tables follow its models

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

SILENCED_SYSTEM_CHECKS = ["workflows.W006"]  # some leases are short on purpose
# For the worker processes that tests start and kill.
DJANGO_WORKFLOWS = {
    "LEASE": float(os.environ.get("LEASE", "30")),
    "STICKY_CACHE_SIZE": int(os.environ.get("STICKY_CACHE_SIZE", "1000")),
    "WAKEUPS_CACHE": os.environ.get("WAKEUPS_CACHE"),
}
