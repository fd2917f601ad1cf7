"""The checks for leftovers can fail: they find each kind of leftover, on every reactor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from weakref import ref

import pytest
from twisted.logger import Logger

from tests.support.reactors import REACTORS

ROOT = Path(__file__).resolve().parents[2]

LEFTOVERS = """
import socket
import threading

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Factory
from twisted.logger import Logger

kept = []


async def test_everything(reactor):
    kept.append(socket.socketpair())
    threading.Thread(target=threading.Event().wait, name="waits for ever", daemon=True).start()
    reactor.callLater(3600, int)
    reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    cycle = [fail(ValueError("nobody asked"))]
    cycle.append(cycle)


async def test_port_after_a_stop_that_is_not_awaited(reactor):
    reactor.listenTCP(0, Factory(), interface="127.0.0.1").stopListening()


def test_logged_error():
    Logger().error("went wrong")


def test_expected_errors(logged_errors):
    Logger().error("went wrong")
    fail(ValueError("on purpose"))
    assert len(logged_errors.flush(ValueError)) == 1
    assert len(logged_errors.flush()) == 1


@pytest.mark.deadline(0.01)
async def test_hangs():
    await Deferred()
"""


@pytest.mark.parametrize("name", REACTORS)
def test_leftovers(name: str, tmp_path: Path) -> None:
    """Leftovers fail a test; expected errors and late clean-ups do not; a hang has a timeout."""
    module = tmp_path / "test_leftovers.py"
    module.write_text(LEFTOVERS)
    environment = {**os.environ, "EVPROXY_TEST_REACTOR": name, "COLUMNS": "200"}
    for in_ci in ["CI", "BUILD_NUMBER"]:  # with these, pytest prints everything twice
        environment.pop(in_ci, None)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-rA", "-c", ROOT / "pyproject.toml"),
            *("-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", tmp_path, module),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    report = run.stdout
    assert f", {REACTORS[name][1]}\n" in report
    assert "left behind: delayed call: " in report
    assert "reader: <" in report
    assert "thread: waits for ever" in report
    assert report.count(": socket:[") == 3, report
    assert "ValueError: nobody asked" in report
    assert "test_leftovers.py::test_logged_error - Failed: left behind: logged" in report
    assert "test_leftovers.py::test_hangs - TimeoutError: still not done after 0.01 s" in report
    assert ">       await Deferred()" in report
    assert "1 failed, 4 passed, 2 errors in " in report


def test_unknown_reactor() -> None:
    """An unknown reactor is one line of error; the default reactor does not replace it."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", __file__],
        cwd=ROOT,
        env={**os.environ, "EVPROXY_TEST_REACTOR": "eqoll"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "EVPROXY_TEST_REACTOR: expected one of epoll, poll, select, asyncio" in run.stderr


def test_what_was_logged_is_not_kept() -> None:
    """The log of one test keeps no objects that would become garbage in another."""

    class Holding:
        """An object that an event holds."""

    holding = Holding()
    Logger().info("it happened", to=holding)
    held = ref(holding)
    del holding
    assert held() is None
