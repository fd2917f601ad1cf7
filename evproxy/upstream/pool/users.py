"""
Who uses a pool: those that have started it and have not stopped it yet.

Pure.  A pool works while there is a user, and checks its servers while one does not drain.
"""

from __future__ import annotations


class Users:
    """
    The users of one pool; it is true while there are any.

    A user is any hashable object; one is there once, however often it is added.  ``None``
    stands for users that nobody tells apart: they are counted.
    """

    def __init__(self) -> None:
        self._draining: dict[object, bool] = {}
        self._unnamed = 0

    def __bool__(self) -> bool:
        return bool(self._draining) or self._unnamed > 0

    @property
    def serving(self) -> bool:
        """Whether there is one that does not drain."""
        return self._unnamed > 0 or not all(self._draining.values())

    def add(self, user: object) -> None:
        """`user` uses the pool, and does not drain."""
        if user is None:
            self._unnamed += 1
        else:
            self._draining[user] = False

    def drains(self, user: object) -> None:
        """`user`, if it is one, drains from now on."""
        if user in self._draining:
            self._draining[user] = True

    def remove(self, user: object) -> None:
        """`user` uses the pool no more; of no concern if it did not."""
        if user is None:
            self._unnamed = max(0, self._unnamed - 1)
        else:
            self._draining.pop(user, None)
