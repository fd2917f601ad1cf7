"""What is said to etcd and what it answers, without etcd."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.etcd_wire import (
    EtcdError,
    Lines,
    Registry,
    Snapshot,
    Update,
    end_of_range,
    range_request,
    read_snapshot,
    read_update,
    refusal,
    watch_request,
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def test_requests() -> None:
    """A prefix is a range of keys; a watch begins at a revision."""
    keys = {"key": encoded("/web/"), "range_end": encoded("/web0")}
    assert json.loads(range_request("/web/")) == keys
    watch = {"create_request": {**keys, "start_revision": "8"}}
    assert json.loads(watch_request("/web/", 8)) == watch


@given(st.binary(min_size=1), st.binary())
def test_end_of_range(prefix: bytes, rest: bytes) -> None:
    """Every key with the prefix is before the end, and the end has not the prefix."""
    end = end_of_range(prefix)
    if end != b"\0":
        assert prefix + rest < end
        assert not end.startswith(prefix)


def test_snapshot() -> None:
    """All keys with their values, which may be empty."""
    body = {
        "header": {"revision": "7"},
        "kvs": [{"key": encoded("/a"), "value": encoded("x")}, {"key": encoded("/b")}],
    }
    assert read_snapshot(json.dumps(body).encode()) == Snapshot(7, {b"/a": b"x", b"/b": b""})
    assert read_snapshot(b'{"header": {"revision": "7"}}') == Snapshot(7, {})


def test_updates() -> None:
    """Changes, deletions, and the ways in which a watch ends."""
    events = [
        {"kv": {"key": encoded("/a"), "value": encoded("x")}},
        {"type": "DELETE", "kv": {"key": encoded("/b")}},
    ]
    assert read_update(json.dumps({"result": {"events": events}}).encode()) == Update(
        ((b"/a", b"x"), (b"/b", None))
    )
    assert read_update(b'{"result": {"created": true}}') == Update()
    compacted = read_update(b'{"result": {"canceled": true, "compact_revision": "5"}}')
    assert compacted.ended == "the revision has been compacted"
    canceled = read_update(b'{"result": {"canceled": true, "cancel_reason": "no"}}')
    assert canceled.ended == "the watch was canceled: no"
    assert (
        read_update(b'{"error": {"message": "no\\nleader"}}').ended == "the watch failed: no leader"
    )


def test_refusal() -> None:
    """The gateway's errors come in several forms, and from others in none."""
    assert refusal(503, b'{"error": "no leader", "code": 14}') == "status 503: no leader"
    assert refusal(502, b"<html>") == "status 502"
    assert refusal(502, b"[]") == "status 502"


@given(st.one_of(st.binary(), st.text().map(lambda text: json.dumps(text).encode())))
def test_any_answer(data: bytes) -> None:
    """What is not etcd's is the one error."""
    for read in (read_snapshot, read_update):
        with pytest.raises(EtcdError):
            read(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("L2E="),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("header", "revision", "kvs", "key", "value", "kv", "type", "error"),
                    *("result", "events", "compact_revision", "canceled", "cancel_reason"),
                    "message",
                ]
            ),
            inside,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json(value: object) -> None:
    """Whatever JSON is said in etcd's words is read, or is the one error, in one line."""
    data = json.dumps(value).encode()
    with suppress(EtcdError):
        read_snapshot(data)
    with suppress(EtcdError):
        assert "\n" not in read_update(data).ended
    assert "\n" not in refusal(503, data)


@given(st.dictionaries(st.binary(max_size=9), st.binary() | json_values.map(as_json), max_size=5))
def test_any_values(values: dict[bytes, bytes]) -> None:
    """Each value is a server or a fault in one line, whatever it is."""
    registry = Registry()
    registry.replace(values)
    servers, faults = registry.servers()
    assert len(servers) + len(faults) == len(values)
    assert not any("\n" in fault for fault in faults)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", '"9"', "9" * 5000])
def test_any_revision(number: str) -> None:
    """A revision that is no number a program could have is an error like any other."""
    with suppress(EtcdError):
        read_snapshot(b'{"header": {"revision": %s}}' % number.encode())
    with suppress(EtcdError):
        read_update(b'{"result": {"compact_revision": %s}}' % number.encode())


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 200)))
def test_lines(lines: list[bytes], cuts: list[int]) -> None:
    """Lines come out whole, wherever they were cut."""
    wanted = [line.replace(b"\n", b"x") for line in lines]
    data = b"".join(line + b"\n" for line in wanted) + b"rest"
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    cutter = Lines()
    found = [line for start, end in pairwise(places) for line in cutter.receive(data[start:end])]
    assert found == [line for line in wanted if line.strip()]


def test_line_too_long() -> None:
    """A line without end is refused."""
    cutter = Lines(limit=10)
    assert list(cutter.receive(b"0123456789")) == []
    with pytest.raises(EtcdError):
        list(cutter.receive(b"a"))


def test_registry() -> None:
    """Values are servers in the order of their keys; wrong ones are told, and do not count."""
    registry = Registry()
    registry.replace({b"/b": b'"b:1"', b"/a": b'{"endpoint": "a:1", "weight": 2}'})
    assert registry.servers() == ((UpstreamServer("a:1", weight=2), UpstreamServer("b:1")), ())
    registry.apply([(b"/b", b"b:1"), (b"/c", b'{"endpoint": "c:1", "weight": -1}'), (b"/d", b"7")])
    servers, faults = registry.servers()
    assert servers == (UpstreamServer("a:1", weight=2),)
    starts = ("/b: not JSON: ", "/c: weight: expected a whole number from 0 to 256", "/d: expected")
    assert [fault.startswith(start) for fault, start in zip(faults, starts, strict=True)] == 3 * [
        True
    ]
    registry.apply([(b"/b", None), (b"/d", None), (b"/unknown", None)])
    assert registry.servers() == (servers, (faults[1],))
    registry.apply([(b"/c", b'"a:1"')])
    assert registry.servers() == (servers, ('/c: "a:1" is listed twice',))
    registry.replace({})
    assert registry.servers() == ((), ())


def test_registry_is_bounded() -> None:
    """Too many keys are refused; fewer again are not."""
    registry = Registry(limit=10)
    registry.apply([(b"/a", b'"a:1"')])
    with pytest.raises(EtcdError):
        registry.apply([(b"/b", b'"b:1"')])
    registry.replace({b"/b": b'"b:1"'})
    assert registry.servers()[0] == (UpstreamServer("b:1"),)
