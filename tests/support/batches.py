"""The engine's epoll object, watched: which events came in which batch."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from evproxy.engine import loop as engine

IN, OUT, HUNG_UP = select.POLLIN, select.POLLOUT, select.POLLERR | select.POLLHUP


class Batches:
    """
    A double of the engine's epoll object, which records its results.

    `seen` has the descriptors of each batch in order.  `registered` has the new descriptors, each
    with the number of batches before.  `waits` has the timeout of each poll.  `before` is called
    before each poll, so peers can act while the reactor has no turn.  `order`: these descriptors
    come last in a batch, in this order.

    `reactors`: the watched epoll objects, which are the reactor's.  The records leave them out, and
    do not count a poll with one of their events as a batch.  `led`: how often one was registered.
    """

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.registered: list[tuple[int, int]] = []
        self.waits: list[float] = []
        self.before: Callable[[], object] = lambda: None
        self.order: list[int] = []
        self._epoll: Any = None
        self.reactors: set[int] = set()
        self.led = 0

    @property
    def leads(self) -> bool:
        """Whether the engine watches the reactor's epoll object."""
        return bool(self.reactors)

    def made(self) -> Batches:
        """Called when the engine makes an epoll object."""
        self._epoll = select.epoll()
        return self

    def close(self) -> None:
        self.reactors.clear()
        self._epoll.close()

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.before()
        self.waits.append(timeout)
        events: list[tuple[int, int]] = self._epoll.poll(timeout, most)
        events.sort(key=lambda event: self._rank(event[0]))
        if events and not self.reactors & dict(events).keys():
            self.seen.append([descriptor for descriptor, _ in events])
        return events

    def register(self, descriptor: int, mask: int) -> None:
        self._epoll.register(descriptor, mask)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("[eventpoll]"):
            self.reactors.add(descriptor)
            self.led += 1
        else:
            self.registered.append((len(self.seen), descriptor))

    def unregister(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self.reactors.discard(descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def _rank(self, descriptor: int) -> int:
        return self.order.index(descriptor) if descriptor in self.order else -1


class Trigger:
    """Calls a function in a batch, before the events of sockets that become ready later."""

    sink = None

    def __init__(self, engine: engine.SocketEngine, call: Callable[[], None]) -> None:
        self._engine = engine
        self._call = call
        self._read_end, self._write_end = os.pipe()
        engine.watch(self._read_end, self, IN)

    def pull(self) -> None:
        os.write(self._write_end, b"!")

    def event(self, mask: int) -> None:
        self._engine.unwatch(self._read_end)
        self._engine.after_batch(self._close)
        self._call()

    def event_failed(self) -> None:
        """Do nothing: the engine has logged the exception."""

    def _close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The batches of the only engine of the test."""
    batches = Batches()
    monkeypatch.setattr(engine, "select", SimpleNamespace(epoll=batches.made))
    return batches


def ready(descriptor: int, mask: int) -> bool:
    """Whether `descriptor` has an event of `mask` now."""
    poll = select.poll()
    poll.register(descriptor, mask & ~HUNG_UP)
    return any(found & mask for _, found in poll.poll(0))


def wait_ready(descriptor: int, mask: int) -> None:
    """Wait for an event from the kernel, without a turn of the reactor."""
    for _ in range(100_000):
        if ready(descriptor, mask):
            return
    raise AssertionError(f"descriptor {descriptor} does not become ready")


@pytest.fixture
def no_holes() -> Iterator[Callable[[int], None]]:
    """A function that takes every free descriptor number up to a given one, until the test ends."""
    taken: list[int] = []

    def take(most: int) -> None:
        while True:
            number = os.dup(0)
            if number > most:
                os.close(number)
                return
            taken.append(number)

    yield take
    for number in taken:
        os.close(number)
