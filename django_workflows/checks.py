"""System checks: set-ups that fail, or lose work, only later. docs/checks.md has the list.

Those that must ask a database run where Django hands them its alias, as `check --database` and `migrate` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from .conf import SETTING, WorkflowSettings, read_settings
from .store.dialects import dialect_of

TAG = "workflows"

# The first releases with SKIP LOCKED and JSON_TABLE.
_MARIADB, _MYSQL = (10, 6), (8, 0, 4)
# https://www.sqlite.org/wal.html#the_wal_reset_bug
_WAL_RESET_SINCE, _WAL_RESET_FIXED = (3, 7, 0), (3, 51, 3)
_WAL_RESET_PATCHED = {(3, 44): 6, (3, 50): 7}  # release to the patch that has the fix too
_SHORTEST_RETENTION = timedelta(minutes=1)


# The settings


def check_aliases(configured: WorkflowSettings) -> Iterator[CheckMessage]:
    """E002: a setting names a database that does not exist."""
    aliases: dict[str | None, str] = {configured.database: "DATABASE"}
    aliases.setdefault(configured.listen_database, "LISTEN_DATABASE")
    for alias, key in aliases.items():
        if alias is not None and alias not in connections:
            yield Error(
                f'{SETTING}["{key}"] must be an alias in DATABASES, found {alias!r}.',
                hint=f"Choose one of {', '.join(connections)}.",
                id="workflows.E002",
            )


def check_wakeups_cache(configured: WorkflowSettings) -> Iterator[CheckMessage]:
    """E007: the cache that shall carry wake-ups cannot."""
    alias = configured.wakeups_cache
    if alias is None or _is_django_redis(alias):
        return
    found = settings.CACHES[alias].get("BACKEND") if alias in settings.CACHES else "no such alias"
    yield Error(
        f'{SETTING}["WAKEUPS_CACHE"] must be the alias in CACHES of a cache of django-redis, found {alias!r}: {found}.',
        hint='Install django-redis (pip install django-redis) and use "BACKEND": "django_redis.cache.RedisCache".',
        id="workflows.E007",
    )


def _is_django_redis(alias: str) -> bool:
    try:
        from django_redis.cache import RedisCache

        return issubclass(import_string(settings.CACHES[alias]["BACKEND"]), RedisCache)
    except (ImportError, KeyError):
        return False


def check_time_zones(configured: WorkflowSettings) -> Iterator[CheckMessage]:
    """E004: USE_TZ is off."""
    if not settings.USE_TZ:
        yield Error(
            "USE_TZ must be True: workflows store and compare aware datetimes.",
            hint="Set USE_TZ = True. Django's documentation tells how to move a project.",
            id="workflows.E004",
        )


def check_lease(configured: WorkflowSettings) -> Iterator[CheckMessage]:
    """W006: a healthy worker may lose its lease during one step."""
    # A lease is renewed every third of its length, between steps.
    shortest = configured.step_time_limit * 1.5
    if configured.lease.total_seconds() < shortest:
        yield Warning(
            f'{SETTING}["LEASE"] is {configured.lease.total_seconds():g} s while one step may compute for '
            f"{configured.step_time_limit:g} s (STEP_TIME_LIMIT): a healthy worker may be declared dead.",
            hint=f"Make LEASE {shortest:g} s or longer, or STEP_TIME_LIMIT shorter.",
            id="workflows.W006",
        )


def check_retention(configured: WorkflowSettings) -> Iterator[CheckMessage]:
    """W007: instances are removed before anybody can read their result."""
    for status, age in (configured.retention or {}).items():
        if age < _SHORTEST_RETENTION:
            yield Warning(
                f'{SETTING}["RETENTION"]["{status}"] is {age.total_seconds():g} s: an instance may be removed before '
                "a caller of result() has seen how it ended.",
                hint="Keep closed instances for a minute at least.",
                id="workflows.W007",
            )


# The database, without asking it


def check_vendor(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """E003: workflows cannot run on this kind of database."""
    try:
        dialect_of(connection)
    except ImproperlyConfigured as error:
        yield Error(str(error), id="workflows.E003")


def check_sqlite_transactions(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """E005: workers and the application would lock each other out."""
    if connection.vendor != "sqlite" or _is_in_memory(connection):
        return
    # A deferred transaction that reads and then writes fails at once when anybody wrote in between: beside a busy
    # worker that is nearly every one.
    mode = connection.settings_dict["OPTIONS"].get("transaction_mode") or "DEFERRED"
    if mode.upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        yield Error(
            f"{_options(connection)} has the transaction_mode {mode}: beside a working worker, nearly every "
            'transaction of the application fails with "database is locked".',
            hint='Set "transaction_mode": "IMMEDIATE".',
            id="workflows.E005",
        )


def check_isolation(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """W003: transactions of the application hold locks on gaps, for which workers wait."""
    level = connection.settings_dict["OPTIONS"].get("isolation_level", "read committed")
    if connection.vendor == "mysql" and (level or "").lower() != "read committed":
        found = repr(level) if level else "None, which leaves it to the server (by default REPEATABLE READ)"
        yield Warning(
            f"{_options(connection)} has the isolation_level {found}: transactions of the application then lock gaps "
            "between rows, and workers wait for them.",
            hint='Set "isolation_level": "read committed", or leave it out: it is Django\'s default.',
            id="workflows.W003",
        )


def check_pool(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """W004: activities would wait for a connection, and fail."""
    pool, threads = connection.settings_dict["OPTIONS"].get("pool"), read_settings().settings.threads
    if connection.vendor != "postgresql" or not pool:
        return
    options = {} if pool is True else pool
    size = options.get("max_size") or options.get("min_size", 4)
    needed = threads + 1
    if size < needed:
        yield Warning(
            f'{_options(connection)} has a "pool" of {size} connections, while a worker with {threads} '
            f"threads (THREADS) uses {needed}: activities will wait for one, and fail after the pool's timeout.",
            hint=f'Set "pool": {{"max_size": {needed}}}, or more with async activities.',
            id="workflows.W004",
        )


def check_driver(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """W005: without psycopg 3 nobody hears wake-ups."""
    if connection.vendor != "postgresql":
        return
    from django.db.backends.postgresql import psycopg_any

    if not psycopg_any.is_psycopg3:
        yield Warning(
            "PostgreSQL is used with psycopg2: workers hear no wake-ups and find all work by polling. No test runs "
            "with this driver.",
            hint="Install psycopg 3: pip install 'psycopg[binary]'.",
            id="workflows.W005",
        )


def check_sqlite_version(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """W002, with --deploy: this SQLite can corrupt a database in WAL mode, though rarely."""
    if connection.vendor != "sqlite" or _is_in_memory(connection):
        return
    version = connection.get_database_version()
    if has_wal_reset_bug(version):
        yield Warning(
            f"SQLite {'.'.join(map(str, version))} has the WAL-reset bug: in rare cases it corrupts a database to "
            "which several processes or threads write.",
            hint="Use SQLite 3.51.3 or newer, 3.50.7 or 3.44.6. Silence this where the system's package is patched.",
            id="workflows.W002",
        )


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Tell whether a version of SQLite has https://www.sqlite.org/wal.html#the_wal_reset_bug."""
    patched = _WAL_RESET_PATCHED.get((version[0], version[1]))
    if patched is not None and version[2] >= patched:
        return False
    return _WAL_RESET_SINCE <= version < _WAL_RESET_FIXED


