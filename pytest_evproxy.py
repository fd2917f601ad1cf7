"""
The plug-in for pytest: the fixtures `evproxy` and `evproxy_twisted`.

It is a module of its own, because pytest imports it in every run: nothing of evproxy or Twisted is
imported before a test asks for one of the fixtures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from evproxy.testing import FaultyProxy, ReactorThread, ThreadedProxy

SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the seed."""
    group = parser.getgroup("evproxy")
    group.addoption(
        "--evproxy-seed",
        type=int,
        default=None,
        metavar="N",
        help="the seed of the faults that evproxy injects; by default a new one, which is printed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of the run; the workers of pytest-xdist have that of the main process."""
    given = config.getoption("--evproxy-seed")
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        given = workerinput.get("evproxy_seed", given)
    config.stash[SEED] = random.SystemRandom().getrandbits(32) if given is None else given


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of pytest-xdist."""
    node.workerinput["evproxy_seed"] = node.config.stash[SEED]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Say in the report of a failed test how to have the same draws again."""
    report = yield
    uses = {"evproxy", "evproxy_twisted"} & set(getattr(item, "fixturenames", ()))
    if report.failed and uses:
        seed = item.config.stash[SEED]
        report.sections.append(("evproxy", f"to repeat the faults: --evproxy-seed={seed}"))
    return report


def _seeds(request: pytest.FixtureRequest) -> random.Random:
    """The seeds of the proxies of one test."""
    return random.Random(f"{request.config.stash[SEED]}/{request.node.nodeid}")


def _address(host: str, port: int | None) -> str:
    from evproxy.config.canonical import host_and_port

    return host if port is None else host_and_port(host, port)


@pytest.fixture(scope="session")
def evproxy_thread() -> Iterator[ReactorThread]:
    """The thread in which the proxies of `evproxy` run."""
    from evproxy.testing import ReactorThread

    thread = ReactorThread()
    yield thread
    thread.stop()


@pytest.fixture
def evproxy(
    request: pytest.FixtureRequest, evproxy_thread: ReactorThread
) -> Iterator[Callable[..., ThreadedProxy]]:
    """
    Make proxies: ``proxy = evproxy("127.0.0.1", 6379)``; see `evproxy.testing.ThreadedProxy`.

    For plain tests and for tests of asyncio.  The proxies stop with the test.
    """
    from evproxy.testing import ThreadedProxy

    seeds = _seeds(request)
    # Each proxy stops, whatever happens to the others.
    with ExitStack() as made:

        def make(host: str, port: int | None = None, /, **more: Any) -> ThreadedProxy:
            more.setdefault("seed", seeds.getrandbits(32))
            proxy = ThreadedProxy(evproxy_thread, _address(host, port), **more)
            made.callback(proxy.stop)
            return proxy

        yield make


@pytest.fixture
def evproxy_twisted(request: pytest.FixtureRequest) -> Iterator[Callable[..., FaultyProxy]]:
    """
    Make proxies in the reactor of the tests, for pytest-twisted; see `evproxy.testing.FaultyProxy`.

    The proxies stop with the test.
    """
    import pytest_twisted
    from twisted.internet import reactor

    from evproxy.testing import FaultyProxy

    seeds = _seeds(request)
    with ExitStack() as made:

        def make(host: str, port: int | None = None, /, **more: Any) -> FaultyProxy:
            more.setdefault("seed", seeds.getrandbits(32))
            proxy = FaultyProxy(reactor, _address(host, port), **more)
            made.callback(lambda: pytest_twisted.blockon(proxy.stop()))
            return proxy

        yield make
