"""The listening sockets that a supervisor keeps for its workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evproxy.settings import ListenerSettings
from evproxy.workers.reserved import ReservedSockets
from tests.support.services import until

pytestmark = pytest.mark.deadline(10)


def reserved(reactor: Any, path: Path) -> ReservedSockets:
    """The sockets of one UNIX listener, for two workers."""
    sockets = ReservedSockets(reactor, 2)
    sockets.apply(sockets.plan([ListenerSettings(f"unix:{path}")]))
    return sockets


async def test_what_systemd_stores_stays_at_the_end(reactor: Any, tmp_path: Path) -> None:
    """The path of a UNIX listener that systemd stores is still there when the supervisor ends."""
    path = tmp_path / "socket"
    sockets = reserved(reactor, path)
    assert len(sockets.keep(paths=True)) == 1
    await sockets.close()
    assert path.exists()


async def test_what_a_reload_removes_goes(reactor: Any, tmp_path: Path) -> None:
    """The path of a listener that is gone after a reload is removed, also if systemd stores it."""
    path = tmp_path / "socket"
    sockets = reserved(reactor, path)
    sockets.keep(paths=True)
    sockets.apply(sockets.plan([]))
    await until(reactor, lambda: not path.exists())
