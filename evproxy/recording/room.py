"""
The room for recordings in a directory: how many files, and how many bytes, there may be.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

LOOK = 1.0
"""Seconds after which the directory is looked at again: others write and delete there, too."""

SUFFIXES = {"json": ".jsonl", "pcapng": ".pcapng"}
"""How the names of recordings end, by the format."""


class Room:
    """
    Counts the recordings of one directory, in the thread of the writer.

    :param directory: its path.
    :param most_files: how many recordings the directory may have.
    :param most_bytes: how many bytes all of them may have.
    :param clock: the time in seconds.
    """

    def __init__(
        self,
        directory: str,
        most_files: int,
        most_bytes: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.directory = directory
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._clock = clock
        self._files = self._bytes = 0
        self._looked: float | None = None

    def take(self, size: int, new: bool) -> str:
        """
        Take the room for `size` more bytes.

        :param new: whether they begin a new recording.
        :return: why there is no room; empty if there is.
        :raises OSError: if the directory cannot be read.
        """
        now = self._clock()
        if self._looked is None or now - self._looked >= LOOK:
            self._look()
            self._looked = now
        if new and self._files >= self._most_files:
            return f"record_max_files: there are {self._files} recordings"
        if self._bytes + size > self._most_bytes:
            return f"record_max_bytes: the recordings have {self._bytes} bytes"
        self._files += new
        self._bytes += size
        return ""

    def _look(self) -> None:
        endings = tuple(SUFFIXES.values())
        self._files = self._bytes = 0
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(endings):
                    try:
                        size = entry.stat().st_size
                    except FileNotFoundError:
                        continue
                    self._files += 1
                    self._bytes += size
