"""
The limits of each client: how many sessions it has, and how fast it starts them.

Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import frozen

from evproxy.policy.address_number import IPV6
from evproxy.policy.refusal import Refusal
from evproxy.policy.token_bucket import Rate, TokenBucket

MOST_CLIENTS = 65_536
"""The default bound on the clients that a table knows."""

UNIX_CLIENT = -1
"""The key of all clients of UNIX sockets: most have no name, and could have any."""

_LINK_LOCAL = (IPV6 >> 118) + 0x3FA
"""The first bits of fe80::/10 (RFC 4291, 2.5.6): all hosts of a link are in one /64."""
_TRANSLATED = (IPV6 >> 32) + (0x64_FF9B << 64)
"""The first bits of 64:ff9b::/96 (RFC 6052, 2.1): all of IPv4 is in one /64."""


def client_key(number: int | None) -> int:
    """
    Which addresses are one client: an IPv4 address, and a /64 of IPv6.

    A host of IPv6 can have every address of its /64 (RFC 7934).  Where one /64 has different
    hosts, in fe80::/10 and 64:ff9b::/96, each address is a client.

    :param number: the `address_number` of the client; ``None`` for a UNIX socket.
    """
    if number is None:
        return UNIX_CLIENT
    if number < IPV6 or number >> 118 == _LINK_LOCAL or number >> 32 == _TRANSLATED:
        return number
    return number >> 64


@frozen(slots=True)
class ClientLimits:
    """
    What one client may have.

    `max_sessions`: sessions at a time; 0, the default, means no limit.
    `starts`: new sessions in a second, and at once; ``None``, the default, means no limit.
    `transfer`: bytes in a second in each direction, over all sessions of the client, see
    `evproxy.policy.shaping.byte_rate`; ``None``, the default, means no limit.
    """

    max_sessions: int = 0
    starts: Rate | None = None
    transfer: Rate | None = None


class Client:
    """
    A client in a table: its `sessions`, and its buckets, ``None`` without a limit.

    `starts` is the bucket of new sessions; `to_upstream` and `to_downstream` are the buckets of
    the bytes that its sessions pass on in each direction.
    """

    __slots__ = ("key", "sessions", "limits", "starts", "to_upstream", "to_downstream")

    def __init__(self, key: int) -> None:
        self.key = key
        self.sessions = 0
        self.limits: ClientLimits | None = None
        self.starts: TokenBucket | None = None
        self.to_upstream: TokenBucket | None = None
        self.to_downstream: TokenBucket | None = None

    def is_as_new(self, now: float) -> bool:
        """Whether nothing would change if the table forgot the client."""
        buckets = (self.starts, self.to_upstream, self.to_downstream)
        return self.sessions == 0 and all(each is None or each.is_full(now) for each in buckets)

    def apply(self, limits: ClientLimits, now: float) -> None:
        """Have a full bucket for every rate of `limits` that is new."""
        self.limits = limits
        self.starts = _bucket(self.starts, limits.starts, now)
        self.to_upstream = _bucket(self.to_upstream, limits.transfer, now)
        self.to_downstream = _bucket(self.to_downstream, limits.transfer, now)


def _bucket(bucket: TokenBucket | None, rate: Rate | None, now: float) -> TokenBucket | None:
    if rate is None:
        return None
    return bucket if bucket is not None and bucket.rate == rate else TokenBucket(rate, now)


class ClientTable:
    """
    The clients that have sessions, or had or tried to start some lately.

    Each operation takes constant time.  Idle clients, those without a session, are forgotten
    when all their buckets are full, and earlier if the table has `most` clients: then the one
    that has been idle for longest makes room, and starts with full buckets when it comes back.

    A client with a session is never forgotten, so the number of its sessions is always right.
    If all of `most` clients have sessions, a new client is admitted too, and forgotten when its
    last session ends: the bound on all sessions bounds the table then.  (Refusing the client
    would let anyone with `most` addresses lock everyone else out.)

    An entry takes 170 bytes, with `starts` 345, and with `transfer` too 520 (CPython 3.11, the
    key included): the default of `most` entries takes 11, 23 or 34 MB.

    :param limits: the limits of each client.  They may be replaced at any time: a rate that is
        new counts for a client from its next session on, and running sessions keep their
        buckets of bytes.
    :param most: the most clients; at least 1.
    """

    def __init__(self, limits: ClientLimits, most: int = MOST_CLIENTS) -> None:
        self.limits = limits
        self._most = most
        self._live: dict[int, Client] = {}
        self._idle: OrderedDict[int, Client] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live) + len(self._idle)

    def sessions(self, key: int) -> int:
        """How many sessions the client with this `client_key` has."""
        client = self._live.get(key)
        return 0 if client is None else client.sessions

    def admit(self, key: int, now: float) -> Client | Refusal:
        """
        Count a new session of the client with this `client_key`, or say why it is refused.

        A session that is admitted must be given to `release` when it ends.
        """
        limits = self.limits
        client = self._live.get(key)
        if client is None:
            client = self._idle.pop(key, None) or self._new(key, now)
        elif limits.max_sessions and client.sessions >= limits.max_sessions:
            return Refusal.CLIENT_SESSIONS
        if client.limits is not limits:
            client.apply(limits, now)
        if client.starts is not None and not client.starts.take(now):
            if client.sessions == 0:
                self._idle[key] = client
            return Refusal.CLIENT_RATE
        if client.sessions == 0:
            self._live[key] = client
        client.sessions += 1
        return client

    def count(self, key: int, now: float) -> Client:
        """
        Count a session of the client with this `client_key` that runs already.

        It must be given to `release` when it ends.
        """
        client = self._live.get(key)
        if client is None:
            known = self._idle.pop(key, None)
            client = self._live[key] = self._new(key, now) if known is None else known
        client.sessions += 1
        return client

    def refusal(self, key: int, now: float) -> Refusal | None:
        """Why `admit` would refuse the client now; ``None`` if it would not.  Counts nothing."""
        client = self._live.get(key)
        if client is None:
            client = self._idle.get(key)
            if client is None:
                return None
        most = self.limits.max_sessions
        if most and client.sessions >= most:
            return Refusal.CLIENT_SESSIONS
        if client.starts is not None and client.starts.wait(now) > 0:
            return Refusal.CLIENT_RATE
        return None

    def release(self, client: Client, now: float) -> None:
        """A session of `client`, as `admit` returned it, has ended."""
        client.sessions -= 1
        if client.sessions == 0:
            del self._live[client.key]
            if len(self) < self._most and not client.is_as_new(now):
                self._idle[client.key] = client

    def _new(self, key: int, now: float) -> Client:
        idle = self._idle
        # Two for each new one: so the table shrinks although new clients come.
        for _ in range(2):
            if not idle or not next(iter(idle.values())).is_as_new(now):
                break
            idle.popitem(last=False)
        if idle and len(self) >= self._most:
            idle.popitem(last=False)
        return Client(key)
