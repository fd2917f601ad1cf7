"""What the log and the metrics say of copies, and what happens when a user's code breaks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from evproxy import AdminSettings, Mirror, UpstreamServer
from evproxy.hub import Hub
from evproxy.mirror.mirrors import QUIET, Mirrors
from evproxy.model import ConnectionInfo
from evproxy.observe.metrics.tally import Tally
from evproxy.policy.sampling import is_sampled
from tests.admin.test_metrics import scrape
from tests.mirror.test_mirrors import Copies, Mirrored, one_kind
from tests.mirror.test_service import Make, shadow
from tests.support.admin import Admin
from tests.support.leaks import LoggedErrors
from tests.support.logged import logged_lines
from tests.support.peers import END
from tests.support.proxies import Proxied

__all__ = ["shadow"]


class Told:
    """Mirrors that know no pool, so that each session that belongs to the sample has a record."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.copies = Copies()
        plane: Any = SimpleNamespace(adopt=None)
        self.mirrors = Mirrors(self.clock, Hub([self.copies]), plane)

    def session(self, mirror: Mirror, peer: str = "192.0.2.1", number: int = 1) -> None:
        """A session of a pool with `mirror` begins."""
        transport = SimpleNamespace(getHost=lambda: None)
        session: Any = SimpleNamespace(
            id=number,
            unique_id=f"session-{number}",
            info=ConnectionInfo(peer, 1234),
            opening=None,
            server=None,
            reason=None,
            peer=f"{peer}:1234",
            pool_name="web",
            downstream=SimpleNamespace(transport=transport),
        )
        connects: Any = None
        assert self.mirrors.stages_of(mirror, session, connects, 1.0) == ()


def test_a_line_in_ten_seconds() -> None:
    """The next line says how many there were in between."""
    told = Told()
    with logged_lines() as lines:
        for _ in range(3):
            told.session(Mirror("gone"))
        told.clock.advance(QUIET)
        told.session(Mirror("gone"), number=9)
    line = "The copy of session {} of pool web for pool gone was dropped (unreachable): there is no"
    assert lines == [
        f"{line.format(1)} such pool",
        f"{line.format(9)} such pool; 2 more since the line before",
    ]
    assert len(told.copies.records) == 4


@pytest.mark.parametrize("hashed", ["session", "peer"])
def test_what_decides(hashed: str) -> None:
    """The hash of the session's unique id, or of the client's address."""
    told = Told()
    mirror = Mirror("gone", fraction=0.3, hash=hashed)
    for number in range(100):
        told.session(mirror, f"192.0.2.{number % 10}", number)
    names = [
        record.unique_id if hashed == "session" else record.peer.partition(":")[0]
        for record in told.copies.records
    ]
    of_all = [f"session-{n}" if hashed == "session" else f"192.0.2.{n % 10}" for n in range(100)]
    assert names == [name for name in of_all if is_sampled(name, 0.3, b"evproxy.mirror")]
    assert 0 < len(names) < 100


async def test_metrics(shadow: Make) -> None:
    """Copies count by their outcome, and comparisons by their result."""
    shadowed = shadow(answers="compare")
    shadowed.start(admin=AdminSettings("tcp:0:interface=127.0.0.1"))
    client, server, second = await shadowed.trio()
    await server.send(b"one")
    await second.send(b"two")
    client.end()
    server.end()
    assert await client.rest() == (b"one", END)
    second.end()
    await shadowed.copies.only()
    found = await scrape(Admin(shadowed.ground.reactor, shadowed.service))
    assert found("evproxy_mirror_copies_total", pool="web", outcome="whole") == 1
    assert found("evproxy_mirror_answers_total", pool="web", result="different") == 1
    name = f"127.0.0.1:{shadowed.second.port}"
    assert found("evproxy_server_bytes_to_downstream_total", pool="next", server=name) == 3
    whole = Tally()
    assert shadowed.service.tally is not None
    for _ in range(2):
        whole.include_events(shadowed.service.tally)
    assert whole.copies["web", "whole"] == whole.answers["web", "different"] == 2


class Broken:
    """A second pool of a user, whose code is wrong."""

    name = "broken"
    connect_timeout = 1.0
    connect_attempts = 1

    def candidates(self, info: ConnectionInfo) -> Any:
        raise RuntimeError("oops")


@one_kind
async def test_a_pool_that_breaks(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """The exception is logged, the copy is dropped, and the session goes on."""
    copies = Copies()
    await proxied.start(mirror=Mirror("broken", to=Broken()), observers=[copies])
    client, server = await proxied.pair()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    record = await copies.only()
    assert (record.outcome, record.error) == ("error", "oops")
    assert len(logged_errors.flush(RuntimeError)) == 1


@one_kind
async def test_no_room(proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all copies together keep too much, the one that needs more is dropped."""
    monkeypatch.setattr("evproxy.mirror.mirrors.MOST_WAITING", 1000)
    mirrored = Mirrored(proxied)
    one = UpstreamServer(f"127.0.0.1:{mirrored.second.port}", max_sessions=1)
    await mirrored.start(one, shadow={"queue_timeout": 60.0})
    await mirrored.trio()
    client, server = await proxied.pair()
    await client.send(b"x" * 1001)
    assert await server.receive(1001) == b"x" * 1001
    record = await mirrored.copies.only()
    assert (record.outcome, record.server) == ("no-room", "")
    assert mirrored.shadow.waiting == 0
