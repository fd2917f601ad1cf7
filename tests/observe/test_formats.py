"""The formats of the access log: text from outside never breaks a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.causes import Cause
from evproxy.model import Ending, Phase, Side, TLSFacts, close_reason
from evproxy.observe.formats import FORMATS, JsonFormat, TextFormat
from evproxy.observe.line_text import LONGEST, Stamps, utc
from evproxy.records import SessionCounts, SessionRecord, SessionStatus, Waited
from tests.support.twistd import session_event

WHEN = 1795503791.2049

RECORD = SessionRecord(
    listener="web",
    peer="192.0.2.7:50122",
    upstream="10.0.0.5:80",
    relay="socket",
    attempts=1,
    started=WHEN - 0.004001,
    connect_time=0.000412,
    first_byte_time=0.00312,
    duration=0.004001,
    bytes_to_upstream=517,
    bytes_to_downstream=10240,
    reason=close_reason(Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING),
    pool="web",
    route_time=0.0,
    unique_id="5c1f0e9a77b2-3",
)

UNCONNECTED = RECORD._replace(
    peer="",
    upstream="",
    relay="",
    attempts=2,
    connect_time=None,
    first_byte_time=None,
    bytes_to_upstream=0,
    bytes_to_downstream=0,
    reason=close_reason(Side.PROXY, Ending.UNREACHABLE, Phase.CONNECTING),
    error='no "b" here\n',
    cause=Cause.CONNECT_FAILED.value,
)

STATUS = SessionStatus(
    id=3,
    listener="web",
    peer="192.0.2.7:50122",
    phase=Phase.RELAYING,
    pool="web",
    upstream="10.0.0.5:80",
    relay="socket",
    attempts=1,
    started=WHEN - 61.5,
    connect_time=0.000412,
    duration=61.5,
    bytes_to_upstream=517,
    bytes_to_downstream=10240,
    first_byte_time=0.00312,
    route="sni a",
    unique_id="5c1f0e9a77b2-3",
)

TEXT = {
    "served": (
        RECORD._replace(id=3, via="10.0.0.9:5", server_name="a.org", route="sni *"),
        "2026-11-24T07:03:11.204Z web 192.0.2.7:50122 10.0.0.5:80 downstream finished relaying"
        " bytes_to_upstream=517 bytes_to_downstream=10240 connect_time=0.000412"
        " first_byte_time=0.003120 duration=0.004001 attempts=1 relay=socket id=3"
        " unique_id=5c1f0e9a77b2-3 pool=web via=10.0.0.9:5"
        ' server_name=a.org route="sni *" error=""\n',
    ),
    "not connected": (
        UNCONNECTED,
        "2026-11-24T07:03:11.204Z web - - proxy unreachable connecting"
        " bytes_to_upstream=0 bytes_to_downstream=0 connect_time=- first_byte_time=-"
        r" duration=0.004001 attempts=2 relay=- id=0 unique_id=5c1f0e9a77b2-3 pool=web via=-"
        r' server_name=- cause=connect-failed route=""'
        r' error="no \"b\" here\n"' + "\n",
    ),
    "odd names": (
        RECORD._replace(listener="unix:/a b", peer="-", upstream="c:\\d\u202e\x1b[0m\udc80ü"),
        r"2026-11-24T07:03:11.204Z unix:/a\x20b \x2d c:\\d\u202e\x1b[0m\udc80ü"
        " downstream finished relaying bytes_to_upstream=517 bytes_to_downstream=10240"
        " connect_time=0.000412 first_byte_time=0.003120 duration=0.004001 attempts=1"
        " relay=socket id=0 unique_id=5c1f0e9a77b2-3 pool=web via=- server_name=-"
        ' route="" error=""\n',
    ),
}


@pytest.mark.parametrize(("record", "line"), TEXT.values(), ids=TEXT)
def test_the_text_of_a_session(record: SessionRecord, line: str) -> None:
    """Words have fixed positions, an empty word is ``-``, and unprintable text is escaped."""
    assert TextFormat().session(WHEN, record) == line


def test_the_json_of_a_session() -> None:
    """The fields have the names of the record; a missing time is null."""
    assert json.loads(JsonFormat().session(WHEN, UNCONNECTED)) == {
        "time": "2026-11-24T07:03:11.204Z",
        "listener": "web",
        "peer": "",
        "upstream": "",
        "reason_by": "proxy",
        "reason_how": "unreachable",
        "reason_phase": "connecting",
        "bytes_to_upstream": 0,
        "bytes_to_downstream": 0,
        "connect_time": None,
        "first_byte_time": None,
        "duration": 0.004001,
        "attempts": 2,
        "relay": "",
        "id": 0,
        "unique_id": "5c1f0e9a77b2-3",
        "pool": "web",
        "via": "",
        "server_name": "",
        "cause": "connect-failed",
        "route": "",
        "error": 'no "b" here\n',
    }


def test_lines_that_are_missing_are_told() -> None:
    """A line in place of dropped lines has their number."""
    told = "2026-11-24T07:03:11.204Z - - - proxy dropped - lines=12\n"
    assert TextFormat().dropped(WHEN, 12) == told
    assert json.loads(JsonFormat().dropped(WHEN, 12)) == {
        "time": "2026-11-24T07:03:11.204Z",
        "dropped": 12,
    }


def test_the_line_of_a_session_that_is_not_over() -> None:
    """In place of who ended it and how, there is the event; the numbers are those so far."""
    assert TextFormat().under_way(WHEN, "interval", STATUS) == (
        "2026-11-24T07:03:11.204Z web 192.0.2.7:50122 10.0.0.5:80 - interval relaying"
        " bytes_to_upstream=517 bytes_to_downstream=10240 connect_time=0.000412"
        " first_byte_time=0.003120 duration=61.500000 attempts=1 relay=socket id=3"
        ' unique_id=5c1f0e9a77b2-3 pool=web via=- server_name=- route="sni a" error=""\n'
    )
    found = json.loads(JsonFormat().under_way(WHEN, "start", STATUS))
    ended = json.loads(JsonFormat().session(WHEN, RECORD))
    assert found.keys() == ended.keys()
    assert (found["reason_by"], found["reason_how"]) == ("", "start")
    assert (found["reason_phase"], found["duration"], found["id"]) == ("relaying", 61.5, 3)


def test_fields_that_only_some_sessions_have() -> None:
    """TLS that ended here, the way to the route, the queue and the cause, in this order."""
    record = RECORD._replace(
        tls=TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", "a.org", "h2"),
        server_name="a.org",
        route_time=0.25,
        waited=Waited(None, 1.5, 7),
        tried="10.0.0.4:80",
        cause="queue-timeout",
    )
    assert (
        " server_name=a.org tls_version=TLSv1.3 tls_cipher=TLS_AES_128_GCM_SHA256 tls_protocol=h2"
        " route_time=0.250000 queue_time=1.500000 queue_ahead=7"
        ' tried=10.0.0.4:80 cause=queue-timeout route=""'
    ) in TextFormat().session(WHEN, record)
    found = json.loads(JsonFormat().session(WHEN, record))
    assert {name: found[name] for name in found if name not in PLAIN} == {
        "tls_version": "TLSv1.3",
        "tls_cipher": "TLS_AES_128_GCM_SHA256",
        "tls_protocol": "h2",
        "route_time": 0.25,
        "queue_time": 1.5,
        "queue_ahead": 7,
        "tried": "10.0.0.4:80",
        "cause": "queue-timeout",
    }


PLAIN = json.loads(JsonFormat().session(WHEN, RECORD)).keys()


def test_a_session_that_waits_has_waited_up_to_now() -> None:
    """The wait of a session that is still in the queue goes up to the time of its line."""
    status = STATUS._replace(waited=Waited(STATUS.started + 60, 1.0, 0))
    assert " queue_time=2.500000 " in TextFormat().under_way(WHEN, "interval", status)


strings = st.text() | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs"]))
odd = st.sampled_from(
    ["", "-", "a b", '"q"', "\\", "\\n", "\n", "\x1b[0m", "\u202e", "\udc80", "ü"]
)
seconds = st.floats(0, 1e9)
counts = st.integers(0, 2**63)
records = st.builds(
    SessionRecord,
    listener=strings,
    peer=strings,
    upstream=strings,
    relay=st.sampled_from(["", "socket", "stream"]),
    attempts=counts,
    started=seconds,
    connect_time=st.none() | seconds,
    first_byte_time=st.none() | seconds,
    duration=seconds,
    bytes_to_upstream=counts,
    bytes_to_downstream=counts,
    reason=st.builds(
        close_reason, st.sampled_from(Side), st.sampled_from(Ending), st.sampled_from(Phase)
    ),
    error=strings,
    id=counts,
    via=odd,
    server_name=odd,
    route=strings,
    tls=st.none() | st.builds(TLSFacts, odd, odd, odd, odd, odd, odd),
    pool=odd,
    route_time=st.none() | seconds,
    waited=st.none() | st.builds(Waited, st.none() | seconds, seconds, counts),
    cause=st.sampled_from(["", *(each.value for each in Cause)]),
    unique_id=st.just("5c1f0e9a77b2-3"),
    tried=odd,
    counts=st.none(),
)
statuses = st.builds(
    SessionStatus,
    id=counts,
    listener=odd,
    peer=odd,
    phase=st.sampled_from(Phase),
    pool=odd,
    upstream=odd,
    relay=st.sampled_from(["", "socket", "stream"]),
    attempts=counts,
    started=seconds,
    connect_time=st.none() | seconds,
    duration=seconds,
    bytes_to_upstream=counts,
    bytes_to_downstream=counts,
    error=odd,
    route=odd,
    server_name=odd,
    unique_id=st.just("5c1f0e9a77b2-3"),
    first_byte_time=st.none() | seconds,
    via=odd,
    tls=st.none(),
    tried=odd,
    route_time=st.none() | seconds,
    waited=st.none() | st.builds(Waited, st.none() | seconds, seconds, counts),
    cause=st.just(""),
    counts=st.builds(SessionCounts, counts, counts, counts, counts),
)
times = st.floats(0, 253402300799, exclude_max=True)


@given(times, records, statuses)
def test_a_line_is_one_line(ended: float, record: SessionRecord, status: SessionStatus) -> None:
    """A line is printable, encodable and a single line, whatever the record contains."""
    for make in FORMATS.values():
        made = make()
        # HAProxy's line has the time of the accept.
        ended = max(ended, record.duration, status.duration)
        for line in (made.session(ended, record), made.under_way(ended, "start", status)):
            assert line.endswith("\n")
            assert line[:-1].isprintable()
            assert line[:-1].encode().decode().splitlines() == [line[:-1]]
    text = session_event(TextFormat().session(ended, record)[:-1])
    assert text["reason_how"] == record.reason.how.value
    assert text["bytes_to_downstream"] == record.bytes_to_downstream
    assert text["attempts"] == record.attempts


@given(times, records)
def test_json_says_what_the_record_says(ended: float, record: SessionRecord) -> None:
    """A parsed line has the same fields as the record; only strings that are too long are cut."""
    found: dict[str, Any] = json.loads(JsonFormat().session(ended, record))
    reason = record.reason
    assert (found["reason_by"], found["reason_how"], found["reason_phase"]) == (
        reason.by.value,
        reason.how.value,
        reason.phase.value,
    )
    for name in SessionRecord._fields:
        value = getattr(record, name)
        if name in ("cause", "tried"):
            assert json.dumps(found.get(name, "")) == json.dumps(value)
        elif isinstance(value, float) and name != "started":
            assert value == 0 or found[name] == pytest.approx(value, abs=1e-6)
        elif isinstance(value, str):
            expected = value if len(value) <= LONGEST else value[:LONGEST] + "…"
            # JSON cannot distinguish two surrogates from the character that they form in UTF-16.
            assert json.dumps(found[name]) == json.dumps(expected)
        elif name in found and name not in ("started", "reason", "tls"):
            assert found[name] == value


def test_a_string_is_cut() -> None:
    """A line has a bounded length, however long the text from outside is."""
    record = RECORD._replace(upstream="u" * 10_000, error="e" * 10_000)
    for made in (TextFormat(), JsonFormat()):
        assert len(made.session(WHEN, record)) < 2 * LONGEST + 500


@given(times, times)
def test_a_stamp_is_the_time(first: float, second: float) -> None:
    """A stamp is the time in UTC, with milliseconds, whatever the second of the last call."""
    stamps = Stamps(utc)
    for when in (first, second, first):
        shown = datetime.fromisoformat(f"{stamps.of(when)}Z")
        assert shown.tzinfo == UTC
        assert 0 <= when - shown.timestamp() < 0.0011


def test_the_subject_of_a_client_certificate() -> None:
    """A client that showed a certificate is named; the lines of others have no such field."""
    facts = TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", client_subject="CN=alice,O=The firm")
    record = RECORD._replace(tls=facts, cause="x")
    assert r" client_subject=CN=alice,O=The\x20firm cause=x route=" in TextFormat().session(
        WHEN, record
    )
    line = json.loads(JsonFormat().session(WHEN, record))
    assert line["client_subject"] == "CN=alice,O=The firm"
    other = RECORD._replace(tls=TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"))
    assert "client_subject" not in TextFormat().session(WHEN, other)
    assert "client_subject" not in JsonFormat().session(WHEN, other)
