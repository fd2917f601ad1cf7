"""The channel between the supervisor and a worker, over a real pair of sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from evproxy.config.document import ConfigErrors
from evproxy.errors import SettingsError
from evproxy.workers.channel import AT_ONCE, Channel, WorkerFailed
from evproxy.workers.messages import Abort, Apply, Drain


class Ends:
    """
    Both ends of a channel; `handle` answers at the far end.

    `arrived`: the messages at the near end.
    """

    def __init__(self, reactor: Any, handle: Callable[[Any, Sequence[int]], Any]) -> None:
        self.arrived: list[Any] = []
        self.lost: Deferred[None] = Deferred()
        self.far_lost: Deferred[None] = Deferred()
        self.near = Channel(
            lambda message, _: self.arrived.append(message),
            lambda: self.lost.callback(None),
            reactor=reactor,
        )
        self.far = Channel(handle, lambda: self.far_lost.callback(None))
        with ExitStack() as opened:
            for sock, end in zip(socket.socketpair(), (self.near, self.far), strict=True):
                opened.enter_context(sock)
                sock.setblocking(False)
                factory: Any = Factory()
                factory.noisy = False
                factory.buildProtocol = lambda address, end=end: end
                reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, factory)

    async def close(self) -> None:
        self.near.close()
        await self.lost
        await self.far_lost


async def test_answers(reactor: Any) -> None:
    """A message has an answer: a value, or that of a Deferred; each its own."""
    ends = Ends(reactor, lambda message, _: succeed(message.deadline))
    first, second = ends.near.ask(Drain(1.0)), ends.near.ask(Drain(2.0))
    assert (await first, await second) == (1.0, 2.0)
    await ends.close()


async def test_large_message(reactor: Any) -> None:
    """A message may be larger than the buffers of the kernel."""
    ends = Ends(reactor, lambda message, _: message)
    large = bytes(3_000_000)
    assert await ends.near.ask(large) == large
    await ends.close()


async def test_descriptors(reactor: Any) -> None:
    """Descriptors arrive with their message, in order, and belong to the receiver."""
    received: list[tuple[Any, list[bytes]]] = []

    def handle(message: Any, descriptors: Sequence[int]) -> None:
        texts = []
        for descriptor in descriptors:
            texts.append(os.read(descriptor, 10))
            os.close(descriptor)
        received.append((message, texts))

    ends = Ends(reactor, handle)
    pipes = [os.pipe() for _ in range(5)]
    for number, (_, writing) in enumerate(pipes):
        os.write(writing, b"%d" % number)
    readers = [reading for reading, _ in pipes]
    answers = [ends.near.ask("two", readers[:2]), ends.near.ask("none")]
    answers.append(ends.near.ask("three", readers[2:]))
    for answer in answers:
        await answer
    assert received == [("two", [b"0", b"1"]), ("none", []), ("three", [b"2", b"3", b"4"])]
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)
    await ends.close()


async def test_many_messages(reactor: Any) -> None:
    """Many messages are read in several turns; all arrive, in order, also if the end follows."""
    ends = Ends(reactor, lambda message, _: None)
    messages = [bytes([number]) * (AT_ONCE // 2) for number in range(40)]
    seen = [0]

    def look() -> None:
        seen.append(len(ends.arrived))
        if not ends.lost.called:
            reactor.callLater(0, look)

    look()
    for message in messages:
        ends.far.tell(message)
    ends.far.close()
    await ends.lost
    await ends.far_lost
    assert ends.arrived == messages
    assert max(after - before for before, after in pairwise(seen)) <= 4


@pytest.mark.parametrize(
    "error", [SettingsError("wrong"), ConfigErrors(["a: one", "b: two"]), LookupError("no server")]
)
async def test_errors(reactor: Any, error: Exception) -> None:
    """An expected error is raised at the other end, with its text."""

    def handle(message: Any, _: Sequence[int]) -> None:
        raise error

    ends = Ends(reactor, handle)
    with pytest.raises(type(error)) as raised:
        await ends.near.ask(Apply())
    assert str(raised.value) == str(error)
    await ends.close()


async def test_unexpected_error(reactor: Any, logged_errors: Any) -> None:
    """An unexpected error is logged where it happens, and named at the other end."""

    def handle(message: Any, _: Sequence[int]) -> None:
        raise ZeroDivisionError("here")

    ends = Ends(reactor, handle)
    with pytest.raises(WorkerFailed, match="ZeroDivisionError: here"):
        await ends.near.ask(Apply())
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    await ends.close()


async def test_other_process_gone(reactor: Any) -> None:
    """What was asked fails if the other process goes, and so does what is asked later."""
    ends = Ends(reactor, lambda message, _: Deferred())
    asked = ends.near.ask(Apply())
    known: list[bool] = []

    def failed(failure: Failure) -> Failure:
        known.append(ends.near.gone)
        return failure

    asked.addErrback(failed)
    assert not ends.near.gone
    ends.far.close()
    with pytest.raises(ConnectionLost):
        await asked
    # Who has asked can tell this from a worker that does not answer.
    assert known == [True]
    await ends.lost
    await ends.far_lost
    with pytest.raises(ConnectionLost):
        await ends.near.ask(Apply())
    ends.near.tell(Abort())
