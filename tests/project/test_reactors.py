"""Everything that evproxy does, it does under each reactor; the suite itself runs under epoll."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.internet.utils import getProcessOutputAndValue

ROOT = Path(__file__).resolve().parents[2]
BEHAVIOUR = [
    # At once, each about as long: they wait more than they work.
    ["test_session_ends.py", "test_socket_relay.py", "test_transport.py"],
    ["test_limits.py", "test_torture.py"],
    ["test_relay_degradation.py", "test_relay_batches.py", "test_garbage.py"],
    ["test_full_queues.py", "test_idle.py"],
]


@pytest.mark.parametrize(
    ("name", "kind", "without"),
    [
        ("poll", "PollReactor", ""),
        # All sockets of the two hundred sessions fit under its 1,024 descriptors, those of a
        # full batch do not.
        ("select", "SelectReactor", "more_events_at_once_than_a_batch_takes"),
        ("asyncio", "AsyncioSelectorReactor", ""),
    ],
)
async def test_sessions_behave_alike(name: str, kind: str, without: str, reactor: Any) -> None:
    """How sessions end, limits, what is left of them and the torture test: all the same."""
    chosen = ["-k", f"not {without}"] if without else []
    runs = await gatherResults(
        [
            getProcessOutputAndValue(
                sys.executable,
                ["-m", "pytest", "-p", "no:cacheprovider", *chosen]
                + [f"tests/{each}" for each in files],
                {**os.environ, "EVPROXY_TEST_REACTOR": name},
                str(ROOT),
            )
            for files in BEHAVIOUR
        ]
    )
    for out, err, status in runs:
        report = out.decode() + err.decode()
        assert status == 0, report
        assert f", {kind}" in report
        counted = re.search(r"(\d+) passed", report)
        assert counted is not None, report
        assert int(counted[1]) > 25
        assert "skipped" not in report
