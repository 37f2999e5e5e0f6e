"""A database server of the tests' own, which may be stopped, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection

from tests.conformance.waiting import eventually

_PLACES = os.pathsep.join(
    [os.environ["PATH"], "/usr/sbin", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
)


class Server:
    """One server with its files in a directory and a port of its own; root runs it as the vendor's own user."""

    user = ""
    port_option = ""
    prepare: Sequence[str] = ()  # makes the files
    serve: Sequence[str] = ()
    stops: dict[str, signal.Signals] = {}

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._directory = directory
        self._user = self.user if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(directory, self._user)
        with self._popen(self.prepare) as process:
            assert process.wait(timeout=60) == 0, self.log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        """What makes another process use this server."""
        return {"DATABASE_PORT": str(self.port)}

    def start(self) -> None:
        self._process = self._popen([*self.serve, f"--port={self.port}"])
        eventually(self._answers, 60)

    def stop(self, how: str) -> None:
        """Stop in one of the ways of `stops`, and wait for the end of the process."""
        if self._process is not None:
            self._process.send_signal(self.stops[how])
            self._process.wait(timeout=60)
            self._process = None

    def _popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        program, *arguments = (part.format(data=self._directory / "data") for part in command)
        path = shutil.which(program, path=_PLACES)
        if path is None:
            (pytest.fail if "CI" in os.environ else pytest.skip)(f"{program} is not installed")
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [path, *arguments], cwd=self._directory, user=self._user, group=self._user, stdout=log, stderr=log,
                extra_groups=None if self._user is None else [], start_new_session=True,
            )  # fmt: skip

    def _answers(self) -> bool:
        """Tell whether a new connection gets as far as asking for a database."""
        assert self._process is not None and self._process.poll() is None, self.log
        connection.close()
        try:
            with connection._nodb_cursor() as cursor:
                cursor.execute("SELECT 1")
        except Exception:
            return False
        return True


class PostgreSQL(Server):
    user = "postgres"
    prepare = (
        "initdb",
        "--pgdata={data}",
        "--username=root",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    )
    # The machine does not fail, so what was written is there after a crash of the server.
    serve = ("postgres", "-D", "{data}", "-c", "unix_socket_directories=", "-c", "fsync=off")
    stops = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class MariaDB(Server):
    user = "mysql"
    prepare = (
        "mariadb-install-db", "--no-defaults", "--datadir={data}", "--auth-root-authentication-method=normal",
        "--skip-test-db", "--innodb-log-file-size=8M",
    )  # fmt: skip
    serve = (
        "mariadbd", "--no-defaults", "--datadir={data}", "--socket={data}/socket", "--bind-address=127.0.0.1",
        "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--innodb-log-file-size=8M",
    )  # fmt: skip
    stops = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}


@contextmanager
def private_server() -> Iterator[Server]:
    """Run a server of this run's vendor for the length of the block, with the tables, and connect this thread to it."""
    kind = PostgreSQL if connection.vendor == "postgresql" else MariaDB
    usual = connection.settings_dict["PORT"]
    # Not pytest's directory, which other users must not enter.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        server = kind(Path(directory))
        connection.settings_dict["PORT"] = server.port
        try:
            server.start()
            with connection._nodb_cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {connection.ops.quote_name(connection.settings_dict['NAME'])}")
            call_command("migrate", run_syncdb=True, verbosity=0)
            yield server
        finally:
            connection.close()
            connection.settings_dict["PORT"] = usual
            server.stop("immediate")
