"""Running out of descriptors, on purpose and for a while."""

from __future__ import annotations

import os
import resource
from types import TracebackType
from typing import Self


class Exhaustion:
    """
    Within the block, this process has no free descriptors, except those that `free` gives back.

    The limit is lowered to just above the used descriptors, so only a few must be taken.
    """

    def __init__(self) -> None:
        self._taken: list[int] = []

    def __enter__(self) -> Self:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(number) for number in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, self._limits[1]))
        self.take()
        return self

    def take(self) -> None:
        """Take every free descriptor."""
        while True:
            try:
                self._taken.append(os.dup(0))
            except OSError:
                return

    def free(self, count: int) -> None:
        """Give `count` descriptors back."""
        for _ in range(count):
            os.close(self._taken.pop())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free(len(self._taken))
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
