"""An engine that waits itself, and watches the reactor's epoll object meanwhile."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.engine import loop, reactor_epoll
from evproxy.engine.deadlines import Deadlines
from evproxy.engine.loop import TURN, SocketEngine
from evproxy.engine.pipes import Pipes
from tests.support.batches import IN, Batches, Trigger
from tests.support.peers import Peer, converse, turn
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(20), pytest.mark.oldest_twisted]

MOST_BATCHES = 1_000_000
FOREVER = 3600.0
NOT_LED = "only Twisted's epoll reactor is led"


class Busy:
    """A socket that is always ready, like bulk, so the next batch is always ready too."""

    sink = None

    def __init__(self, engine: SocketEngine) -> None:
        self.batches = 0
        self._engine = engine
        self._read_end, self._write_end = os.pipe()
        os.write(self._write_end, b"!")
        engine.watch(self._read_end, self, IN)

    def event(self, mask: int) -> None:
        self.batches += 1
        if self.batches == MOST_BATCHES:
            self.stop()

    def event_failed(self) -> None:
        """Do nothing: the engine has logged the exception."""

    def stop(self) -> None:
        with suppress(OSError):
            self._engine.unwatch(self._read_end)
            os.close(self._read_end)
            os.close(self._write_end)


class Source:
    """Work for the reactor while an engine waits; the work comes from one of `KINDS`."""

    KINDS = ("thread", "timer", "reader", "signal")

    def __init__(self, reactor: Any, kind: str, cleanup: ExitStack) -> None:
        self.heard: Deferred[None] = Deferred()
        self._reactor = reactor
        self._begin: Callable[[], None] = getattr(self, f"_{kind}")
        self._cleanup = cleanup

    def begin(self) -> None:
        """Cause the event; called within a batch."""
        self._begin()

    def _hear(self) -> None:
        self.heard.callback(None)

    def _timer(self) -> None:
        self._reactor.callLater(0.01, self._hear)

    def _thread(self) -> None:
        self._in_thread(lambda: self._reactor.callFromThread(self._hear))

    def _signal(self) -> None:
        def handle(number: int, frame: object) -> None:
            self._reactor.callFromThread(self._hear)

        before = signal.signal(signal.SIGUSR1, handle)
        self._cleanup.callback(signal.signal, signal.SIGUSR1, before)
        main = threading.main_thread().ident
        assert main is not None
        self._in_thread(lambda: signal.pthread_kill(main, signal.SIGUSR1))

    def _reader(self) -> None:
        near, far = socket.socketpair()
        for each in (near, far):
            each.setblocking(False)
        peer = Peer(self._reactor, near)
        self._cleanup.callback(peer.close)
        self._cleanup.callback(far.close)
        received = Deferred.fromCoroutine(peer.receive(1))
        received.addCallback(lambda _: self._hear())
        self._in_thread(lambda: far.send(b"!"))

    def _in_thread(self, call: Callable[[], object]) -> None:
        """Call from a thread, once this thread has released the interpreter, as a wait does."""
        thread = threading.Thread(target=call)
        thread.start()
        self._cleanup.callback(thread.join)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """The functions to call after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def leader(reactor: Any, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> SocketEngine:
    """An engine that returns to the reactor only when the reactor has work."""
    if not leads(reactor):
        pytest.skip(NOT_LED)
    monkeypatch.setattr(loop, "LEAD", FOREVER)
    leader = SocketEngine(reactor, Deadlines(reactor), Pipes(1))
    leader.leads = True
    return leader


def leads(reactor: Any) -> bool:
    """Whether the engine can lead `reactor`."""
    return type(reactor).__name__ == "EPollReactor"


async def lead(leader: SocketEngine, batches: Batches) -> None:
    """Wait, and return within a batch of a leading engine."""
    within: Deferred[None] = Deferred()

    def again() -> None:
        if batches.leads:
            within.callback(None)
        else:
            Trigger(leader, again).pull()

    again()
    await within


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
@pytest.mark.parametrize("kind", Source.KINDS)
async def test_the_reactor_is_called_while_an_engine_leads(
    reactor: Any, leader: SocketEngine, batches: Batches, cleanup: ExitStack, kind: str, busy: bool
) -> None:
    """
    Threads, timers, readers and signals of the reactor end the wait of a leading engine.

    This holds for an idle engine as well as for a busy engine.
    """
    load = Busy(leader) if busy else None
    # Keeps the engine's epoll object.
    idle = Trigger(leader, lambda: None)
    await lead(leader, batches)
    source = Source(reactor, kind, cleanup)
    source.begin()
    await source.heard
    if load is not None:
        assert load.batches < MOST_BATCHES
        load.stop()
    idle.pull()


async def test_both_have_their_turns(reactor: Any, leader: SocketEngine, batches: Batches) -> None:
    """If the reactor and the engine are both always busy, neither waits for long."""
    leader.lingers = True
    load = Busy(leader)
    await lead(leader, batches)
    over: Deferred[None] = Deferred()
    counts: list[int] = []

    def go_on() -> None:
        counts.append(load.batches)
        if len(counts) < 200:
            reactor.callFromThread(go_on)
        else:
            over.callback(None)

    go_on()
    await over
    load.stop()
    # One batch for each turn, except turns in which the engine begins or ends its lead.
    assert counts[-1] - counts[0] >= len(counts) / 2
    assert load.batches < MOST_BATCHES
    assert TURN not in batches.waits


async def test_an_engine_that_is_called_at_once(
    reactor: Any, leader: SocketEngine, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An engine that must return at once does not lead again for a millisecond, then for two.

    Beginning and ending the lead is not free.
    """
    now = 0.0
    monkeypatch.setattr(loop, "monotonic", lambda: now)
    load = Busy(leader)
    await lead(leader, batches)
    for pause in (1, 2, 4):
        led = batches.led
        for _ in range(10):
            await turn(reactor)
            now += TURN * pause / 11
        assert batches.led == led
        now += TURN
        await lead(leader, batches)
        assert batches.led == led + 1
    load.stop()


async def test_an_engine_with_nothing_left_to_watch(
    reactor: Any, leader: SocketEngine, batches: Batches
) -> None:
    """An engine stops leading with its last descriptor, and leads again with the next one."""
    for _ in range(3):
        await lead(leader, batches)
        assert batches.leads
        again: Deferred[None] = Deferred()
        reactor.callLater(0, again.callback, None)
        await again
        assert leader.fileno() == -1


async def test_what_is_watched_in_the_batch_that_ends_everything_else(
    reactor: Any, leader: SocketEngine, batches: Batches
) -> None:
    """A descriptor that is added after the engine's epoll object is gone gets its events."""
    await lead(leader, batches)
    heard: Deferred[None] = Deferred()
    later: list[Trigger] = []

    def begin() -> None:
        trigger = Trigger(leader, lambda: heard.callback(None))
        later.append(trigger)
        trigger.pull()

    leader.after_batch(lambda: reactor.callLater(0, begin))
    await heard
    assert later


def full() -> OSError:
    """Raise the error of a kernel that watches too many descriptors already."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_kernel_that_does_not_let_the_reactor_watch_the_engine_again(
    reactor: Any, leader: SocketEngine, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel refuses to watch the engine, the engine is watched once this is possible."""
    idle = Trigger(leader, lambda: None)
    await lead(leader, batches)
    add_reader = reactor.addReader
    refused: list[Any] = []

    def refuse(reader: Any) -> None:
        if reader is leader and len(refused) < 2:
            refused.append(reader)
            raise full()
        add_reader(reader)

    monkeypatch.setattr(reactor, "addReader", refuse)
    called: Deferred[None] = Deferred()
    reactor.callFromThread(called.callback, None)
    await called
    await turn(reactor)
    assert len(refused) == 1
    heard: Deferred[None] = Deferred()
    Trigger(leader, lambda: heard.callback(None)).pull()
    await heard
    assert len(refused) == 2
    idle.pull()


async def test_a_kernel_that_does_not_let_the_engine_watch_the_reactor(
    leader: SocketEngine, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel refuses to watch the reactor, the engine does not lead, and retries later."""
    register = batches.register
    refused: list[int] = []

    def refuse(descriptor: int, mask: int) -> None:
        if descriptor == reactors and len(refused) < 2:
            refused.append(descriptor)
            raise full()
        register(descriptor, mask)

    idle = Trigger(leader, lambda: None)
    await lead(leader, batches)
    [reactors] = batches.reactors
    monkeypatch.setattr(batches, "register", refuse)
    await turn(leader.reactor)
    await lead(leader, batches)
    assert len(refused) == 2
    idle.pull()


@pytest.mark.parametrize("proxied", ["lingering"], indirect=True)
async def test_an_engine_that_cannot_find_the_reactors_epoll_object(
    proxied: Proxied, batches: Batches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without /proc, the engine lingers until the reactor watches a connection."""
    monkeypatch.setattr(reactor_epoll, "FOLDER", str(tmp_path / "missing"))
    await proxied.start()
    await converse(*await proxied.pair())
    assert max(batches.waits) == TURN


class Reader:
    """A reader for the reactor, on a descriptor that is never ready."""

    def __init__(self, descriptor: int) -> None:
        self.fileno = lambda: descriptor
        self.logPrefix = lambda: "reader"

    def doRead(self) -> None:
        raise AssertionError

    def connectionLost(self, reason: object) -> None:
        """Do nothing."""


def test_another_epoll_object_that_knows_the_same_number(
    reactor: Any, no_holes: Callable[[int], None]
) -> None:
    """An old number of another epoll object, which is open elsewhere, does not mislead evproxy."""
    if not leads(reactor):
        pytest.skip(NOT_LED)
    read_end, write_end = os.pipe()
    elsewhere = os.dup(read_end)
    other = select.epoll()
    other.register(read_end, IN)
    os.close(read_end)
    no_holes(read_end - 1)
    near, far = os.pipe()
    assert near == read_end
    reader = Reader(near)
    reactor.addReader(reader)
    found = reactor_epoll.find(reactor, reader)
    assert not any(each is reader for each in reactor.getReaders())
    assert found not in (None, other.fileno())
    other.close()
    for descriptor in (elsewhere, write_end, near, far):
        os.close(descriptor)


STOPPING = """
from twisted.internet import epollreactor
epollreactor.install()
from twisted.internet import reactor
from evproxy.engine.deadlines import Deadlines
from evproxy.engine.loop import SocketEngine
from evproxy.engine.pipes import Pipes
from tests.support.batches import Trigger
from tests.engine.test_leading import MOST_BATCHES, Busy

engine = SocketEngine(reactor, Deadlines(reactor), Pipes(1))
engine.leads = True
busy = Busy(engine)
stop = Trigger(engine, lambda: (print("stops"), reactor.stop()))
first = Trigger(engine, stop.pull)
reactor.callWhenRunning(first.pull)
reactor.run()
print("stopped", busy.batches < MOST_BATCHES)
"""


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is no epoll")
def test_a_reactor_that_is_stopped_within_a_batch() -> None:
    """The engine notices a stop of the reactor, which nothing reports, when its lead is over."""
    ended = subprocess.run(
        [sys.executable, "-c", STOPPING],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("stops\nstopped True\n", "")
