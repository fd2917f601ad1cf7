"""Filters in Python: they see, change, hold, inject and end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from evproxy.errors import SettingsError, StageFailed
from evproxy.faults import Faults, FaultSettings, latency
from evproxy.model import Ending, Side
from evproxy.relay.stages import StagesOfSession
from evproxy.stages import FilteredSession, filtered, filters_named
from examples import filters as examples
from tests.support.leaks import LoggedErrors
from tests.support.logged import logged_lines
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)


async def test_bytes_are_logged(proxied: Proxied) -> None:
    """A filter that returns what it gets changes nothing."""
    await proxied.start(stages=[filtered(examples.Hexdump)])
    with logged_lines() as lines:
        client, server = await proxied.pair()
        await client.send(b"\x01\x02")
        assert await server.receive(2) == b"\x01\x02"
        await server.send(b"\xff")
        assert await client.receive(1) == b"\xff"
    assert [line.partition(" ")[2] for line in lines] == ["> 01 02", "< ff"]


async def test_a_banner_is_rewritten(proxied: Proxied) -> None:
    """The filter holds an incomplete line, and passes on what follows it."""
    await proxied.start(stages=[filtered(examples.Banner)])
    client, server = await proxied.pair()
    await server.send(b"220 old")
    for _ in range(5):
        await turn(proxied.reactor)
    await server.send(b" name\r\n250 ok\r\n")
    expected = b"220 mail.example.org ready\r\n250 ok\r\n"
    assert await client.receive(len(expected)) == expected


async def test_what_is_held_can_pass_before_the_end(proxied: Proxied) -> None:
    """A stream that ends in the middle of the line arrives whole."""
    await proxied.start(stages=[filtered(examples.Banner)])
    client, server = await proxied.pair()
    await server.send(b"220 old")
    server.end()
    assert await client.rest() == (b"220 old", END)


@pytest.mark.parametrize("offers", [True, False])
async def test_a_server_without_starttls(proxied: Proxied, offers: bool) -> None:
    """The session is reset, and the record says that a program asked for that."""
    await proxied.start(stages=[filtered(examples.StartTLSWatch)])
    client, server = await proxied.pair()
    await server.send(b"220 hello\r\n")
    await client.receive(11)
    await client.send(b"EHLO me\r\n")
    await server.receive(9)
    await server.send(b"250-SIZE\r\n")
    assert await client.receive(10) == b"250-SIZE\r\n"
    await server.send(b"250 STARTTLS\r\n" if offers else b"250 HELP\r\n")
    if offers:
        assert await client.receive(14) == b"250 STARTTLS\r\n"
        return
    assert await client.rest() == (b"", RESET)
    assert (await server.rest())[1] == RESET
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.PROXY, Ending.REQUESTED)


async def test_a_prefix_is_taken(proxied: Proxied) -> None:
    """The server gets what follows the client's token, and the client an injected answer."""
    await proxied.start(stages=[filtered(examples.Prefix)])
    client, server = await proxied.pair()
    await client.send(b"let me in\nquestion")
    assert await server.receive(8) == b"question"
    assert await client.receive(8) == b"welcome\n"


async def test_a_wrong_prefix(proxied: Proxied) -> None:
    """The client is reset, and the server gets no byte."""
    await proxied.start(stages=[filtered(examples.Prefix)])
    client, server = await proxied.pair()
    await client.send(b"open\nquestion")
    assert await client.rest() == (b"", RESET)
    assert await server.rest() == (b"", RESET)


