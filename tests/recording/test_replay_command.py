"""The command ``evproxy replay``, as a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evproxy.cli.main import main
from evproxy.wire.recording import Event, Kind
from tests.recording.test_replay import TALK, recording

TIMEOUT = 30


def command(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "evproxy", "replay", *arguments]


def serve(file: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that plays the server of `file`, and where it waits for its client."""
    listening = command(str(file), "--listen=tcp:0:interface=127.0.0.1", "--fast")
    process = subprocess.Popen(listening, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.removeprefix("waits for the client at ").strip()


def test_a_client_that_does_the_same(tmp_path: Path) -> None:
    """The command exits with 0, and counts the bytes."""
    file = tmp_path / "one.jsonl"
    file.write_bytes(recording(*TALK))
    process, where = serve(file)
    host, _, port = where.rpartition(":")
    with process, socket.create_connection((host, int(port)), TIMEOUT) as client:
        client.sendall(b"HELO me\r\n")
        client.shutdown(socket.SHUT_WR)
        assert process.communicate(timeout=TIMEOUT)[0] == (
            "no difference: 19 bytes sent, 9 received\n"
        )
    assert process.returncode == 0


def test_a_client_that_differs(tmp_path: Path) -> None:
    """Another recording as the client: both commands exit with 1, and the offset is printed."""
    file, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    file.write_bytes(recording(*TALK))
    changed = Event(0.01, Kind.DATA, "downstream", b"HELO you\r\n")
    other.write_bytes(recording(TALK[0], changed, *TALK[2:]))
    process, where = serve(file)
    with process:
        done = subprocess.run(
            command(str(other), f"--connect={where}", "--fast"),
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
        text = process.communicate(timeout=TIMEOUT)[0]
    assert (process.returncode, done.returncode) == (1, 1)
    differs = "the stream of the client differs at offset 5"
    assert text == rf"{differs}: expected b'me\r\n', got b'you\r\n'" + "\n"
    assert done.stdout.endswith("got a reset\n")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """There is one line on standard error, and the exit status is 2."""
    file = tmp_path / "one.jsonl"
    file.write_bytes(recording(*TALK))
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    done = subprocess.run(
        command(str(file), f"--connect=127.0.0.1:{port}"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("evproxy replay: ")
    assert "refused" in line


def test_other_ends(tmp_path: Path) -> None:
    """A host that no name server knows (RFC 6761) is one line; output that nobody reads is none."""
    file = tmp_path / "one.jsonl"
    file.write_bytes(recording(*TALK))
    read, write = os.pipe()
    os.close(read)
    connect, listen = "--connect=nosuchhost.invalid:80", "--listen=tcp:0:interface=127.0.0.1"
    with os.fdopen(write, "wb") as closed:
        processes = [
            subprocess.Popen(
                command(str(file), role), stdout=output, stderr=subprocess.PIPE, text=True
            )
            for role, output in ((connect, None), (listen, closed))
        ]
    lines = [process.communicate(timeout=TIMEOUT)[1].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [2, 1]
    assert len(lines[0]) == 1
    assert lines[0][0].startswith("evproxy replay: DNS lookup failed: ")
    assert lines[1] == []


def test_files_that_cannot_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one line has the path, and the line in the file."""
    bad, none = tmp_path / "bad.jsonl", tmp_path / "none.jsonl"
    bad.write_bytes(b"{}\n")
    reasons = {
        none: "No such file or directory",
        bad: "line 1: this is not a recording, or one of another version",
        tmp_path: "Is a directory",
    }
    for path, why in reasons.items():
        assert main(["replay", str(path), "--connect=127.0.0.1:1"]) == 2
        assert capsys.readouterr().err == f"evproxy replay: {path}: {why}\n"
