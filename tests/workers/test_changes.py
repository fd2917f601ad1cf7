"""The changes of operators, which a replaced worker makes again."""

from __future__ import annotations

import pytest

from evproxy.admin.servers import NewWeight
from evproxy.model import UpstreamServer
from evproxy.settings import PoolSettings, Settings
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.messages import Operate

NAME = "127.0.0.1:1"


def change(kind: str) -> Operate:
    """A change of the server."""
    if kind == "add_server":
        return Operate(kind, {"pool": "web"}, None, UpstreamServer(NAME))
    body = NewWeight(7) if kind == "weigh_server" else None
    return Operate(kind, {"pool": "web", "server": NAME}, None, body)


def settings(*servers: UpstreamServer, pool: str = "web") -> Settings:
    return Settings(pools=(PoolSettings(name=pool, upstreams=servers),))


def left(made: MadeChanges) -> list[str]:
    return [each.name for each in made]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("drain_server", "weigh_server"), ["drain_server", "weigh_server"]),
        (("drain_server", "resume_server"), ["resume_server"]),
        (("add_server", "weigh_server"), ["add_server", "weigh_server"]),
        (("add_server", "weigh_server", "remove_server"), ["remove_server"]),
        (("remove_server", "add_server"), ["remove_server", "add_server"]),
        (("remove_server", "add_server", "remove_server"), ["remove_server"]),
        (("add_server", "remove_server", "add_server"), ["remove_server", "add_server"]),
        (
            ("remove_server", "add_server", "drain_server", "add_server"),
            ["remove_server", "add_server"],
        ),
    ],
)
def test_what_is_left(kinds: tuple[str, ...], expected: list[str]) -> None:
    """A later change replaces what it undoes."""
    made = MadeChanges()
    for kind in kinds:
        made.add(change(kind))
    assert left(made) == expected


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("drain_server", "resume_server"), ["drain_server"]),
        (("remove_server", "add_server", "add_server"), ["remove_server", "add_server"]),
        (("drain_server", "weigh_server", "remove_server"), ["drain_server", "weigh_server"]),
        (("drain_server",), []),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_the_last_one_is_taken_back(
    kinds: tuple[str, ...], expected: list[str], later: bool
) -> None:
    """What it has replaced is back, before what came later."""
    made = MadeChanges()
    *before, last = map(change, kinds)
    for each in before:
        made.add(each)
    replaced = made.add(last)
    if later and "weigh_server" not in kinds:
        made.add(change("weigh_server"))
        expected = [*expected, "weigh_server"]
    made.take_back(last, replaced)
    assert left(made) == expected


LISTED, HEAVY = UpstreamServer(NAME), UpstreamServer(NAME, weight=5)


@pytest.mark.parametrize(
    ("kinds", "before", "after", "expected"),
    [
        (("weigh_server", "drain_server"), (LISTED,), (LISTED,), ["weigh_server", "drain_server"]),
        (("weigh_server", "drain_server"), (LISTED,), (HEAVY,), ["drain_server"]),
        (("weigh_server", "drain_server"), (LISTED,), (), []),
        (("remove_server",), (LISTED,), (LISTED,), ["remove_server"]),
        (("remove_server",), (LISTED,), (HEAVY,), []),
        (("remove_server",), (LISTED,), (), []),
        (("remove_server",), (), (LISTED,), []),
        (("add_server", "drain_server"), (), (), ["add_server", "drain_server"]),
        (("add_server", "drain_server"), (), (LISTED,), ["drain_server"]),
        (
            ("remove_server", "add_server"),
            (LISTED,),
            (LISTED,),
            ["remove_server", "add_server"],
        ),
        (("remove_server", "add_server", "drain_server"), (LISTED,), (HEAVY,), ["drain_server"]),
        (("remove_server", "add_server", "drain_server"), (LISTED,), (), []),
    ],
)
def test_reloads(
    kinds: tuple[str, ...],
    before: tuple[UpstreamServer, ...],
    after: tuple[UpstreamServer, ...],
    expected: list[str],
) -> None:
    """What a reload has undone in workers is not made again in a replaced worker."""
    made = MadeChanges()
    for kind in kinds:
        made.add(change(kind))
    made.reloaded(settings(*before), settings(*after))
    assert left(made) == expected


def test_a_server_that_discovery_brings_back() -> None:
    """Nothing that was done to it before is done again; other servers keep theirs."""
    made = MadeChanges()
    for kind in ("remove_server", "add_server", "drain_server", "weigh_server"):
        made.add(change(kind))
    made.forget("web", "127.0.0.1:9")
    made.forget("other", NAME)
    assert len(left(made)) == 4
    made.forget("web", NAME)
    assert left(made) == []


def test_a_pool_that_is_gone() -> None:
    """The changes of a pool go with the pool."""
    made = MadeChanges()
    made.add(change("drain_server"))
    made.reloaded(settings(LISTED), settings(LISTED, pool="other"))
    assert left(made) == []
