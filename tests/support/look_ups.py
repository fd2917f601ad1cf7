"""Look-ups that block their thread, as ``getaddrinfo`` does with a name server that is slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field


@define
class LookUps:
    """
    Stands in for ``getaddrinfo``: gives `addresses` to every name, or waits.

    :param delay: seconds that each answer takes.
    :param silent: names that begin so are not answered until `release`.
    """

    addresses: tuple[str, ...] = ("127.0.0.1",)
    delay: float = 0.0
    silent: str = "silent"
    asked: list[str] = field(factory=list)
    at_once: int = 0
    most_at_once: int = 0
    _released: threading.Event = field(factory=threading.Event)
    _lock: threading.Lock = field(factory=threading.Lock)

    def __call__(self, name: str) -> tuple[str, ...]:
        with self._lock:
            self.asked.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if name.startswith(self.silent):
                self._released.wait()
                return ()
            if self.delay:
                self._released.wait(self.delay)
            return self.addresses
        finally:
            with self._lock:
                self.at_once -= 1

    def release(self) -> None:
        """Nobody waits any more."""
        self._released.set()


@contextmanager
def look_ups(delay: float = 0.0) -> Iterator[LookUps]:
    """Look-ups that hold no thread after the end."""
    made = LookUps(delay=delay)
    try:
        yield made
    finally:
        made.release()
