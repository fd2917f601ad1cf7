"""
The users of a pool: a user has started the pool, and has not stopped it yet.

Pure.  A pool works while it has a user, and checks its servers while not all users drain.
"""

from __future__ import annotations


class Users:
    """
    The users of one pool; true while there is at least one.

    A user is any hashable object, and counts once, however often it is added.  ``None`` stands
    for an anonymous user: anonymous users are counted.
    """

    def __init__(self) -> None:
        self._draining: dict[object, bool] = {}
        self._unnamed = 0

    def __bool__(self) -> bool:
        return bool(self._draining) or self._unnamed > 0

    @property
    def serving(self) -> bool:
        """Whether at least one user does not drain."""
        return self._unnamed > 0 or not all(self._draining.values())

    def add(self, user: object) -> None:
        """`user` uses the pool from now on, and does not drain."""
        if user is None:
            self._unnamed += 1
        else:
            self._draining[user] = False

    def drains(self, user: object) -> None:
        """`user` drains from now on.  No effect if it does not use the pool."""
        if user in self._draining:
            self._draining[user] = True

    def remove(self, user: object) -> None:
        """`user` stops using the pool.  No effect if it does not use the pool."""
        if user is None:
            self._unnamed = max(0, self._unnamed - 1)
        else:
            self._draining.pop(user, None)
