"""
The looks at a proxy, read in a thread while the terminal waits for keys.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import Any

from evproxy.cli.ctl.client import AdminClient, Failed, LiveView, Unreachable

AGAIN = 1.0
"""Seconds until a proxy that does not answer is asked again."""


class Watcher:
    """
    Reads a stream in a thread, and asks again where the stream ends.

    :param client: asks the proxy.
    :param question: what to watch first.
    :raises Failed, Unreachable: if the proxy does not answer that.

    `wakes`: a descriptor that is readable when something was read.
    """

    def __init__(self, client: AdminClient, question: dict[str, Any]) -> None:
        self._client = client
        self._question = question
        self._stream: LiveView | None = client.watch(**question)
        self._events: deque[tuple[str, Any]] = deque(maxlen=16)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = False
        self.wakes, self._wake = os.pipe()
        os.set_blocking(self.wakes, False)
        os.set_blocking(self._wake, False)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def taken(self) -> list[tuple[str, Any]]:
        """What was read since the last call."""
        with suppress(BlockingIOError):
            os.read(self.wakes, 4096)
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def ask(self, question: dict[str, Any]) -> None:
        """Watch something else from now on."""
        with self._lock:
            self._question = question
            self._events.clear()
            stream, self._stream = self._stream, None
        self._changed.set()
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """End the stream and the thread."""
        self._closed = True
        self.ask(self._question)
        self._thread.join(AGAIN)
        # A thread that still waits for an answer ends with the process.
        if not self._thread.is_alive():
            os.close(self.wakes)
            os.close(self._wake)

    def _read(self) -> None:
        while not self._closed:
            self._changed.clear()
            with self._lock:
                stream, question = self._stream, self._question
            try:
                if stream is None:
                    stream = self._client.watch(**question)
                    with self._lock:
                        if self._closed or question is not self._question:
                            stale, stream = stream, None
                            stale.close()
                            continue
                        self._stream = stream
                for name, value in stream:
                    self._tell(stream, name, value)
                trouble = "the stream has ended"
            except (Failed, Unreachable) as error:
                trouble = str(error)
            with self._lock:
                asked_again = self._stream is not stream
                if not asked_again:
                    self._stream = None
            if not asked_again:
                self._tell(None, "trouble", trouble)
                self._changed.wait(AGAIN)

    def _tell(self, stream: LiveView | None, name: str, value: Any) -> None:
        with self._lock:
            if self._stream is not stream:
                return
            self._events.append((name, value))
        with suppress(BlockingIOError):
            os.write(self._wake, b".")
