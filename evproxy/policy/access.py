"""Access: which clients may connect, by their addresses."""

from __future__ import annotations

from attrs import field, frozen

from evproxy.policy.networks import Networks
from evproxy.policy.refusal import Refusal


@frozen(slots=True)
class Access:
    """
    The rules of one listener: `deny` comes first, then `allow`.

    `allow`: the networks that may connect; ``None``, the default, means everyone.  A list that
    is empty allows no network: a file that lost its lines must not open the listener.
    `deny`: the networks that may not connect; the default is none.

    Networks say nothing about a client of a UNIX socket, which has no IP address: both lists
    leave such clients alone, and the permissions of the socket's file decide.
    """

    allow: Networks | None = None
    deny: Networks = field(factory=Networks)

    def refusal(self, number: int | None) -> Refusal | None:
        """
        Why the client may not connect; ``None`` if it may.

        :param number: the `address_number` of the client; ``None`` for a UNIX socket.
        """
        if number is None:
            return None
        if number in self.deny:
            return Refusal.DENIED
        if self.allow is not None and number not in self.allow:
            return Refusal.NOT_ALLOWED
        return None
