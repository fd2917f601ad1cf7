"""The examples do what they say."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.blocking_clients import page
from tests.support.twistd import JSON_LOG, ROOT, TWISTD, Running


def test_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``composed.tac`` serves a page through the proxy, and stops as a whole."""
    monkeypatch.setenv("LISTEN", "tcp:0:interface=127.0.0.1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [TWISTD, "-no", "--pidfile=", JSON_LOG]
    example = os.path.join(ROOT, "examples", "composed.tac")
    with Running(f"--python={example}", command=command) as proxy:
        answer = page(proxy.port())
        assert answer.endswith(b"\r\n\r\nThis page came through evproxy.\n")
        [event] = proxy.sessions(1)
        assert event["upstream"].endswith("site.socket")
        proxy.signal(signal.SIGINT)
        proxy.ended()
        proxy.says("Server Shut Down")
