"""
The fixtures and hooks for all tests.

* ``async def`` tests run in the reactor as they are.  Their timeout is 120 seconds, or the value of
  ``@pytest.mark.deadline(seconds)``.
* A test fails if it leaves a delayed call, a reader, a writer, a socket, a pipe, a thread of
  evproxy's, a logged error or an unhandled failure behind.  A test that expects logged errors
  removes them from the fixture `logged_errors`.
* ``@pytest.mark.peers("redis-server", "redis-cli")`` names the real programs a test needs.
"""

from __future__ import annotations

import functools
import gc
import inspect
import os
import sys
from collections.abc import Callable, Generator, Iterator
from importlib import metadata
from typing import Any

import hypothesis
import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from tests.support.leaks import Holdings, LoggedErrors
from tests.support.programs import requires_program
from tests.support.reactors import choose_reactor

# A test that takes its time on a busy machine is no failure.
hypothesis.settings.register_profile("evproxy", deadline=None)
hypothesis.settings.load_profile("evproxy")

pytest_plugins = [
    "tests.support.batches",
    "tests.support.real_servers",
    "tests.support.blocking_clients",
    "tests.support.certificates",
    "tests.support.collector",
    "tests.support.configured",
    "tests.support.full_disk",
    "tests.support.inherited",
    "tests.support.logged",
    "tests.support.pages",
    "tests.support.proxies",
    "tests.support.pools",
    "tests.support.routed",
    "tests.support.secured",
    "tests.support.real_systemd",
    "tests.support.service_manager",
    "tests.support.services",
    "tests.support.toxiproxy_server",
    "tests.support.transports",
    "tests.support.unreachable",
]

DEADLINE = 120.0
SETTLING_TURNS = 100
SETTLING_PAUSE = 0.01

FAILED = pytest.StashKey[bool]()

if "EVPROXY_TEST_REACTOR" in os.environ:
    choose_reactor(os.environ["EVPROXY_TEST_REACTOR"])


def pytest_configure() -> None:
    """Start logging: before that, Twisted keeps the last events and the objects they refer to."""
    critical = LogLevelFilterPredicate(LogLevel.critical)
    shown = FilteringLogObserver(textFileLogObserver(sys.stderr), [critical])
    globalLogBeginner.beginLoggingTo([shown], redirectStandardIO=False)


def pytest_report_header() -> str:
    from twisted.internet import reactor

    return f"Twisted {metadata.version('twisted')}, {type(reactor).__name__}"


def pytest_collection_finish() -> None:
    """Freeze the live objects, so the collections after tests are fast."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peers"):
        for program in marker.args:
            requires_program(program)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    if not hasattr(pyfuncitem.obj, "hypothesis"):
        marker = pyfuncitem.get_closest_marker("deadline")
        pyfuncitem.obj = with_deadline(pyfuncitem.obj, marker.args[0] if marker else DEADLINE)
    return (yield)


def with_deadline(test: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Wrap `test`: its coroutine or Deferred is cancelled, and the test fails, after `seconds`."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> Any:
        from twisted.internet import reactor

        result = test(**fixtures)
        if inspect.iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addTimeout(seconds, reactor, too_late)
        return result

    return run


def too_late(result: object, seconds: float) -> object:
    """Report that a test was cancelled, with the place where it waited as the cause."""
    if isinstance(result, Failure):
        result.trap(CancelledError)
        raise TimeoutError(f"still not done after {seconds} s") from result.value
    return result


@pytest.fixture
def reactor() -> Any:
    """The reactor of the tests, for passing in."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def logged_errors() -> Iterator[LoggedErrors]:
    """The errors logged during the test; ``flush`` removes the expected ones."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    yield errors
    globalLogPublisher.removeObserver(errors)


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, reactor: Any, logged_errors: LoggedErrors
) -> Iterator[None]:
    """Fail a test that passes, but leaves an object behind."""
    turn_reactor(reactor, 0)
    before = Holdings.of(reactor)
    yield
    left = settle(reactor, before) + logged_errors.describe()
    for call in frozenset(reactor.getDelayedCalls()) - before.delayed_calls:
        call.cancel()
    if left and not request.node.stash.get(FAILED, False):
        pytest.fail("left behind: " + "\n".join(left), pytrace=False)


def settle(reactor: Any, before: Holdings) -> list[str]:
    """Return the leftovers beyond `before`, after the reactor had a bounded time to clean up."""
    gc.collect()
    turn_reactor(reactor, 0)
    left = Holdings.of(reactor).beyond(before)
    if not left:
        return left
    for _ in range(SETTLING_TURNS):
        turn_reactor(reactor, SETTLING_PAUSE)
        left = Holdings.of(reactor).beyond(before)
        if not left:
            break
    gc.collect()
    return left


def turn_reactor(reactor: Any, seconds: float) -> None:
    """Let the reactor run for one turn and `seconds`."""
    pytest_twisted.blockon(deferLater(reactor, seconds))