class Adding:
    """Adds its name to what passes; `calls` are the other calls that it gets."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.calls: list[str] = []

    def started(self, session: FilteredSession) -> None:
        self.session = session

    def upload(self, data: bytes) -> bytes:
        return data + self.name

    def download(self, data: bytes) -> bytes:
        return data + self.name

    def ended(self, side: Side) -> bytes:
        self.calls.append(f"ended {side.value}")
        return b"."

    def closed(self) -> None:
        self.calls.append("closed")


async def test_filters_pass_in_their_order(proxied: Proxied) -> None:
    """The client's bytes pass from first to last, the server's back; ends are told."""
    made = [Adding(b"1"), Adding(b"2")]
    await proxied.start(stages=[filtered(lambda _: made[0], lambda _: None, lambda _: made[1])])
    client, server = await proxied.pair()
    await client.send(b"a")
    assert await server.receive(3) == b"a12"
    await server.send(b"b")
    assert await client.receive(3) == b"b21"
    client.end()
    assert await server.rest() == (b".2.", END)
    server.end()
    assert await client.rest() == (b".1.", END)
    await proxied.observed.ended()
    assert made[0].calls == ["ended downstream", "ended upstream", "closed"]


async def test_a_filter_ends_one_stream(proxied: Proxied) -> None:
    """The other stream goes on."""
    adding = Adding(b"")
    await proxied.start(stages=[filtered(lambda _: adding)])
    client, server = await proxied.pair()
    await converse(client, server)
    adding.session.end(Side.UPSTREAM)
    assert await client.rest() == (b"", END)
    await client.send(b"more")
    assert await server.receive(4) == b"more"


async def test_a_filter_closes(proxied: Proxied) -> None:
    """The client gets what was sent to it, then the end."""
    adding = Adding(b"")
    await proxied.start(stages=[filtered(lambda _: adding)])
    client, server = await proxied.pair()
    await converse(client, server)
    adding.session.send_download(b"bye")
    adding.session.close()
    assert await client.rest() == (b"bye", END)
    client.close()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.REQUESTED
    adding.session.send_download(b"too late")
    adding.session.reset()


class Holding:
    """Holds all bytes of the server."""

    def __init__(self, status: object) -> None:
        self.bytes = 0

    def download(self, data: bytes) -> None:
        self.bytes += len(data)

    def held(self, side: Side) -> int:
        return self.bytes if side is Side.UPSTREAM else 0


@pytest.mark.parametrize("faults", [[], [latency(0.01, stream="upstream")]])
async def test_a_filter_that_holds_bytes_makes_the_sender_wait(
    proxied: Proxied, faults: list[FaultSettings]
) -> None:
    """The server is not read while the filter holds 64 KiB, even if faults may hold more."""
    others = [Faults(proxied.reactor, faults)] if faults else []
    await proxied.start(stages=[*others, filtered(Holding)])
    _, server = await proxied.pair()
    quiet = sent = 0
    while quiet < 20:
        taken = server.send_now(bytes(65536))
        sent += taken
        quiet = 0 if taken else quiet + 1
        await turn(proxied.reactor)
    (status,) = proxied.factory.sessions()
    assert proxied.factory.admission.sessions.by_id[status.id].kept < 3 * 65536
    assert sent < 32 * 1024 * 1024
    proxied.factory.abort()


async def test_a_filter_that_drops_what_it_holds(proxied: Proxied) -> None:
    """The sender goes on once the filter says that it holds less."""
    holding, adding = Holding(None), Adding(b"")
    await proxied.start(stages=[filtered(lambda _: holding, lambda _: adding)])
    _, server = await proxied.pair()
    sending = Deferred.fromCoroutine(server.send(bytes(4 * 1024 * 1024)))
    while not sending.called:
        if holding.bytes >= 65536:
            holding.bytes = 0
            adding.session.recount()
        await turn(proxied.reactor)
    await sending
    proxied.factory.abort()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_proxy_header_is_not_filtered(proxied: Proxied, version: int) -> None:
    """The server gets the header first, and the filter sees the client's bytes only."""
    seen: list[bytes] = []

    class Seeing:
        def __init__(self, status: object) -> None:
            """Nothing to keep."""

        def upload(self, data: bytes) -> bytes:
            seen.append(data)
            return data

    await proxied.start(stages=[filtered(Seeing)], send_proxy_protocol=version)
    client, server = await proxied.pair()
    await client.send(b"hello")
    client.end()
    received, _ = await server.rest()
    header = b"PROXY TCP4 127.0.0.1 " if version == 1 else b"\r\n\r\n\0\r\nQUIT\n"
    assert received.startswith(header)
    assert received.endswith(b"hello")
    assert b"".join(seen) == b"hello"
    server.end()


class Raising:
    """Raises for the byte ``!``."""

    def __init__(self, status: object) -> None:
        """Nothing to keep."""

    def upload(self, data: bytes) -> bytes:
        if data == b"!":
            raise ZeroDivisionError
        return data


