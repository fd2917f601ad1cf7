"""The formats of the access log: text from outside never breaks a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.model import Ending, Phase, SessionRecord, Side, TLSFacts, close_reason
from evproxy.observe.formats import LONGEST, JsonFormat, Stamps, TextFormat
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
)

TEXT = {
    "served": (
        RECORD._replace(id=3, via="10.0.0.9:5", server_name="a.org", route="sni *"),
        "2026-11-24T07:03:11.204Z web 192.0.2.7:50122 10.0.0.5:80 downstream finished relaying"
        " bytes_to_upstream=517 bytes_to_downstream=10240 connect_time=0.000412"
        " first_byte_time=0.003120 duration=0.004001 attempts=1 relay=socket id=3"
        ' via=10.0.0.9:5 server_name=a.org route="sni *" error=""\n',
    ),
    "not connected": (
        UNCONNECTED,
        "2026-11-24T07:03:11.204Z web - - proxy unreachable connecting"
        " bytes_to_upstream=0 bytes_to_downstream=0 connect_time=- first_byte_time=-"
        r' duration=0.004001 attempts=2 relay=- id=0 via=- server_name=- route=""'
        r' error="no \"b\" here\n"' + "\n",
    ),
    "odd names": (
        RECORD._replace(listener="unix:/a b", peer="-", upstream="c:\\d\u202e\x1b[0m\udc80ü"),
        r"2026-11-24T07:03:11.204Z unix:/a\x20b \x2d c:\\d\u202e\x1b[0m\udc80ü"
        " downstream finished relaying bytes_to_upstream=517 bytes_to_downstream=10240"
        " connect_time=0.000412 first_byte_time=0.003120 duration=0.004001 attempts=1"
        ' relay=socket id=0 via=- server_name=- route="" error=""\n',
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
        "via": "",
        "server_name": "",
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


strings = st.text() | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs"]))
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
)
times = st.floats(0, 253402300799, exclude_max=True)


@given(times, records)
def test_a_line_is_one_line(ended: float, record: SessionRecord) -> None:
    """A line is printable, encodable and a single line, whatever the record contains."""
    for made in (TextFormat(), JsonFormat()):
        line = made.session(ended, record)
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
        if isinstance(value, float) and name != "started":
            assert found[name] == pytest.approx(value, abs=1e-6)
        elif isinstance(value, str):
            expected = value if len(value) <= LONGEST else value[:LONGEST] + "…"
            # JSON cannot distinguish two surrogates from the character that they form in UTF-16.
            assert json.dumps(found[name]) == json.dumps(expected)
        elif name not in ("started", "reason", "tls"):
            assert found[name] == value


def test_a_string_is_cut() -> None:
    """A line has a bounded length, however long the text from outside is."""
    record = RECORD._replace(upstream="u" * 10_000, error="e" * 10_000)
    for made in (TextFormat(), JsonFormat()):
        assert len(made.session(WHEN, record)) < 2 * LONGEST + 500


@given(times, times)
def test_a_stamp_is_the_time(first: float, second: float) -> None:
    """A stamp is the time in UTC, with milliseconds, whatever the second of the last call."""
    stamps = Stamps()
    for when in (first, second, first):
        shown = datetime.fromisoformat(stamps.of(when))
        assert shown.tzinfo == UTC
        assert 0 <= when - shown.timestamp() < 0.0011


def test_the_subject_of_a_client_certificate() -> None:
    """A client that showed a certificate is named; the lines of others have no such field."""
    facts = TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", client_subject="CN=alice,O=The firm")
    record = RECORD._replace(tls=facts)
    assert r" client_subject=CN=alice,O=The\x20firm route=" in TextFormat().session(WHEN, record)
    line = json.loads(JsonFormat().session(WHEN, record))
    assert line["client_subject"] == "CN=alice,O=The firm"
    other = RECORD._replace(tls=TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"))
    assert "client_subject" not in TextFormat().session(WHEN, other)
    assert "client_subject" not in JsonFormat().session(WHEN, other)
