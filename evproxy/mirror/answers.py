"""
The answers of both servers to one client: dropped, or compared.
"""

from __future__ import annotations

from collections.abc import Callable

from evproxy.mirror.comparison import Comparison, Verdict
from evproxy.mirror.room import Room
from evproxy.settings import Mirror

_FIRST, _SECOND = 0, 1


class Answers:
    """
    Compares the answers, if `mirror` says so; else it does nothing.

    :param mirror: the settings.
    :param room: for the bytes of all copies.
    """

    __slots__ = ("_comparison", "_first_ended", "_room", "_taken")

    def __init__(self, mirror: Mirror, room: Room) -> None:
        compares = mirror.answers == "compare"
        self._comparison = Comparison(mirror.buffer) if compares else None
        self._room = room
        self._taken = 0
        self._first_ended = False

    @property
    def verdict(self) -> str:
        """The value of a `Verdict`; empty if there is no comparison."""
        verdict = None if self._comparison is None else self._comparison.verdict
        return "" if verdict is None else verdict.value

    @property
    def decided(self) -> bool:
        """Whether the verdict is known, or there is no comparison."""
        return self._comparison is None or self._comparison.verdict is not None

    @property
    def difference(self) -> int | None:
        """The offset of the first byte that differs; ``None`` if none does."""
        comparison = self._comparison
        if comparison is None or comparison.verdict is not Verdict.DIFFERENT:
            return None
        return comparison.offset

    @property
    def why(self) -> str:
        """Why the comparison was given up; empty if it was not."""
        return "" if self._comparison is None else self._comparison.why

    def add_first(self, data: bytes) -> None:
        """The session's own server sent `data`."""
        if self._comparison is not None:
            self._do(lambda comparison: comparison.add(_FIRST, data))

    def add_second(self, data: bytes) -> None:
        """The second server sent `data`."""
        if self._comparison is not None:
            self._do(lambda comparison: comparison.add(_SECOND, data))

    def first_ended(self) -> None:
        """The session's own server ended its stream in order."""
        self._first_ended = True
        self._do(lambda comparison: comparison.end(_FIRST))

    def second_ended(self) -> None:
        """The second server ended its stream in order."""
        self._do(lambda comparison: comparison.end(_SECOND))

    def session_over(self) -> None:
        """The session is over: its own server sends nothing more."""
        if not self._first_ended:
            self.give_up("the session ended before its server had ended the answer")

    def give_up(self, why: str) -> None:
        """There will be no verdict, unless there is one already."""
        self._do(lambda comparison: comparison.give_up(why))

    def close(self) -> None:
        """The copy is over."""
        self.give_up("one of the answers was cut off")

    def _do(self, what: Callable[[Comparison], None]) -> None:
        comparison = self._comparison
        if comparison is None:
            return
        what(comparison)
        more = comparison.kept - self._taken
        if more > 0 and not self._room.take(more):
            comparison.give_up("all copies together keep too many bytes")
            self._room.give_back(self._taken)
        elif more < 0:
            self._room.give_back(-more)
        self._taken = comparison.kept
