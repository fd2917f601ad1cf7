"""
The same client goes to the same server, by consistent hashing of its address.

Any number of evproxy machines with the same servers agree without talking.  Adding or
removing one of n servers moves little more than 1/n of the clients.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, weighted
from evproxy.policy.balance.maglev import TABLE_SIZE, build, is_prime, stable_hash

KEY = b"evproxy.source-hash"
"""The default key of the hash; machines agree if theirs are the same."""


class SourceHash:
    """
    Looks the client's address up in a Maglev table; see `evproxy.policy.balance.maglev`.

    A table takes tens of milliseconds, so `update` only begins to build it, and `advance`
    does a slice.  (A pool finishes its first one when it is made, which so takes 30 to 40
    milliseconds longer: at the start, or where a program makes a pool while it runs.)
    Until it is done the old one serves: its servers that have gone are walked past, new
    ones come last.  Among these, and before the first table among all, clients are dealt out
    by the plain remainder of their hash.

    Failover goes on through the table in steps that depend on the client, so that the
    clients of one server spread over all the others, and every machine moves them alike.

    :param table_size: how many slots, a prime; the share of a server is off by about n / size.
    :param key: of the hash, at most 64 bytes.
    :raises ValueError: if `table_size` is not a prime.
    """

    def __init__(self, table_size: int = TABLE_SIZE, key: bytes = KEY) -> None:
        if not is_prime(table_size):
            raise ValueError(f"the table size has to be a prime, not {table_size}")
        self._size = table_size
        self._key = key
        self._servers: dict[str, Candidate] = {}
        self._wanted: dict[str, float] = {}
        self._names: list[str] = []
        self._table: array[int] | None = None
        self._building: Generator[None, None, tuple[list[str], array[int]]] | None = None

    def update(self, servers: Sequence[Candidate]) -> None:
        """Take `servers` and begin a new table, unless names and weights are as they were."""
        usable = weighted(servers)
        wanted = {server.spec.name: server.weight for server in usable}
        in_order = sorted((server.spec.name, number) for number, server in enumerate(usable))
        self._servers = {name: usable[number] for name, number in in_order}
        if wanted != self._wanted:
            self._wanted = wanted
            self._building = build(wanted, self._size, self._key) if wanted else None

    def advance(self) -> bool:
        """Do a slice of building the table; whether some of it is left."""
        if self._building is None:
            return False
        try:
            next(self._building)
        except StopIteration as done:
            self._names, self._table = done.value
            self._building = None
        return self._building is not None

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """The server of the client's address, then the others in an order of its own."""
        servers, names, table = self._servers, self._names, self._table
        if not servers:
            return
        point = stable_hash(info.peer_host, self._key)
        if table is None:
            in_order = list(servers.values())
            start = point % len(in_order)
            yield from in_order[start:] + in_order[:start]
            return
        seen: set[str] = set()
        for index in _indexes(table, point, len(names)):
            name = names[index]
            seen.add(name)
            if name in servers:
                yield servers[name]
        new = [server for name, server in servers.items() if name not in seen]
        if new:
            start = point % len(new)
            yield from new[start:] + new[:start]


def _indexes(table: array[int], point: int, count: int) -> Iterator[int]:
    """The values of `table` in the order of the client at `point`, each once, `count` at most."""
    size = len(table)
    slot = point % size
    first = table[slot]
    yield first
    seen = {first}
    # Neighbours in the table are not independent: each client goes on with steps of its own,
    # which for a prime size reach every slot.
    step = (point >> 64) % (size - 1) + 1
    for _ in range(size):
        if len(seen) == count:
            return
        slot = (slot + step) % size
        index = table[slot]
        if index not in seen:
            seen.add(index)
            yield index
