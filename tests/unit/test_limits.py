"""Who is one client, and what the table of clients counts and forgets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from evproxy.config.canonical import canonical_address
from evproxy.policy.address_number import address_number
from evproxy.policy.limits import UNIX_CLIENT, Client, ClientLimits, ClientTable, client_key
from evproxy.policy.refusal import Refusal
from evproxy.policy.token_bucket import Rate

ONCE = ClientLimits(starts=Rate(1.0, 1))
"""One session, and a further one in each second."""


def key(host: str) -> int:
    return client_key(address_number(host))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "::192.0.2.1", True),
        ("0.0.0.0", "::", False),
        ("fe80::1", "fe80::2", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("febf::1", "febf::2", False),
        ("fec0::1", "fec0::2", True),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", False),
        ("64:ff9b:1::1", "64:ff9b:1::2", True),
        ("/run/one.sock", "", True),
        ("", "0.0.0.0", False),
    ],
)
def test_who_is_one_client(one: str, other: str, same: bool) -> None:
    """A client is an IPv4 address, a /64 of IPv6, or all of UNIX."""
    assert (key(one) == key(other)) is same


@given(st.ip_addresses(), st.ip_addresses())
@example(ip_address("192.0.2.1"), ip_address("::ffff:192.0.2.1"))
def test_families_share_no_key(one: object, other: object) -> None:
    """
    No IPv4 address has the key of an IPv6 network, and none has that of UNIX sockets.

    A mapped IPv4 address is one of IPv4.
    """
    if key(str(one)) == key(str(other)):
        assert ip_address(canonical_address(str(one))).version == (
            ip_address(canonical_address(str(other))).version
        )
    assert key(str(one)) != UNIX_CLIENT


def admitted(table: ClientTable, client: int, now: float = 0.0) -> Client:
    found = table.admit(client, now)
    assert isinstance(found, Client)
    return found


def test_sessions_of_a_client() -> None:
    """A client has at most so many sessions at a time, whatever the others have."""
    table = ClientTable(ClientLimits(max_sessions=2))
    first, _ = admitted(table, 1), admitted(table, 1)
    assert table.admit(1, 0.0) is Refusal.CLIENT_SESSIONS
    admitted(table, 2)
    table.release(first, 0.0)
    assert table.sessions(1) == 1
    admitted(table, 1)
    assert table.admit(1, 0.0) is Refusal.CLIENT_SESSIONS
    assert (table.sessions(1), table.sessions(2), table.sessions(3)) == (2, 1, 0)


def test_rate_of_a_client() -> None:
    """New sessions are counted against the rate, also those of a client that has none left."""
    table = ClientTable(ClientLimits(starts=Rate(1.0, 2)))
    for _ in range(2):
        table.release(admitted(table, 1), 0.0)
    assert table.admit(1, 0.5) is Refusal.CLIENT_RATE
    admitted(table, 2, 0.5)
    admitted(table, 1, 1.0)
    assert table.admit(1, 1.0) is Refusal.CLIENT_RATE
    assert table.sessions(1) == 1


def test_a_refused_session_takes_no_token() -> None:
    """A client at its bound on sessions does not lose its rate to further attempts."""
    table = ClientTable(ClientLimits(max_sessions=1, starts=Rate(1.0, 2)))
    first = admitted(table, 1)
    for _ in range(10):
        assert table.admit(1, 0.0) is Refusal.CLIENT_SESSIONS
    table.release(first, 0.0)
    admitted(table, 1)


def test_without_limits() -> None:
    """Without a rate nothing is worth remembering of a client without a session."""
    table = ClientTable(ClientLimits())
    clients = [admitted(table, 1) for _ in range(1000)]
    assert clients[0].starts is clients[0].to_upstream is clients[0].to_downstream is None
    for client in clients:
        table.release(client, 0.0)
    assert len(table) == 0


def test_idle_longest_goes_first() -> None:
    """A full table forgets the client that has been idle for longest, and never a live one."""
    table = ClientTable(ONCE, most=3)
    live = admitted(table, 0)
    for client in (1, 2):
        table.release(admitted(table, client), 0.0)
    assert table.admit(1, 0.0) is Refusal.CLIENT_RATE
    table.release(admitted(table, 3), 0.0)
    assert len(table) == 3
    assert table.admit(1, 0.0) is Refusal.CLIENT_RATE
    assert table.admit(3, 0.0) is Refusal.CLIENT_RATE
    assert table.admit(0, 0.0) is Refusal.CLIENT_RATE
    admitted(table, 2)
    table.release(live, 0.0)


def test_a_table_full_of_live_clients() -> None:
    """Then a new client is admitted, its sessions are counted, and it is forgotten at their end."""
    table = ClientTable(ClientLimits(max_sessions=1, starts=Rate(1.0, 1)), most=2)
    clients = [admitted(table, number) for number in range(5)]
    assert len(table) == 5
    for client in clients:
        assert table.admit(client.key, 0.0) is Refusal.CLIENT_SESSIONS
    for client in clients:
        table.release(client, 0.0)
    assert len(table) == 2
    assert table.admit(4, 0.0) is Refusal.CLIENT_RATE
    admitted(table, 0)


def test_the_table_shrinks() -> None:
    """Idle clients whose buckets are full again make room, also while new clients come."""
    table = ClientTable(ONCE)
    for client in range(1000):
        table.release(admitted(table, client), 0.0)
    assert len(table) == 1000
    for client in range(1000, 2000):
        table.release(admitted(table, client, 10.0), 10.0)
    assert len(table) == 1000
    for client in range(2000, 2500):
        table.release(admitted(table, client, 20.0), 20.0)
    assert len(table) == 500


def test_a_long_session_leaves_nothing() -> None:
    """A client whose buckets are full when its last session ends is forgotten at once."""
    table = ClientTable(ONCE)
    client = admitted(table, 1)
    table.release(client, 60.0)
    assert len(table) == 0


def test_bytes_are_remembered() -> None:
    """A client that comes back at once has no new burst of bytes."""
    table = ClientTable(ClientLimits(transfer=Rate(1_000_000.0, 100_000)))
    client = admitted(table, 1)
    assert client.to_upstream is not None
    client.to_upstream.spend(0.0, 100_000)
    table.release(client, 0.0)
    again = admitted(table, 1, 0.01)
    assert again.to_upstream is client.to_upstream
    assert again.to_downstream is not again.to_upstream
    assert client.to_upstream.level(0.01) == 10_000


def test_new_limits() -> None:
    """New limits count from the next session on; a rate that stays keeps its bucket."""
    table = ClientTable(ONCE)
    client = admitted(table, 1)
    starts = client.starts
    table.limits = ClientLimits(1, Rate(1.0, 1))
    assert table.admit(1, 0.0) is Refusal.CLIENT_SESSIONS
    table.limits = ClientLimits(2, Rate(1.0, 1))
    assert table.admit(1, 0.0) is Refusal.CLIENT_RATE
    assert client.starts is starts
    table.limits = ClientLimits(2)
    assert admitted(table, 1) is client
    assert client.starts is None


class Table(RuleBasedStateMachine):
    """The table against a plain count of all sessions."""

    MOST = 4

    def __init__(self) -> None:
        super().__init__()
        limits = ClientLimits(max_sessions=2, starts=Rate(0.5, 3), transfer=Rate(1000.0, 1460))
        self.table = ClientTable(limits, self.MOST)
        self.now = 1000.0
        self.running: list[Client] = []

    def count(self, client: int) -> int:
        return sum(each.key == client for each in self.running)

    @rule(client=st.integers(0, 8))
    def starts(self, client: int) -> None:
        foretold = self.table.refusal(client, self.now)
        found = self.table.admit(client, self.now)
        assert foretold is (None if isinstance(found, Client) else found)
        if isinstance(found, Client):
            assert found.key == client
            self.running.append(found)
        else:
            assert (found is Refusal.CLIENT_SESSIONS) is (self.count(client) >= 2)

    @rule(index=st.integers(0, 100))
    def ends(self, index: int) -> None:
        if self.running:
            self.table.release(self.running.pop(index % len(self.running)), self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 100.0, -50.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts_are_right_and_bounded(self) -> None:
        live = {each.key for each in self.running}
        assert all(self.table.sessions(each) == self.count(each) <= 2 for each in range(9))
        assert len(live) <= len(self.table) <= max(self.MOST, len(live))


test_table = Table.TestCase
