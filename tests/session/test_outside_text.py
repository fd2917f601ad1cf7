"""Text from peers and servers cannot break a log line or control a terminal."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.logger import LogEvent, capturedLogs, eventAsText
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy import Pool
from evproxy.model import Ending, Phase, Side, UpstreamServer, close_reason
from evproxy.observe.log import SessionLog, TroubleLog
from evproxy.records import SessionRecord, SessionStatus
from evproxy.settings import HealthCheck
from evproxy.upstream.dialers import EndpointDialer
from evproxy.upstream.discovery.etcd_wire import EtcdError, Registry, read_update, refusal
from evproxy.upstream.discovery.records import services_in
from evproxy.upstream.probes.dialogue import Dialogue
from evproxy.upstream.probes.scripts import POSTGRESQL, send_expect
from evproxy.upstream.reasons import handshake_reason, reason_of
from tests.support.leaks import LoggedErrors
from tests.support.peers import Peer
from tests.support.proxies import Proxied
from tests.support.services import Ground, until

NASTY = "\x1b]8;;x\x07\x9b2J\u202e\u2066\u200b\U000e0041"
SHOWN = r"\x1b]8;;x\x07\x9b2J\u202e\u2066\u200b\U000e0041"

ENDED_BY_ERROR = close_reason(Side.PROXY, Ending.ERROR, Phase.CONNECTING)


def texts(events: Sequence[LogEvent]) -> list[str]:
    """Return the events as text log observers print them, without time and system."""
    return [eventAsText(each, includeTimestamp=False, includeSystem=False) for each in events]


def strings(event: LogEvent) -> list[str]:
    """Return every string among the fields of `event`."""
    return [value for value in event.values() if isinstance(value, str)]


def test_the_fields_of_a_session() -> None:
    """The text of a session and the fields of its event say the same, and are printable."""
    record = SessionRecord(
        listener=f"l{NASTY}",
        peer=f"p{NASTY}",
        upstream=f"u{NASTY}",
        relay="stream",
        attempts=1,
        started=0.0,
        connect_time=None,
        duration=0.0,
        bytes_to_upstream=0,
        bytes_to_downstream=0,
        reason=ENDED_BY_ERROR,
        error=f"e{NASTY}\n",
    )
    with capturedLogs() as events:
        SessionLog().session_ended(record)
    [event], [text] = events, texts(events)
    assert text.startswith(f"l{SHOWN} p{SHOWN} -> u{SHOWN}: ")
    assert text.endswith(rf", e{SHOWN}\n")
    assert (event["peer"], event["upstream"]) == (f"p{SHOWN}", f"u{SHOWN}")
    assert (event["listener"], event["error"]) == (f"l{SHOWN}", rf"e{SHOWN}\n")
    assert all(each.isprintable() for each in strings(event))


@pytest.mark.parametrize("name", ["pool", "tried", "route", "server_name", "via"])
def test_a_field_that_is_not_in_the_text(name: str) -> None:
    """A field of a session's event is printable, even if the text of the event is without it."""
    fields: dict[str, Any] = {name: NASTY}
    record = SessionRecord(
        "web", "", "", "", 0, 0.0, None, 0.0, 0, 0, ENDED_BY_ERROR, pool="web"
    )._replace(**fields)
    status = SessionStatus(
        1, "web", "", Phase.CONNECTING, "web", "", "", 0, 0.0, None, 0.0, 0, 0
    )._replace(**fields)
    with capturedLogs() as events:
        SessionLog().session_ended(record)
        SessionLog().under_way("start", status)
    assert [event[name] for event in events] == [SHOWN, SHOWN]


def test_the_fields_of_a_pool(logged_errors: LoggedErrors) -> None:
    """The text and the fields of a pool's event are printable, whatever pool notifies."""
    log = TroubleLog()
    with capturedLogs() as events:
        log.connect_failed(NASTY, NASTY)
        log.accepting_paused(NASTY)
        log.server_changed(NASTY, NASTY, "down", NASTY)
        log.pool_exhausted(NASTY, NASTY)
        log.discovery_failed(NASTY, NASTY)
        log.discovery_recovered(NASTY)
        log.pressure_began(NASTY, NASTY)
        log.pressure_over(NASTY)
        log.log_failed(NASTY, NASTY)
        log.log_lines_dropped(NASTY)
        log.log_written_again(NASTY, 1)
        log.log_not_reopened(NASTY, NASTY)
        log.log_lines_lost(NASTY, 1)
    assert texts(events) == [
        f"cannot connect to {SHOWN}: {SHOWN}",
        f"accepting is paused: {SHOWN}",
        f"{SHOWN}/{SHOWN} down: {SHOWN}",
        f"{SHOWN} cannot serve sessions: {SHOWN}",
        f"{SHOWN} keeps the servers it has: {SHOWN}",
        f"{SHOWN} discovers its servers again",
        f"{SHOWN}: {SHOWN}",
        f"over: {SHOWN}",
        f"cannot write the access log to {SHOWN}: {SHOWN}",
        f"{SHOWN} takes the access log too slowly: lines are dropped",
        f"the access log is written to {SHOWN} again, 1 lines were dropped",
        f"cannot open the access log {SHOWN} again: {SHOWN}; the one opened before is kept",
        f"the last 1 lines of the access log could not be written to {SHOWN}",
    ]
    assert len(logged_errors.flush()) == 1
    assert all(each.isprintable() for event in events for each in strings(event))


