"""The databases of the batch job: a PostgreSQL on loopback, or SQLite files in its place."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from benchmarks.network import wait_until

from ..processes import Server, free_port, serving
from ..worker import LOOPBACK

RECORDS = 1000
PAUSE = 0.3
"""Seconds that each SELECT takes."""

_USER = "postgres"
_MOST_CONNECTIONS = 200
_BINARIES = "/usr/lib/postgresql"


@frozen
class Databases:
    """`names`: what the clients of ``kind`` (``postgresql`` or ``sqlite``) connect to."""

    kind: str
    names: Sequence[str]

    @property
    def sums(self) -> int:
        """The right answer: the sum of all records of all databases."""
        return len(self.names) * RECORDS * (RECORDS + 1) // 2


def program(name: str) -> str | None:
    """The path of a program of PostgreSQL; Debian keeps them out of the PATH."""
    versions = sorted(Path(_BINARIES).glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join(map(str, versions))) or shutil.which(name)


def postgresql_is_there() -> bool:
    """Whether PostgreSQL and its client psycopg are installed."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return False
    return program("initdb") is not None and program("postgres") is not None


@contextmanager
def databases(count: int) -> Iterator[Databases]:
    """So many databases, each with `RECORDS` records, until the context is left."""
    with tempfile.TemporaryDirectory(prefix="study-") as directory:
        if postgresql_is_there():
            with _postgresql(Path(directory), count) as found:
                yield found
        else:
            yield _sqlite(Path(directory), count)


@contextmanager
def _postgresql(directory: Path, count: int) -> Iterator[Databases]:
    import psycopg

    # PostgreSQL refuses to run as root.
    user = _USER if os.geteuid() == 0 else None
    data = directory / "data"
    data.mkdir(mode=0o700)
    if user is not None:
        directory.chmod(0o755)
        owner = pwd.getpwnam(user)
        os.chown(data, owner.pw_uid, owner.pw_gid)
    subprocess.run(
        [str(program("initdb")), "-D", str(data), "-U", _USER, "-A", "trust", "--no-sync"],
        check=True,
        cwd=directory,
        stdout=subprocess.DEVNULL,
        user=user,
    )
    port = free_port()
    command = [str(program("postgres")), "-D", str(data), "-p", str(port), "-h", LOOPBACK]
    command += ["-k", "", "-F", "-N", str(_MOST_CONNECTIONS)]
    with serving(command, port, user=user) as server, _stopped(server):
        base = f"host={LOOPBACK} port={port} user={_USER} dbname="

        def ready() -> bool:
            try:
                psycopg.connect(f"{base}postgres").close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(ready, "PostgreSQL's start")
        with psycopg.connect(f"{base}postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE d0")
            with psycopg.connect(f"{base}d0") as first:
                first.execute(
                    f"CREATE TABLE records AS SELECT generate_series(1, {RECORDS}) AS value"
                )
            for number in range(1, count):
                connection.execute(f"CREATE DATABASE d{number} TEMPLATE d0")
        yield Databases("postgresql", [f"{base}d{number}" for number in range(count)])


@contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """PostgreSQL's own end (a fast shutdown), which also takes away its shared memory."""
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGINT)
        server.wait()


def _sqlite(directory: Path, count: int) -> Databases:
    names = [str(directory / f"d{number}.sqlite") for number in range(count)]
    for name in names:
        connection = sqlite3.connect(name)
        with connection:
            connection.execute("CREATE TABLE records (value INTEGER)")
            values = ((value,) for value in range(1, RECORDS + 1))
            connection.executemany("INSERT INTO records VALUES (?)", values)
        connection.close()
    return Databases("sqlite", names)
