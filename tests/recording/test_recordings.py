"""Recordings of sessions, made by a proxy with real peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.errors import SettingsError
from evproxy.faults import Faults, reset
from evproxy.recording import Recordings
from evproxy.wire.recording import Event, Kind, RecordedSession, event_of, session_of
from tests.support.logged import logged_lines
from tests.support.peers import END, RESET
from tests.support.proxies import Proxied

KINDS = ["socket", "socket-twisted", "stream", "tls-client-1.3", "tls-both-1.3"]

every_kind = pytest.mark.parametrize("proxied", KINDS, indirect=True)
one_kind = pytest.mark.parametrize("proxied", ["socket"], indirect=True)


class Recorded:
    """A proxy whose sessions are recorded."""

    def __init__(self, proxied: Proxied, directory: Path) -> None:
        self.proxied = proxied
        self.directory = directory
        self.recordings = Recordings(proxied.reactor)

    async def start(self, *more: Faults, **how: Any) -> None:
        """Start the proxy; `more` are faults behind the recording."""
        recorder = self.recordings.into(str(self.directory), **how)
        await self.proxied.start(
            stages=[recorder, *more], observers=[self.recordings], tap=recorder.tap
        )

    async def written(self, sessions: int = 1) -> list[Path]:
        """The files, once `sessions` have ended and all is written."""
        await self.proxied.observed.ended(sessions)
        await self.recordings.close()
        return sorted(self.directory.iterdir())

    async def events(self) -> list[Event]:
        """The events of the only recording."""
        (file,) = await self.written()
        return read(file)[1]


def read(file: Path) -> tuple[RecordedSession, list[Event]]:
    """The session and the events of a recording."""
    first, *rest = file.read_bytes().splitlines()
    return session_of(first), [event_of(line) for line in rest]


def shown(events: list[Event]) -> list[tuple[str, ...]]:
    """The events without their times; neighbouring bytes of a side are one event."""
    found: list[tuple[str, ...]] = []
    for event in events:
        text = event.data.decode() or event.text
        if found and event.kind is Kind.DATA and found[-1][:2] == ("data", event.side):
            found[-1] = ("data", event.side, found[-1][2] + text)
        else:
            found.append((event.kind.value, event.side, text))
    return found


@every_kind
async def test_a_session_is_recorded(proxied: Proxied, tmp_path: Path) -> None:
    """The bytes, the ends, and the reason are in the file, which only its owner can read."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()
    client, server = await proxied.pair()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    client.end()
    assert await server.rest() == (b"", END)
    await server.send(b"answer")
    server.end()
    assert await client.rest() == (b"answer", END)
    events = await recorded.events()
    (file,) = tmp_path.iterdir()
    session = read(file)[0]
    record = proxied.observed.records[0]
    assert session.unique_id == record.unique_id == file.stem
    assert (session.peer, session.upstream) == (record.peer, record.upstream)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert shown(events) == [
        ("data", "downstream", "question"),
        ("end", "downstream", ""),
        ("data", "upstream", "answer"),
        ("end", "upstream", ""),
        ("closed", "", record.reason.code),
    ]


@every_kind
@pytest.mark.parametrize("side", ["downstream", "upstream"])
async def test_a_reset_is_recorded(proxied: Proxied, tmp_path: Path, side: str) -> None:
    """The side that reset its connection has the event, and the other side has none."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()
    client, server = await proxied.pair()
    await client.send(b"?")
    await server.receive(1)
    (client if side == "downstream" else server).reset()
    other = server if side == "downstream" else client
    assert (await other.rest())[1] == RESET
    assert shown(await recorded.events()) == [
        ("data", "downstream", "?"),
        ("reset", side, ""),
        ("closed", "", f"{side} reset relaying"),
    ]


@one_kind
async def test_faults_come_behind_the_recording(proxied: Proxied, tmp_path: Path) -> None:
    """A recording has what the client got, and not what the server sent."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(Faults(proxied.reactor, [reset(bytes=3)], seed=1))
    client, server = await proxied.pair()
    await server.send(b"answer")
    assert await client.rest() == (b"ans", RESET)
    assert shown(await recorded.events()) == [
        ("data", "upstream", "ans"),
        ("closed", "", "proxy fault relaying"),
    ]


@one_kind
async def test_bulk_is_recorded_whole(proxied: Proxied, tmp_path: Path) -> None:
    """What passes fast is in the file to the last byte."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()
    client, server = await proxied.pair()
    sent = bytes(range(256)) * 8192
    sending = Deferred.fromCoroutine(server.send(sent))
    assert await client.receive(len(sent)) == sent
    await sending
    client.reset()
    events = await recorded.events()
    got = b"".join(event.data for event in events if event.kind is Kind.DATA)
    assert got == sent


@one_kind
async def test_the_room_of_the_directory(proxied: Proxied, tmp_path: Path) -> None:
    """A session beyond the bound on files is not recorded, and goes on; the log says why."""
    (tmp_path / "old.jsonl").write_bytes(b"x")
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(max_files=1)
    with logged_lines() as lines:
        client, server = await proxied.pair()
        await client.send(b"question")
        assert await server.receive(8) == b"question"
        client.reset()
        assert [file.name for file in await recorded.written()] == ["old.jsonl"]
    (line,) = [line for line in lines if "recording" in line]
    assert line.endswith("of session 1 has stopped: record_max_files: there are 1 recordings")


@one_kind
async def test_the_bytes_of_the_directory(proxied: Proxied, tmp_path: Path) -> None:
    """At the bound on bytes, a recording says that it stops, and the session goes on."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(max_bytes=2000)
    client, server = await proxied.pair()
    for _ in range(4):
        await client.send(b"x" * 500)
        assert await server.receive(500) == b"x" * 500
        await recorded.recordings.close()
    client.reset()
    (*data, last) = shown(await recorded.events())
    assert data[0] == ("data", "downstream", "x" * len(data[0][2]))
    assert len(data[0][2]) in (500, 1000, 1500)
    assert last[0] == "stopped"
    assert last[2].startswith("record_max_bytes: the recordings have ")


@one_kind
async def test_a_deleted_recording_stops(proxied: Proxied, tmp_path: Path) -> None:
    """The rest of a session does not begin a new file."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()
    client, server = await proxied.pair()
    await client.send(b"1")
    await server.receive(1)
    await recorded.recordings.close()
    (file,) = tmp_path.iterdir()
    file.unlink()
    with logged_lines() as lines:
        await client.send(b"2")
        assert await server.receive(1) == b"2"
        client.reset()
        assert await recorded.written() == []
    assert lines[0].endswith("has stopped: No such file or directory")


@one_kind
async def test_a_session_without_bytes(proxied: Proxied, tmp_path: Path) -> None:
    """Its recording has its end only."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()
    client, server = await proxied.pair()
    client.end()
    await server.rest()
    server.end()
    await client.rest()
    assert [event.kind for event in await recorded.events()] == [Kind.END, Kind.END, Kind.CLOSED]


def test_the_directory_must_exist(reactor: object, tmp_path: Path) -> None:
    """The error names the setting."""
    with pytest.raises(SettingsError, match=r"^record: .*/none: there is no such directory$"):
        Recordings(reactor).into(str(tmp_path / "none"))
