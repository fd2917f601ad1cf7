"""One question to one database: blocking, or awaited in an event loop."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from .databases import PAUSE

_POSTGRESQL = f"SELECT sum(value) FROM records, (SELECT pg_sleep({PAUSE})) AS pause"
_SQLITE = f"SELECT sum(value) FROM records WHERE pause({PAUSE}) = 0"


def ask(kind: str, name: str) -> int:
    """Ask the database `name` for the sum of its records; the thread waits."""
    if kind == "sqlite":
        connection = sqlite3.connect(name)
        slept: list[float] = []

        def pause(seconds: float) -> int:
            # Once for the whole SELECT, not once for each record.
            if not slept:
                slept.append(seconds)
                time.sleep(seconds)
            return 0

        connection.create_function("pause", 1, pause)
        try:
            return int(connection.execute(_SQLITE).fetchone()[0])
        finally:
            connection.close()
    import psycopg

    with psycopg.connect(name) as session:
        return _number(session.execute(_POSTGRESQL).fetchone())


async def ask_in_loop(name: str) -> int:
    """Ask the PostgreSQL database `name`; the loop goes on meanwhile."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(name) as session:
        return _number(await (await session.execute(_POSTGRESQL)).fetchone())


def _number(row: Any) -> int:
    return int(row[0])
