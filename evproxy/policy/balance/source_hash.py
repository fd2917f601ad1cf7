"""
The same client goes to the same server, by consistent hashing of its address.

evproxy machines that have the same servers pick the same one, without communicating.  Adding
or removing one of n servers moves little more than 1/n of the clients.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, weighted
from evproxy.policy.balance.maglev import TABLE_SIZE, build, is_prime, stable_hash

KEY = b"evproxy.source-hash"
"""The default key of the hash.  Machines must have the same key to pick the same servers."""


class SourceHash:
    """
    Looks the client's address up in a Maglev table; see `evproxy.policy.balance.maglev`.

    Building a table takes tens of milliseconds, so `update` only starts the build, and
    `advance` does a slice.  (A new pool finishes its first table at once, so making a pool
    takes 30 to 40 milliseconds longer.)  Until the new table is complete, the old table stays
    in use: candidates that have left are skipped, and new servers come last.  The remainder
    of the client's hash orders these new servers, and all servers before the first table.

    Failover walks the table in steps that depend on the client, so the clients of one server
    spread over all the others, and every machine moves a client to the same server.

    :param table_size: the number of slots, a prime; the share of a server is off by about
        n / size.
    :param key: the key of the hash, at most 64 bytes.
    :raises ValueError: if `table_size` is not a prime.
    """

    def __init__(self, table_size: int = TABLE_SIZE, key: bytes = KEY) -> None:
        if not is_prime(table_size):
            raise ValueError(f"the table size must be a prime, not {table_size}")
        self._size = table_size
        self._key = key
        self._servers: dict[str, Candidate] = {}
        self._wanted: dict[str, float] = {}
        self._names: list[str] = []
        self._table: array[int] | None = None
        self._building: Generator[None, None, tuple[list[str], array[int]]] | None = None

    def update(self, servers: Sequence[Candidate]) -> None:
        """Balance over `servers`; start a new table if names or weights have changed."""
        usable = weighted(servers)
        wanted = {server.spec.name: server.weight for server in usable}
        in_order = sorted((server.spec.name, number) for number, server in enumerate(usable))
        self._servers = {name: usable[number] for name, number in in_order}
        if wanted != self._wanted:
            self._wanted = wanted
            self._building = build(wanted, self._size, self._key) if wanted else None

    def advance(self) -> bool:
        """Build a slice of the table.  ``True`` if work remains."""
        if self._building is None:
            return False
        try:
            next(self._building)
        except StopIteration as done:
            self._names, self._table = done.value
            self._building = None
        return self._building is not None

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """Yield the server for the client's address, then the others in an order per client."""
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
    """Yield at most `count` values of `table`, each once, in the order for the hash `point`."""
    size = len(table)
    slot = point % size
    first = table[slot]
    yield first
    seen = {first}
    # Neighbours in the table are not independent, so each client has its own step width.  The
    # size is a prime, so every step width reaches every slot.
    step = (point >> 64) % (size - 1) + 1
    for _ in range(size):
        if len(seen) == count:
            return
        slot = (slot + step) % size
        index = table[slot]
        if index not in seen:
            seen.add(index)
            yield index
