"""
Kernel pipes for splicing, kept for reuse.

Data that is spliced from one socket to another goes through a pipe.  A direction holds a pipe only
while it is bulk.  A new pipe costs three system calls, so some unused pipes are kept.
"""

from __future__ import annotations

import fcntl
import os

SIZE = 1024 * 1024
"""The requested size in bytes; ``fs.pipe-max-size`` allows it to all users."""

MOST = 256
"""How many pipes (two descriptors each) may be in use and kept together."""

KEPT = 16
"""How many unused pipes are kept."""

F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", 1031)


class Pipe:
    """A pipe, and `held`: how many bytes are in it."""

    __slots__ = ("held", "read_end", "write_end")

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        try:
            fcntl.fcntl(self.write_end, F_SETPIPE_SZ, SIZE)
        except OSError:
            # Beyond fs.pipe-user-pages-soft, pipes are small, but they work.
            return

    def close(self) -> None:
        """Close both ends; the bytes in the pipe are lost."""
        os.close(self.read_end)
        os.close(self.write_end)


class Pipes:
    """
    The pipes of one service.

    :param most: how many pipes there may be at once; 0: none, so that everything is copied.

    `in_use` counts the pipes that are taken and not given back yet.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.in_use = 0
        self._free: list[Pipe] = []

    @property
    def most(self) -> int:
        """How many pipes there may be at once."""
        return self._most

    @property
    def kept(self) -> int:
        """How many unused pipes there are."""
        return len(self._free)

    def take(self) -> Pipe | None:
        """Take an empty pipe; return ``None`` if there is none now."""
        if self._free:
            self.in_use += 1
            return self._free.pop()
        if self.in_use >= self._most:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        self.in_use += 1
        return pipe

    def use_none(self) -> None:
        """Splicing is not possible here: make no more pipes."""
        self._most = 0
        self.close()

    def give_back(self, pipe: Pipe) -> None:
        """Give back `pipe`, which is not needed any more."""
        self.in_use -= 1
        if pipe.held or len(self._free) >= min(KEPT, self._most):
            pipe.close()
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Close the unused pipes."""
        while self._free:
            self._free.pop().close()