# The database, asked


def check_journal(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """W001: readers and the writer wait for each other."""
    if connection.vendor != "sqlite" or _is_in_memory(connection):
        return
    with connection.cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        yield Warning(
            f'DATABASES["{connection.alias}"] is an SQLite database with the journal mode {mode}: readers and the '
            "writer wait for each other, and each commit takes several times as long.",
            hint=f'Set {_options(connection)}["init_command"] to "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;".',
            id="workflows.W001",
        )


def check_mysql_version(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """E006: the server lacks SKIP LOCKED or JSON_TABLE."""
    if connection.vendor != "mysql":
        return
    is_mariadb = connection.mysql_is_mariadb  # type: ignore[attr-defined]
    version = connection.get_database_version()
    if not has_needed_statements(version, is_mariadb=is_mariadb):
        name, needed = ("MariaDB", _MARIADB) if is_mariadb else ("MySQL", _MYSQL)
        yield Error(
            f'DATABASES["{connection.alias}"] is on {name} {".".join(map(str, version))}, which lacks SKIP LOCKED or '
            "JSON_TABLE.",
            hint=f"Use {name} {'.'.join(map(str, needed))} or newer.",
            id="workflows.E006",
        )


def has_needed_statements(version: tuple[int, ...], *, is_mariadb: bool) -> bool:
    """Tell whether a server of the MySQL family knows the statements that the store uses."""
    return version >= (_MARIADB if is_mariadb else _MYSQL)


def _options(connection: BaseDatabaseWrapper) -> str:
    return f'DATABASES["{connection.alias}"]["OPTIONS"]'


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    return bool(connection.is_in_memory_db())  # type: ignore[attr-defined]


# Registration

_OF_SETTINGS = (check_aliases, check_wakeups_cache, check_time_zones, check_lease, check_retention)
_OF_CONNECTION = (check_vendor, check_sqlite_transactions, check_isolation, check_pool, check_driver)
_OF_SERVER = (check_journal, check_mysql_version)


def check_configuration(**kwargs: Any) -> list[CheckMessage]:
    """Check what the settings say, E001 first: a key of DJANGO_WORKFLOWS that is unknown or has a wrong value."""
    configured, problems = read_settings()
    found: list[CheckMessage] = [Error(text, hint=hint, id="workflows.E001") for text, hint in problems]
    for check in _OF_SETTINGS:
        found += check(configured)
    return found + _check_connection(_OF_CONNECTION)


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Check what matters in production only."""
    return _check_connection((check_sqlite_version,))


def check_server(databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Ask the database of the workflow tables, if it is among `databases`."""
    return _check_connection(_OF_SERVER) if read_settings().settings.database in (databases or ()) else []


def _check_connection(checks: Iterable[Callable[[BaseDatabaseWrapper], Iterator[CheckMessage]]]) -> list[CheckMessage]:
    alias = read_settings().settings.database
    if alias not in connections:
        return []  # E002 says so
    return [message for check in checks for message in check(connections[alias])]


def register_all() -> None:
    """Register the checks with Django."""
    register(check_configuration, TAG)
    register(check_deployment, TAG, deploy=True)
    register(check_server, TAG, Tags.database)


def refuse_errors() -> None:
    """Run all checks of workflows; raises ImproperlyConfigured, naming the errors that are not silenced."""
    found = run_checks(tags=[TAG], databases=[read_settings().settings.database])
    if errors := [message for message in found if message.is_serious() and not message.is_silenced()]:
        raise ImproperlyConfigured("\n".join(map(str, errors)))
