"""
What the watchdog reports of the loop: a value that logs and pages show.
"""

from __future__ import annotations

import enum

from attrs import frozen


class LoopTrouble(enum.Enum):
    """What holds the loop, or makes it late."""

    CALLBACK = "callback"
    """One call of the reactor's takes long."""
    CALLS = "calls"
    """One turn makes many calls, none of them long."""
    COLLECTION = "collection"
    """A garbage collection takes long."""
    LOCK = "lock"
    """Another thread holds the interpreter lock for long."""
    STARVED = "starved"
    """The process waited for a processor."""
    STOPPED = "stopped"
    """The process did not run, and did not wait for a processor: a signal stopped it."""


class Doing(enum.Enum):
    """What a call does while it holds the loop."""

    RUNS = "runs"
    """It uses the processor, and other threads can run."""
    LOCKS = "locks"
    """It runs code in C that holds the interpreter lock: no other thread can run."""
    WAITS = "waits"
    """It waits in the kernel: a sleep, a name look-up, a disk, a lock."""
    UNKNOWN = "unknown"
    """The system does not say how much processor time a thread had."""


_DOING = {
    Doing.RUNS: "it runs",
    Doing.LOCKS: "it runs C code that holds the interpreter lock",
    Doing.WAITS: "it waits (a sleep, a name look-up, a disk, a lock)",
    Doing.UNKNOWN: "",
}


@frozen(kw_only=True)
class LoopReport:
    """
    One hold of the loop, or one reason for which it was late.

    `trouble`: which kind it is.  `seconds`: how long, so far if not `over`.  `over`: whether the
    loop goes on again.  `called`: what the reactor had called, as ``module.qualified_name``.
    `place`: the first function beneath it that is neither Twisted's nor evproxy's, with file and
    line; the same as `called` if there is none.  `doing`: what a call does meanwhile.  `stack`:
    the lines of a traceback, from what the reactor called to the innermost call.  `detail`: what
    else is known, for example the generation of a collection.
    """

    trouble: LoopTrouble
    seconds: float
    over: bool
    place: str = ""
    called: str = ""
    doing: Doing = Doing.UNKNOWN
    stack: tuple[str, ...] = ()
    detail: str = ""

    @property
    def text(self) -> str:
        """The report in one line, without the stack."""
        took = f"{self.seconds:.3f} s"
        if self.trouble is LoopTrouble.CALLBACK:
            held = "was held for" if self.over else "has been held for"
            itself = self.place.startswith(f"{self.called} ") or self.place == self.called
            by = "" if itself else f", within {self.called}, which the reactor called"
            doing = f": {_DOING[self.doing]}" if _DOING[self.doing] else ""
            return f"the loop {held} {took} by {self.place}{by}{doing}"
        if self.trouble is LoopTrouble.CALLS:
            made = "took" if self.over else "has taken"
            return f"a turn of the loop {made} {took}: many short calls, for example {self.detail}"
        if self.trouble is LoopTrouble.COLLECTION:
            return f"a garbage collection held the loop for {took}: {self.detail}"
        if self.trouble is LoopTrouble.LOCK:
            return f"another thread held the interpreter lock for {took}: {self.detail}"
        if self.trouble is LoopTrouble.STARVED:
            return f"the process waited {took} for a processor"
        return f"the process did not run for {took}: it was stopped (SIGSTOP), or the machine slept"