async def test_a_filter_that_raises(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """Its session is reset and logged; no other session notices."""
    await proxied.start(stages=[filtered(unchanged, Raising)])
    client, server = await proxied.pair()
    other = await proxied.pair()
    await converse(client, server)
    await client.send(b"!")
    assert (await client.rest())[1] == RESET
    assert (await server.rest())[1] == RESET
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.ERROR
    await converse(*other)


def unchanged(status: object) -> Any:
    """A filter before the others."""
    return Adding(b"")


async def test_a_maker_that_raises(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """The session is reset, and logged."""

    def broken(status: object) -> Any:
        raise ZeroDivisionError

    await proxied.start(stages=[filtered(broken)])
    client = proxied.client()
    assert (await client.rest())[1] == RESET
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


class Unstartable:
    """Raises when the session begins to relay, or when it is made."""

    def __init__(self, when: str) -> None:
        if when == "made":
            raise ZeroDivisionError

    def started(self, session: object) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("when", ["made", "started"])
async def test_filters_of_a_session_that_does_not_begin(
    proxied: Proxied, logged_errors: LoggedErrors, when: str
) -> None:
    """If one filter raises before the session relays, the others are over, and so are faults."""
    adding = Adding(b"")
    faults = Faults(proxied.reactor, [latency(1, lasts=1, every=2)], seed=1)
    broken = filtered(lambda _: Unstartable(when))
    await proxied.start(stages=[faults, filtered(lambda _: adding), broken])
    client = proxied.client()
    assert (await client.rest())[1] == RESET
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.ERROR
    assert adding.calls == ["closed"]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize("when", ["made", "started"])
async def test_the_filter_before_one_that_raises(
    proxied: Proxied, logged_errors: LoggedErrors, when: str
) -> None:
    """A filter whose maker has returned is closed, if the next maker of the same stages raises."""
    adding = Adding(b"")
    await proxied.start(stages=[filtered(lambda _: adding, lambda _: Unstartable(when))])
    assert (await proxied.client().rest())[1] == RESET
    await proxied.observed.ended()
    assert adding.calls == ["closed"]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:Filter", "^no_such_module:Filter: ModuleNotFoundError: "),
        ("examples.filters:Nothing", "^examples.filters:Nothing: AttributeError: "),
        ("examples.filters:log", "^examples.filters:log is neither a function nor a class$"),
    ],
)
async def test_names_of_filters(proxied: Proxied, name: str, why: str) -> None:
    """What cannot be found is named in one line."""
    with pytest.raises(SettingsError, match=why):
        filters_named([name])


class NoStages:
    """What a user may pass by mistake: a filter without `filtered`."""

    def __init__(self, status: object) -> None:
        self.status = status

    def upload(self, data: bytes) -> bytes:
        return data


class Text:
    """A filter that returns text."""

    def __init__(self, status: object) -> None:
        self.status = status

    def download(self, data: bytes) -> Any:
        return data.decode()


class Sizes:
    """A filter that returns what it holds, not how much."""

    def held(self, side: Side) -> Any:
        return b""


class Sends:
    """A filter that gives its session something wrong."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send

    def started(self, session: FilteredSession) -> None:
        self._session = session

    def download(self, data: bytes) -> bytes:
        self._send(self._session)
        return data


HERE = "tests.faults.test_filters"

WRONG = {
    "no stages": (NoStages, f"{HERE}:NoStages: expected a sequence of stages, got NoStages"),
    "a filter among stages": (
        lambda status: [NoStages(status)],
        "expected a stage, got NoStages, which has no room",
    ),
    "no filter": (
        filtered(lambda status: 5),
        "expected a filter, got int, which has no method of a filter",
    ),
    "text to send": (
        filtered(lambda status: Sends(lambda session: session.send_upload("x"))),
        f"the filter {HERE}:Sends: send_upload takes bytes, got str",
    ),
    "a number to end": (
        filtered(lambda status: Sends(lambda session: session.end(5))),
        f"the filter {HERE}:Sends: end takes a Side, got int",
    ),
    "text": (
        filtered(Text),
        f"the filter {HERE}:Text: download must return bytes or None, got str",
    ),
    "sizes": (
        filtered(lambda status: Sizes()),
        f"the filter {HERE}:Sizes: held must return an int, got bytes",
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_type(proxied: Proxied, logged_errors: LoggedErrors, what: str) -> None:
    """The log names the function or the class that is to blame, and the session is reset."""
    maker, why = WRONG[what]
    await proxied.start(stages=[cast(StagesOfSession, maker)])
    client, server = await proxied.pair()
    with suppress(ConnectionError):
        await server.send(b"hello")
    assert (await client.rest())[1] == RESET
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.ERROR
    logged = [str(event["log_failure"].value) for event in logged_errors.flush(StageFailed)]
    assert [line for line in logged if why in line] == logged != []
