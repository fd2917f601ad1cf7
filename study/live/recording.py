"""
Records what an epoll loop does: each batch that it gets, and how long each callback takes.

`Recorder.install` puts a recording class in place of ``select.epoll``, before the loop is made.
A loop asks for the next event of a batch when the callback of the one before has returned, so the
iterator of a batch sees where each callback begins and ends.  Nothing of the loop is changed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from attrs import define

MOST_CALLBACKS = 2000
"""Callbacks that wait for the page; older ones are dropped, and counted."""


@define
class Callback:
    """One callback: the descriptor of its event, and when it ran, in monotonic seconds."""

    descriptor: int
    began: float
    ended: float


class Recorder:
    """Keeps the callbacks of all epoll objects of this process until `take`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: deque[Callback] = deque(maxlen=MOST_CALLBACKS)
        self._running: list[Callback] = []
        self._count = self._turns = 0
        self.kinds: dict[int, str] = {}

    def install(self) -> None:
        """Record every epoll object that is made from now on."""
        recorder, real = self, select.epoll

        class RecordedEpoll:
            def __init__(self, *arguments: Any) -> None:
                self._epoll = real(*arguments)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._epoll, name)

            def register(self, watched: Any, *mask: int) -> None:
                self._epoll.register(watched, *mask)
                number = watched if isinstance(watched, int) else watched.fileno()
                recorder.kinds[number] = kind_of(number)

            def poll(self, *arguments: Any) -> Batch:
                return Batch(recorder, self._epoll.poll(*arguments))

        select.epoll = RecordedEpoll  # type: ignore[assignment, misc]

    def begins(self, descriptor: int) -> Callback:
        """A callback begins."""
        callback = Callback(descriptor, time.monotonic(), 0.0)
        self._running.append(callback)
        return callback

    def ends(self, callback: Callback) -> None:
        """A callback has ended; one that called an inner loop is no callback of its own."""
        callback.ended = time.monotonic()
        with contextlib.suppress(ValueError):
            self._running.remove(callback)
        if self.kinds.get(callback.descriptor) != "loop":
            with self._lock:
                self._done.append(callback)
                self._count += 1

    def turned(self) -> None:
        """A batch with events has come."""
        self._turns += 1

    def take(self) -> dict[str, Any]:
        """What has happened since the last call, and the callback that runs now, if one does."""
        with self._lock:
            done = list(self._done)
            self._done.clear()
            dropped, self._count = self._count - len(done), 0
        running = list(self._running)[-1:]
        alive = {int(name) for name in os.listdir("/proc/self/fd")}
        kinds = {number: kind for number, kind in list(self.kinds.items()) if number in alive}
        return {
            "now": time.monotonic(),
            "turns": self._turns,
            "dropped": dropped,
            "callbacks": [[each.descriptor, each.began, each.ended] for each in done],
            "running": [[each.descriptor, each.began] for each in running],
            "descriptors": {
                number: kind for number, kind in kinds.items() if kind in ("client", "server")
            },
        }


class Batch(list[tuple[int, int]]):
    """The events of one poll; iterating over them records the callbacks."""

    def __init__(self, recorder: Recorder, events: list[tuple[int, int]]) -> None:
        super().__init__(events)
        self._recorder = recorder
        if events:
            recorder.turned()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for event in super().__iter__():
            callback = self._recorder.begins(event[0])
            try:
                yield event
            finally:
                self._recorder.ends(callback)


LISTENER_PORTS: set[int] = set()


def kind_of(descriptor: int) -> str:
    """What a descriptor is: ``client``, ``server``, ``listener``, ``loop`` or ``other``."""
    with contextlib.suppress(OSError):
        if "[eventpoll]" in os.readlink(f"/proc/self/fd/{descriptor}"):
            return "loop"
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family != socket.AF_INET:
                return "other"
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                LISTENER_PORTS.add(sock.getsockname()[1])
                return "listener"
            return "client" if sock.getsockname()[1] in LISTENER_PORTS else "server"
    except OSError:
        return "other"
