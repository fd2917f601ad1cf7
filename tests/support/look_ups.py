"""Look-ups that block their thread, like ``getaddrinfo`` with a slow name server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field


@define
class LookUps:
    """
    A double of ``getaddrinfo``: returns `addresses` for every name, or waits.

    :param delay: seconds that each answer takes.
    :param silent: a prefix; names with this prefix get no answer until `release`.
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
        """Let all waiting calls return."""
        self._released.set()


@contextmanager
def look_ups(delay: float = 0.0) -> Iterator[LookUps]:
    """A double of the look-ups, which releases its threads after the test."""
    made = LookUps(delay=delay)
    try:
        yield made
    finally:
        made.release()
