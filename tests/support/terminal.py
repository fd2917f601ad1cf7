"""A program in a terminal: a pseudo-terminal, and the screen that a user would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence
from typing import Self

import pyte

from tests.support.twistd import PATIENCE, environment


class Terminal:
    """
    A program in a terminal of its own.

    :param command: the program and its arguments.
    :param columns, lines: the size of the terminal.
    """

    def __init__(self, command: Sequence[str], columns: int = 80, lines: int = 24) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._pid, self._master = pty.fork()
        if not self._pid:
            size = struct.pack("HHHH", lines, columns, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            given = {**environment(), "TERM": "xterm-256color"}
            for name in ("COLUMNS", "LINES"):
                given.pop(name, None)
            os.execve(command[0], [*command], given)
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._over:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press keys, one after the other."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._screen.resize(lines, columns)
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    @property
    def lines(self) -> list[str]:
        """What the screen shows."""
        return list(self._screen.display)

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen is as it has to be, and return it."""
        limit = time.monotonic() + PATIENCE
        while not holds(self.lines):
            assert time.monotonic() < limit, "\n".join(self.lines)
            self._read()
        return self.lines

    def shows(self, text: str) -> list[str]:
        """Wait until the screen shows `text`, and return the screen."""
        return self.until(lambda lines: any(text in line for line in lines))

    def ended(self) -> int:
        """Wait for the end of the program, and return its exit status."""
        while self._read():
            pass
        self._over = True
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def echoes(self) -> bool:
        """Whether the terminal shows what a user types, as a shell wants it."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 0.1)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # Linux reports the end of the last program in a terminal as an error.
            return False
        self._stream.feed(data)
        return bool(data)
