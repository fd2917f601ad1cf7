"""
What a loop executes: the frames from what the reactor called to the innermost call.

A thread may read the frames of another thread while it holds the interpreter lock.
"""

from __future__ import annotations

import functools
import sys
import threading
import traceback
from types import CodeType, FrameType
from typing import Any

from attrs import frozen
from twisted.internet.base import DelayedCall

MOST_FRAMES = 40
"""The most frames in a report: the innermost ones."""

_LOOPS = ("runUntilCurrent", "doIteration", "mainLoop")
"""The methods of a reactor beneath which are the calls of one turn."""

_DISPATCHERS = frozenset(
    (
        "asyncio.base_events",
        "asyncio.events",
        "evproxy.engine.deadlines",
        "evproxy.engine.loop",
        "twisted.internet.asyncioreactor",
        "twisted.internet.base",
        "twisted.internet.posixbase",
        "twisted.python.context",
        "twisted.python.log",
    )
)
"""The modules whose functions stand between a loop and what the loop calls."""

_OWN = frozenset(("asyncio", "evproxy", "twisted"))
"""The packages whose functions are not the place of a report, if another one is on the stack."""


@frozen
class Frame:
    """A frame as it was: its code, the line, and the name of its module."""

    code: CodeType
    line: int
    module: str

    @property
    def name(self) -> str:
        """The function, with its module."""
        return f"{self.module}.{self.code.co_qualname}"

    @property
    def function(self) -> tuple[str, int, str]:
        """What tells the function from others; two functions in two files may have equal code."""
        return (self.code.co_filename, self.code.co_firstlineno, self.name)

    @property
    def place(self) -> str:
        """The function, with its file and line."""
        return f"{self.name} ({self.code.co_filename}:{self.line})"


@frozen(eq=False)
class Trace:
    """
    What the loop executes at one moment.

    `token`: the same object in two traces means that the same call still runs.  `frames`: from what
    the reactor called to the innermost.  `function`: what the reactor called, if it has no frame,
    because it is written in C.
    """

    token: object
    frames: tuple[Frame, ...]
    function: str = ""

    @property
    def called(self) -> str:
        """What the reactor had called."""
        return self.frames[0].name if self.frames and not self.function else self.function

    @property
    def holder(self) -> Frame | None:
        """The first function that is neither Twisted's nor evproxy's, or else the first one."""
        if self.function or not self.frames:
            return None
        for frame in self.frames:
            if frame.module.partition(".")[0] not in _OWN:
                return frame
        return self.frames[0]

    @property
    def place(self) -> str:
        """The name of the function that holds the loop, with its file and line."""
        holder = self.holder
        return self.function if holder is None else holder.place

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two reports the same: the functions that hold it and that run innermost."""
        holder = self.holder
        if holder is None:
            return (self.function,)
        return (holder.function, self.frames[-1].function)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of a traceback."""
        found = traceback.StackSummary.from_list(
            (each.code.co_filename, each.line, each.code.co_qualname, None)
            for each in self.frames[-MOST_FRAMES:]
        )
        return tuple(line for entry in found.format() for line in entry.rstrip().split("\n"))


class Tracer:
    """
    Traces one thread, in which a reactor runs.

    :param reactor: the reactor.
    :param ident: Python's number of the thread.
    """

    def __init__(self, reactor: Any, ident: int) -> None:
        self._ident = ident
        methods = (getattr(type(reactor), name, None) for name in _LOOPS)
        self._loops = {getattr(method, "__code__", None) for method in methods}
        self._dispatchers = _DISPATCHERS | {each.__module__ for each in type(reactor).__mro__}

    def trace(self) -> Trace | None:
        """Return what the thread executes now; ``None`` if there is no such thread any more."""
        frame = sys._current_frames().get(self._ident)
        if frame is None:
            return None
        below: list[FrameType] = []
        while frame is not None and not self._is_loop(frame):
            below.append(frame)
            frame = frame.f_back
        below.reverse()
        first = 0
        while first < len(below) and _module(below[first]) in self._dispatchers:
            first += 1
        shown = below[first:]
        if shown:
            return Trace(shown[0], tuple(map(_as_it_is, shown)))
        innermost = below[-1] if below else frame
        if innermost is None:
            return None
        function = _timed_function(innermost)
        if function is not None:
            return Trace(function, (), _name_of(function))
        return Trace(innermost, (_as_it_is(innermost),))

    def others(self) -> list[tuple[int, Frame]]:
        """Return the innermost frame of each thread but this one and the caller's."""
        own = {self._ident, threading.get_ident()}
        return [
            (ident, _as_it_is(frame))
            for ident, frame in sys._current_frames().items()
            if ident not in own
        ]

    def _is_loop(self, frame: FrameType) -> bool:
        code = frame.f_code
        if code in self._loops:
            return True
        return code.co_name == "_run" and _module(frame) == "asyncio.events"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _as_it_is(frame: FrameType) -> Frame:
    # Between two instructions, a frame may have no line.
    return Frame(frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno, _module(frame))


def _timed_function(frame: FrameType) -> Any:
    """
    Return the function that a reactor's frame is calling, if that function has no frame.

    Functions in C have none.  ``runUntilCurrent`` calls a `DelayedCall`, or a function of
    ``callFromThread``.
    """
    if frame.f_code.co_name != "runUntilCurrent":
        return None
    local = frame.f_locals
    for value in local.values():
        if isinstance(value, DelayedCall) and value.called:
            return value.func
    return next(
        (each for each in local.values() if callable(each) and not isinstance(each, type)), None
    )


def _name_of(function: Any) -> str:
    if isinstance(function, functools.partial):
        return _name_of(function.func)
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if name is None:
        # An object that can be called: its class says more than its text, which may be long.
        name, module = type(function).__qualname__, type(function).__module__
    return f"{module}.{name}" if module else name
