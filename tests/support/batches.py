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
    Stands in for the engine's epoll object, and remembers what it gave.

    `seen` has the descriptors of each batch in order, `registered` those that were new, each
    with how many batches there had been, `waits` how long each poll might take.  `before` is
    called before each poll, so that peers can act where the reactor has no turn.  `order`:
    these come in a batch in this order, and after the others.

    `reactors`: the epoll objects that are watched, which are the reactor's.  They are left out of
    what is remembered, and what comes with an event of theirs is no batch.  `led`: how often one
    was registered.
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
        """The engine asks for an epoll object."""
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
    """Calls something in a batch, before what became ready after it was pulled."""

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
        """It is logged."""

    def _close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """What the epoll object of the one engine made in the test gives."""
    batches = Batches()
    monkeypatch.setattr(engine, "select", SimpleNamespace(epoll=batches.made))
    return batches


def ready(descriptor: int, mask: int) -> bool:
    """Whether `descriptor` has an event of `mask` now."""
    poll = select.poll()
    poll.register(descriptor, mask & ~HUNG_UP)
    return any(found & mask for _, found in poll.poll(0))


def wait_ready(descriptor: int, mask: int) -> None:
    """Wait for an event of the kernel's, giving the reactor no turn."""
    for _ in range(100_000):
        if ready(descriptor, mask):
            return
    raise AssertionError(f"descriptor {descriptor} does not become ready")


@pytest.fixture
def no_holes() -> Iterator[Callable[[int], None]]:
    """Takes every free descriptor number up to one; given back after the test."""
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
