"""The reactor in a thread of its own, which proxies of plain tests run in."""

from __future__ import annotations

import os
from typing import Any

import pytest

from evproxy.errors import SettingsError
from evproxy.testing import ReactorThread, ThreadedProxy


def test_a_thread_that_has_stopped() -> None:
    """It leaves no descriptor, and a call into it fails at once."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        thread = ReactorThread()
        proxy = ThreadedProxy(thread, "127.0.0.1:9")
        proxy.stop()
        thread.stop()
        thread.stop()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(RuntimeError, match="has stopped: stop its proxies before it"):
        proxy.reset()


@pytest.mark.parametrize("port", [-1, 65536, "a", None])
def test_a_port_that_is_none(port: Any) -> None:
    """The error names it."""
    thread = ReactorThread()
    try:
        with pytest.raises(SettingsError, match=r"^port: expected a whole number from 0 to 65535"):
            ThreadedProxy(thread, "127.0.0.1:9", port=port)
    finally:
        thread.stop()
