"""The settings: read lazily, checked, and refreshed when they change."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_workflows.codec import JSONCodec
from django_workflows.conf import get_settings


def test_the_defaults_need_no_setting() -> None:
    settings = get_settings()
    assert settings.database == "default"
    assert settings.lease == timedelta(seconds=30)
    assert settings.retention is None
    assert get_settings() is settings


def test_workers_listen_on_the_database_of_the_workflow_tables_unless_told_otherwise() -> None:
    for configured, alias in (
        ({}, "default"),
        ({"DATABASE": "workflows"}, "workflows"),
        ({"DATABASE": "workflows", "LISTEN_DATABASE": "direct"}, "direct"),
        ({"DATABASE": "workflows", "LISTEN_DATABASE": None}, None),
    ):
        with override_settings(DJANGO_WORKFLOWS=configured):
            assert get_settings().listen_database == alias


def test_a_changed_setting_is_seen_and_forgotten_again() -> None:
    with override_settings(DJANGO_WORKFLOWS={"THREADS": 2}):
        assert get_settings().threads == 2
    assert get_settings().threads == 8


def test_durations_may_be_numbers_of_seconds() -> None:
    configured = {"LEASE": 1.5, "SHUTDOWN_GRACE": 0, "RETENTION": {"completed": 60, "failed": timedelta(days=7)}}
    with override_settings(DJANGO_WORKFLOWS=configured):
        settings = get_settings()
    assert (settings.lease, settings.shutdown_grace) == (timedelta(seconds=1.5), timedelta(0))
    assert settings.retention == {"completed": timedelta(seconds=60), "failed": timedelta(days=7)}


def test_the_codec_is_made_from_its_path() -> None:
    with override_settings(DJANGO_WORKFLOWS={"CODEC": "django_workflows.codec.JSONCodec"}):
        assert isinstance(get_settings().codec, JSONCodec)


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({"THREDS": 2}, r'DJANGO_WORKFLOWS\["THREDS"\] is not a setting, found 2. Did you mean THREADS\?'),
        ({"threads": 2}, r'DJANGO_WORKFLOWS\["threads"\] is not a setting.* Did you mean THREADS\?'),
        ({1: 2}, r'DJANGO_WORKFLOWS\["1"\] is not a setting.* Expected one of DATABASE, '),
        ({"THREADS": "8"}, r"\"THREADS\"\] must be an integer of at least 1, found '8' \(str\)"),
        ({"THREADS": True}, r"found True \(bool\)"),
        ({"THREADS": 0}, r"at least 1, found 0"),
        ({"DATABASE": None}, r'"DATABASE"\] must be a non-empty string, found None \(NoneType\)'),
        ({"WAKEUPS_CACHE": ""}, r'"WAKEUPS_CACHE"\] must be None or an alias, found \'\''),
        ({"LISTEN_DATABASE": 1}, r'"LISTEN_DATABASE"\] must be None or an alias, found 1'),
        ({"LEASE": "30s"}, r'"LEASE"\] must be a timedelta or a number of seconds, above 0, found \'30s\''),
        ({"LEASE": float("nan")}, r'"LEASE"\] must be a timedelta or a number of seconds, above 0, found nan'),
        ({"STEP_TIME_LIMIT": timedelta(seconds=2)}, r'"STEP_TIME_LIMIT"\] must be a number of seconds above 0'),
        ({"RETENTION": {"running": 1}}, r"\"RETENTION\"\]\['running'\] must be keyed by a closed status"),
        ({"RETENTION": {"failed": "1"}}, r'"RETENTION"\]\["failed"\] must be a timedelta'),
        ({"POLL_INTERVAL_MIN": 1}, r'"POLL_INTERVAL_MIN"\] must be at most DJANGO_WORKFLOWS\["POLL_INTERVAL_MAX"\]'),
        ({"CODEC": 3}, r'"CODEC"\], 3, cannot be imported and called: .*must be a non-empty string'),
        ({"CODEC": "nowhere.Codec"}, r"cannot be imported and called: No module named 'nowhere'"),
        ({"CODEC": "builtins.int"}, r'"CODEC"\] must be the dotted path of a class with the methods encode and decode'),
        ([], r"DJANGO_WORKFLOWS must be a dict, found \[\] \(list\)"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(configured: object, message: str) -> None:
    with override_settings(DJANGO_WORKFLOWS=configured), pytest.raises(ImproperlyConfigured, match=message):
        get_settings()
