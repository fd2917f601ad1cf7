"""
Where a reactor waits for events, and a function that times the turns in that place.

No public interface of Twisted or asyncio reports the end of a poll.  So the watchdog replaces what
the loop polls, until it stops.  It finds that by its type, in the attributes of the reactor, and
uses no private name:

* epoll, poll: an attribute of the reactor is an epoll or poll object;
* asyncio: an attribute of the reactor is an event loop, and an attribute of that is a selector;
* select: a global name in the module of ``doIteration`` is `select.select`.

A reactor without any of these (one in C, for example) has `TimedCalls` instead: the lateness of
timed calls.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from evproxy.engine.loop import SocketEngine
from evproxy.engine.turns import Turns

_EPOLL: Any = getattr(select, "epoll", ())
_POLL: Any = type(select.poll()) if hasattr(select, "poll") else ()


class Wait(Protocol):
    """The place where a loop waits."""

    def time(self) -> None:
        """From now on, time the turns; called in the loop's thread, within a turn."""

    def restore(self) -> None:
        """Time nothing any more."""


def wait_of(reactor: Any, turns: Turns, interval: float) -> Wait:
    """
    Return the place where `reactor` waits.

    :param turns: gets the turns.
    :param interval: seconds between two timed calls, where only these can be timed.
    """
    attributes = vars(reactor)
    for name, value in attributes.items():
        if isinstance(value, (_EPOLL, _POLL)):
            return TimedPoll(attributes, name, turns)
        if isinstance(value, asyncio.AbstractEventLoop):
            for part in vars(value).values() if hasattr(value, "__dict__") else ():
                if isinstance(part, selectors.BaseSelector) and "select" not in vars(part):
                    return TimedSelector(part, turns)
    names = getattr(getattr(type(reactor), "doIteration", None), "__globals__", {})
    for name, value in names.items():
        if value is select.select:
            return TimedName(names, name, turns.timed(value))
    return TimedCalls(reactor, turns, interval)


class TimedName:
    """A name that stands for `timed` in `names`, and before that for something else."""

    def __init__(self, names: MutableMapping[str, Any], name: str, timed: object) -> None:
        self._names = names
        self._name = name
        self._before = names[name]
        self._timed = timed

    def time(self) -> None:
        self._names[self._name] = self._timed

    def restore(self) -> None:
        # Otherwise other code has put something there since, which may use ours.
        if self._names[self._name] is self._timed:
            self._names[self._name] = self._before


class Poller:
    """What a reactor uses in place of its epoll or poll object: the same, with a timed poll."""

    def __init__(self, poller: Any, poll: Callable[..., Any]) -> None:
        self._poller = poller
        self.poll = poll
        # The methods that are called for each connection: found at once.
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class TimedPoll(TimedName):
    """An attribute of a reactor, which is an epoll object or a poll object."""

    def __init__(self, attributes: dict[str, Any], name: str, turns: Turns) -> None:
        poller = attributes[name]
        self._poller = Poller(poller, turns.timed(poller.poll))
        super().__init__(attributes, name, self._poller)

    def restore(self) -> None:
        super().restore()
        self._poller.poll = self._before.poll


class TimedSelector:
    """The selector of an asyncio loop."""

    def __init__(self, selector: selectors.BaseSelector, turns: Turns) -> None:
        self._selector: Any = selector
        self._timed = turns.timed(selector.select)

    def time(self) -> None:
        self._selector.select = self._timed

    def restore(self) -> None:
        if vars(self._selector).get("select") is self._timed:
            del self._selector.select


class TimedEngine:
    """The waits of evproxy's engine, which come within a turn of the reactor."""

    def __init__(self, engine: SocketEngine, turns: Turns) -> None:
        self._engine = engine
        self._turns = turns

    def time(self) -> None:
        self._engine.turns = self._turns

    def restore(self) -> None:
        self._engine.turns = None


class TimedCalls:
    """
    Timed calls, on a reactor whose wait is not known.

    A turn is then how late a timed call comes.
    """

    def __init__(self, reactor: Any, turns: Turns, interval: float) -> None:
        self._reactor = reactor
        self._turns = turns
        self._interval = interval
        self._call: IDelayedCall | None = None

    def time(self) -> None:
        self._turns.end()
        self._turns.begin(monotonic() + self._interval)
        self._call = self._reactor.callLater(self._interval, self.time)

    def restore(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
