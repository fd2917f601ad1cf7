"""evproxy works under each reactor; the suite itself runs under epoll."""

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
FOLDERS = ["tests/session", "tests/relay", "tests/engine", "tests/sockets", "tests/observe"]
PARTS = [
    ("staged", FOLDERS),
    ("not staged", ["tests/session"]),
    ("not staged", ["tests/relay", "tests/engine", "tests/sockets", "tests/observe"]),
]
"""Markers and folders of tests that run at the same time, for they wait more than they work."""


@pytest.mark.deadline(400)
@pytest.mark.parametrize(
    ("name", "kind", "marked"),
    [
        ("poll", "PollReactor", "every_reactor"),
        # It takes 1,024 descriptors.
        ("select", "SelectReactor", "every_reactor and not many_descriptors"),
        ("asyncio", "AsyncioSelectorReactor", "every_reactor"),
    ],
)
async def test_sessions_behave_alike(name: str, kind: str, marked: str, reactor: Any) -> None:
    """How sessions end, limits, what is left of them and the torture test: all the same."""
    runs = await gatherResults(
        [
            getProcessOutputAndValue(
                sys.executable,
                [
                    "-m",
                    "pytest",
                    "-n",
                    "0",
                    "-p",
                    "no:cacheprovider",
                    "-m",
                    f"{marked} and {part}",
                    *folders,
                ],
                {**os.environ, "EVPROXY_TEST_REACTOR": name},
                str(ROOT),
            )
            for part, folders in PARTS
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
