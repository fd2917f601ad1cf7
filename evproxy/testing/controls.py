"""
What a test can do to a proxy: the same methods in each kind of test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from evproxy import faults as kinds
from evproxy.faults.faults import Faults, Predicate
from evproxy.settings import refuse_other
from evproxy.settings.fault import FaultSettings
from evproxy.testing.seen import SeenSession

T = TypeVar("T")


class Injection:
    """
    Something that is wrong with a proxy, until it is removed; a context manager that removes it.

    :param remove: is called once.
    """

    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove: Callable[[], None] | None = remove

    def remove(self) -> None:
        """Make it right again; nothing happens if it is right already."""
        remove, self._remove = self._remove, None
        if remove is not None:
            remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Controlled(Protocol):
    """The proxy itself, in the thread of its reactor."""

    faults: Faults

    @property
    def sessions(self) -> list[SeenSession]: ...

    def add(self, key: object, fault: FaultSettings, where: Predicate | None) -> None: ...

    def remove(self, key: object) -> None: ...

    def inject_reset_next(self, count: int, bytes: int) -> None: ...

    def close_door(self, key: object, how: str, reset: bool) -> Any: ...

    def open_door(self, key: object | None = None) -> Any: ...


class Controls:
    """
    The methods that inject faults into a proxy.

    Each fault applies at once, to running sessions too, until its `Injection` is removed.  The
    arguments are those of the functions of `evproxy.faults`: times in seconds, sizes in bytes, and
    as keywords `stream` (``downstream`` by default), `probability`, `after`, `lasts` and so on.
    """

    def _do(self, action: Callable[[Controlled], T]) -> T:
        """Run `action` in the thread of the reactor."""
        raise NotImplementedError

    def inject(self, fault: FaultSettings, *, where: Predicate | None = None) -> Injection:
        """
        Inject `fault`, for the sessions that `where` chooses; by default for all.

        :raises SettingsError: if it is no fault, or there is a fault of this name.
        """
        refuse_other("fault", fault, FaultSettings)
        key = object()
        self._do(lambda proxy: proxy.add(key, fault, where))
        return Injection(lambda: self._do(lambda proxy: proxy.remove(key)))

    def latency(self, latency: float, jitter: float = 0.0, **more: Any) -> Injection:
        """See `evproxy.faults.latency`."""
        return self.inject(kinds.latency(latency, jitter, **more))

    def bandwidth(self, rate: int, **more: Any) -> Injection:
        """See `evproxy.faults.bandwidth`."""
        return self.inject(kinds.bandwidth(rate, **more))

    def slicer(self, average_size: int, size_variation: int = 0, **more: Any) -> Injection:
        """See `evproxy.faults.slicer`."""
        return self.inject(kinds.slicer(average_size, size_variation, **more))

    def slow_close(self, delay: float, **more: Any) -> Injection:
        """See `evproxy.faults.slow_close`."""
        return self.inject(kinds.slow_close(delay, **more))

    def timeout(self, timeout: float = 0.0, **more: Any) -> Injection:
        """See `evproxy.faults.timeout`."""
        return self.inject(kinds.timeout(timeout, **more))

    def stall(self, stream: str = "both", **more: Any) -> Injection:
        """See `evproxy.faults.stall`; both streams by default."""
        return self.inject(kinds.stall(stream=stream, **more))

    def half_open(self, **more: Any) -> Injection:
        """See `evproxy.faults.half_open`."""
        return self.inject(kinds.half_open(**more))

    def limit(self, bytes: int, **more: Any) -> Injection:
        """See `evproxy.faults.limit`."""
        return self.inject(kinds.limit(bytes, **more))

    def end(self, bytes: int, **more: Any) -> Injection:
        """See `evproxy.faults.end`."""
        return self.inject(kinds.end(bytes, **more))

    def truncate(self, bytes: int, **more: Any) -> Injection:
        """See `evproxy.faults.truncate`."""
        return self.inject(kinds.truncate(bytes, **more))

    def corrupt(self, share: float = 0.001, **more: Any) -> Injection:
        """See `evproxy.faults.corrupt`."""
        return self.inject(kinds.corrupt(share, **more))

    def tls_failure(self, **more: Any) -> Injection:
        """See `evproxy.faults.tls_failure`."""
        return self.inject(kinds.tls_failure(**more))

    def tls_stall(self, **more: Any) -> Injection:
        """See `evproxy.faults.tls_stall`."""
        return self.inject(kinds.tls_stall(**more))

    def server_refuses(self, **more: Any) -> Injection:
        """See `evproxy.faults.refused`: connects to the server are refused."""
        return self.inject(kinds.refused(**more))

    def server_hangs(self, **more: Any) -> Injection:
        """See `evproxy.faults.hang`: connects to the server get no answer."""
        return self.inject(kinds.hang(**more))

    def reset(self) -> int:
        """Reset the running sessions now; return how many there were."""
        return self._do(lambda proxy: proxy.faults.reset_sessions())

    def reset_next(self, count: int = 1, *, bytes: int = 0) -> None:
        """
        Reset the next `count` sessions, each after so many bytes of the server.

        0 bytes: in place of the first byte of the server.

        :raises SettingsError: if one of them is not a number, or too small.
        """
        self._do(lambda proxy: proxy.inject_reset_next(count, bytes))

    def cut(self) -> Injection:
        """Reset the running sessions, and refuse connections until that is removed."""
        return self._close_door("refuse", True)

    def refuse(self) -> Injection:
        """Refuse connections until that is removed; running sessions go on."""
        return self._close_door("refuse", False)

    def hang(self) -> Injection:
        """Let attempts to connect hang until that is removed; running sessions go on.  Linux."""
        return self._close_door("hang", False)

    def _close_door(self, how: str, reset: bool) -> Injection:
        key = object()
        self._do(lambda proxy: proxy.close_door(key, how, reset))
        return Injection(lambda: self._do(lambda proxy: proxy.open_door(key)))

    def heal(self) -> None:
        """Remove every fault, and accept connections."""
        self._do(lambda proxy: proxy.faults.clear())
        self._do(lambda proxy: proxy.open_door())