def test_the_name_of_a_server() -> None:
    """The name of a server is printable, whatever its path is."""
    assert UpstreamServer(f"unix:/{NASTY}").name == f"unix:/{SHOWN}"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (reason_of(Exception(f"a\n{NASTY}")), f"a {SHOWN}"),
        (reason_of(Failure(RuntimeError(r"a\nb"))), r"a\\nb"),
        (reason_of(EtcdError(r"a\nb")), r"a\nb"),
        (reason_of(SSL.Error([("", "", NASTY)])), f"TLS: {SHOWN}"),
        (
            handshake_reason(SSL.Error([("", "", NASTY)])),
            f"TLS handshake failed: {SHOWN}",
        ),
        (refusal(500, json.dumps({"error": NASTY}).encode()), f"status 500: {SHOWN}"),
        (
            read_update(b'{"result": {"canceled": true, "cancel_reason": "\\u009b2J"}}').ended,
            r"the watch was canceled: \x9b2J",
        ),
    ],
)
def test_reasons(told: str, expected: str) -> None:
    """A server's error text is escaped exactly once; evproxy's own text is not escaped again."""
    assert told == expected


def test_a_reason_of_postgresql() -> None:
    """An error message from PostgreSQL is escaped."""
    fields = b"SERROR\0C\x1b3000\0M" + NASTY.encode() + b"\0\0"
    dialogue = Dialogue(POSTGRESQL)
    dialogue.begin()
    dialogue.receive(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
    assert dialogue.outcome is not None
    assert dialogue.outcome.reason == rf"PostgreSQL error \x1b3000: {SHOWN}"


def test_a_reason_of_bytes() -> None:
    """An unexpected answer is shown as a bytes literal, and not escaped again."""
    dialogue = Dialogue(send_expect(HealthCheck(kind="send-expect", expect="+OK")))
    dialogue.receive(b"\x1b[2J\n")
    dialogue.end()
    assert dialogue.outcome is not None
    reason = r"closed by the server: expected b'+OK', got b'\x1b[2J\n'"
    assert dialogue.outcome.reason == reason


def test_a_key_of_etcd() -> None:
    """The key of an unreadable value is escaped, including bytes that are not text."""
    registry = Registry()
    registry.apply([(b"/\x1b[2J\xff", b"{")])
    _, [problem] = registry.servers()
    assert problem.startswith(r"/\x1b[2J\udcff: not JSON: ")


def test_a_target_in_dns() -> None:
    """A name from a name server is escaped."""
    message = dns.Message(answer=1)
    message.answers = [
        dns.RRHeader("_a._tcp.b", dns.SRV, payload=dns.Record_SRV(1, 1, 0, b"\x1b[2J.c"))
    ]
    [fault] = services_in(message, "_a._tcp.b").faults
    assert fault.isprintable()
    assert fault.startswith(r'SRV of _a._tcp.b: "\u001b[2j.c": ')


@implementer(IStreamClientEndpoint)
class _Nasty:
    """An endpoint whose error message contains control characters."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return fail(RuntimeError(f"a\n{NASTY}"))


async def test_the_error_of_an_endpoint(ground: Ground) -> None:
    """The log lines of the connect and of the session have the endpoint's error, escaped."""
    pool = Pool(
        ground.reactor,
        ["a:1"],
        dialer_for=lambda server: EndpointDialer(ground.reactor, _Nasty()),
    )
    service = ground.service(pool=pool)
    with capturedLogs() as events:
        service.startService()
        client = ground.client(service)
        await client.rest()
        await until(ground.reactor, lambda: any("reason_how" in each for each in events))
    [session] = [each for each in events if "reason_how" in each]
    assert session["error"] == rf"a:1: a\n{SHOWN}"
    assert rf"cannot connect to a:1: a\n{SHOWN}" in texts(events)
    client.close()


async def test_the_path_of_a_client(proxied: Proxied, tmp_path: Path) -> None:
    """The path of a client is escaped, including bytes that are not text."""
    await proxied.start(listen=f"unix:{tmp_path}/s")
    path = f"{tmp_path}/{NASTY}".encode() + b"\xff\\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.connect(proxied.address)
        client = Peer(proxied.reactor, sock)
        server = await proxied.upstream.accept()
        server.close()
        await client.rest()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.peer == rf"{tmp_path}/{SHOWN}\udcff\\n"
