"""Everything that evproxy does, it does under each reactor; the suite itself runs under epoll."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.utils import getProcessOutputAndValue

ROOT = Path(__file__).resolve().parent.parent
BEHAVIOUR = ["test_session_ends.py", "test_full_queues.py", "test_torture.py"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("poll", "PollReactor"),
        # All sockets of the two hundred sessions fit under its 1,024 descriptors.
        ("select", "SelectReactor"),
        ("asyncio", "AsyncioSelectorReactor"),
    ],
)
async def test_sessions_behave_alike(name: str, kind: str, reactor: Any) -> None:
    """How sessions end, full queues and the torture test pass under the reactor too."""
    out, err, status = await getProcessOutputAndValue(
        sys.executable,
        ["-m", "pytest", "-p", "no:cacheprovider", *(f"tests/{each}" for each in BEHAVIOUR)],
        {**os.environ, "EVPROXY_TEST_REACTOR": name},
        str(ROOT),
    )
    report = out.decode() + err.decode()
    assert status == 0, report
    assert f", {kind}" in report
    counted = re.search(r"(\d+) passed", report)
    assert counted is not None, report
    assert int(counted[1]) > 100
    assert "skipped" not in report
