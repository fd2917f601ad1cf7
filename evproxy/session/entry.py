"""
The entry of a listener: who may come in, how many, and how fast.

`Entry` decides and counts; `evproxy.policy.access` and `evproxy.policy.limits` have the rules.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from evproxy.policy.access import Access
from evproxy.policy.address_number import address_number
from evproxy.policy.limits import Client, ClientLimits, ClientTable, client_key
from evproxy.policy.refusal import Refusal
from evproxy.policy.shaping import Shaper, byte_rate
from evproxy.policy.token_bucket import Rate, TokenBucket
from evproxy.relay.pace import Pace, Paces
from evproxy.session.refusals import Refusals
from evproxy.settings import ListenerSettings

LONGEST_BURST = 1.0
"""Seconds' worth of new sessions that may come at once, and at least one session."""


@frozen
class EntryLimits:
    """
    The limits of one listener.

    `max_sessions`: sessions of the listener at once; 0: no limit.
    `starts`: new sessions of the listener; ``None``: no limit.
    `transfer`: bytes of the listener in each direction; ``None``: no limit.  `of_session`: the same
    for each session.
    `of_client`: the limits of each client.
    """

    max_sessions: int = 0
    starts: Rate | None = None
    transfer: Rate | None = None
    of_session: Rate | None = None
    of_client: ClientLimits = field(factory=ClientLimits)


def limits_of(listener: ListenerSettings) -> EntryLimits:
    """The limits that the settings of `listener` ask for."""
    return EntryLimits(
        listener.max_sessions,
        _rate(listener.new_sessions_per_second),
        _bytes(listener.bytes_per_second),
        _bytes(listener.bytes_per_second_per_session),
        ClientLimits(
            listener.max_sessions_per_peer,
            _rate(listener.new_sessions_per_second_per_peer),
            _bytes(listener.bytes_per_second_per_peer),
        ),
    )


def _bytes(per_second: int) -> Rate | None:
    return byte_rate(per_second) if per_second else None


def _rate(per_second: float) -> Rate | None:
    return Rate(per_second, max(1, int(per_second * LONGEST_BURST))) if per_second else None


class Entry:
    """
    Decides whether the clients of one listener get a session.

    :param clock: tells the time.
    :param access: the networks that may connect; replace it at any time.
    :param limits: of the listener and of each client.
    :param refusals: counts and reports those that are refused.
    """

    def __init__(
        self, clock: IReactorTime, access: Access, limits: EntryLimits, refusals: Refusals
    ) -> None:
        self.access = access
        self.sessions = 0
        self._now: Callable[[], float] = clock.seconds
        self._limits = limits
        self._clients = ClientTable(limits.of_client)
        self._clock = clock
        self._starts = self._bucket(limits.starts)
        self._to_upstream = self._bucket(limits.transfer)
        self._to_downstream = self._bucket(limits.transfer)
        self._refusals = refusals

    def limit(self, limits: EntryLimits) -> None:
        """
        Apply `limits` from now on: the running sessions count, and keep their own paces.

        A rate that stays keeps its bucket.
        """
        before, self._limits = self._limits, limits
        self._clients.limits = limits.of_client
        if limits.starts != before.starts:
            self._starts = self._bucket(limits.starts)
        if limits.transfer != before.transfer:
            self._to_upstream = self._bucket(limits.transfer)
            self._to_downstream = self._bucket(limits.transfer)

    def turned_away(self, host: str) -> bool:
        """
        Whether `admit` would refuse the client at `host` now.

        This is for the moment of the accept, before anything is made for the client.
        """
        number = address_number(host)
        refusal = self._refusal(number)
        if refusal is None:
            now = self._now()
            starts = self._starts
            refusal = (
                Refusal.LISTENER_RATE
                if starts is not None and starts.wait(now) > 0
                else self._clients.refusal(client_key(number), now)
            )
        if refusal is None:
            return False
        self._refusals.count(refusal, host)
        return True

    def admit(self, host: str) -> Admitted | Refusal:
        """Admit the client at `host`, or say why it is refused."""
        now = self._now()
        number = address_number(host)
        refusal = self._refusal(number)
        if refusal is None and self._starts is not None and not self._starts.take(now):
            refusal = Refusal.LISTENER_RATE
        if refusal is None:
            client = self._clients.admit(client_key(number), now)
            if isinstance(client, Client):
                self.sessions += 1
                return Admitted(self, client)
            refusal = client
            if self._starts is not None:
                self._starts.give_back(1)
        self._refusals.count(refusal, host)
        return refusal

    def count(self, host: str) -> Admitted:
        """Count a session of the client at `host` that runs already, whatever the limits are."""
        self.sessions += 1
        key = client_key(address_number(host))
        return Admitted(self, self._clients.count(key, self._now()))

    def _refusal(self, number: int | None) -> Refusal | None:
        most = self._limits.max_sessions
        if most and self.sessions >= most:
            return Refusal.LISTENER_SESSIONS
        return self.access.refusal(number)

    def _bucket(self, rate: Rate | None) -> TokenBucket | None:
        return None if rate is None else TokenBucket(rate, self._now())

    def _pace(self, *narrowest_first: TokenBucket | None) -> Pace | None:
        buckets = [bucket for bucket in narrowest_first if bucket is not None]
        return Pace(self._clock, Shaper(buckets)) if buckets else None

    @property
    def refused(self) -> dict[str, int]:
        """How many clients were refused so far, by the value of their `Refusal`."""
        return {reason.value: count for reason, count in self._refusals.totals.items()}

    def paces_of(self, client: Client) -> Paces:
        """How fast a session of `client` may move bytes, in each direction."""
        own = self._limits.of_session
        return (
            self._pace(self._bucket(own), client.to_upstream, self._to_upstream),
            self._pace(self._bucket(own), client.to_downstream, self._to_downstream),
        )

    def left(self, client: Client) -> None:
        """A session of `client` has ended."""
        self.sessions -= 1
        self._clients.release(client, self._now())


@define(eq=False)
class Admitted:
    """What a session holds until it ends: a place of its listener, and one of its client."""

    _entry: Entry
    _client: Client

    def paces(self) -> Paces:
        """How fast the session may move bytes, in each direction."""
        return self._entry.paces_of(self._client)

    def leave(self) -> None:
        """The session has ended."""
        self._entry.left(self._client)
