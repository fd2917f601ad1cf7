"""docs/admin.md is true: its commands work on a real proxy."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.admin_process import LISTEN, ask, port_of
from tests.support.blocking_clients import Upstream
from tests.support.twistd import PATIENCE, ROOT, Running

PAGE = (ROOT / "docs" / "admin.md").read_text()


@pytest.mark.peers("curl")
def test_every_command_of_the_page(upstream: Upstream, tmp_path: Path) -> None:
    """Each curl command, in the order of the page, gets an answer that is no problem."""
    commands = re.findall(r"^    (curl .*)$", PAGE, re.MULTILINE)
    assert len(commands) >= 16
    (tmp_path / "token").write_text("0123456789abcdef")
    [start] = re.findall(r"(--admin=tcp:)8081(:interface=127\.0\.0\.1)", PAGE)
    server = upstream.option.partition("=")[2]
    with Running("evproxy", LISTEN, upstream.option, "0".join(start)) as running:
        port = port_of(running)
        listening = running.port()
        for _ in range(2):
            upstream.connect(listening)
        for command in commands:
            if command.endswith("/reload"):
                # This proxy has no file; `test_a_reload` has one.
                continue
            given = command.replace("127.0.0.1:8000", server)
            given = given.replace("127.0.0.1:8081", f"127.0.0.1:{port}")
            done = subprocess.run(
                ["bash", "-c", f"{given} -sS --fail-with-body"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            answer = json.loads(done.stdout)
            assert answer.get("met", True), command
        assert ask(port, "/status")["state"] == "drained"


@pytest.mark.peers("curl")
def test_the_stream_of_the_status_page(upstream: Upstream) -> None:
    """The commands of docs/status-page.md get the history and one look."""
    page = (ROOT / "docs" / "status-page.md").read_text()
    commands = re.findall(r"^    (curl .*)$", page, re.MULTILINE)
    assert len(commands) == 2
    [start] = re.findall(r"(--admin=tcp:)8081(:interface=127\.0\.0\.1)", page)
    with Running("evproxy", LISTEN, upstream.option, "0".join(start)) as running:
        port = port_of(running)
        for command in commands:
            given = command.replace("127.0.0.1:8081", f"127.0.0.1:{port}")
            done = subprocess.run(
                ["bash", "-c", f"{given} -sS --fail-with-body"],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            names = re.findall(r"^event: (.*)$", done.stdout, re.MULTILINE)
            assert names == ["history", "look"]


@pytest.mark.peers("curl")
def test_the_problem_of_the_page(upstream: Upstream) -> None:
    """The line of a problem on the page is what evproxy says."""
    [line] = re.findall(r'^    (\{"error".*\})$', PAGE, re.MULTILINE)
    server = upstream.option.partition("=")[2]
    [start] = re.findall(r"(--admin=tcp:)8081(:interface=127\.0\.0\.1)", PAGE)
    with Running("evproxy", LISTEN, upstream.option, "0".join(start)) as running:
        where = f"http://127.0.0.1:{port_of(running)}/pools/default/servers/{server}/weight"
        headers = ["-H", "Content-Type: application/json", "-d", '{"weight": 700}']
        done = subprocess.run(
            ["curl", "-sS", *headers, where], capture_output=True, text=True, timeout=PATIENCE
        )
    assert done.stdout == f"{line}\n"
