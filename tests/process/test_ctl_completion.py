"""Completion in the real shells: a user types, and presses the tabulator."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.admin_process import ADMIN, LISTEN, port_of
from tests.support.twistd import PATIENCE, Running

STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set show-all-if-ambiguous on'"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; setopt no_beep"),
}


class Terminal:
    """A shell on a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def until(self, text: str) -> None:
        """Wait until the shell shows `text`, after what was waited for before."""
        wanted, until = text.encode(), time.monotonic() + PATIENCE
        while wanted not in self._seen:
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            if ready:
                self._seen += os.read(self._descriptor, 65536)
            assert time.monotonic() < until, (text, self._seen)
        self._seen = self._seen.partition(wanted)[2]


@contextmanager
def shell(name: str, directory: Path, admin: str) -> Iterator[Terminal]:
    """Run an interactive shell that completes evproxy."""
    command, setup = STARTS[name]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EVPROXY_ADMIN": admin,
        "HOME": str(directory),
        "PS1": "> ",
        "TERM": "dumb",
    }
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    terminal = Terminal(ours)
    try:
        terminal.type(f'{setup}\neval "$(evproxy ctl completion {name})"\necho rea""dy\n')
        terminal.until("ready")
        yield terminal
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("bash", marks=pytest.mark.peers("bash")),
        pytest.param("zsh", marks=pytest.mark.peers("zsh")),
    ],
)
def test_a_shell_completes(name: str, tmp_path: Path) -> None:
    """Commands, conditions, and the servers of the running proxy, colons and all."""
    proxy = ("evproxy", LISTEN, "--upstream=127.0.0.1:65432", ADMIN)
    with (
        Running(*proxy, patience=3 * PATIENCE) as running,
        shell(name, tmp_path, f"127.0.0.1:{port_of(running)}") as terminal,
    ):
        for typed, completed in (
            ("evproxy ctl rem", "ove"),
            ("evproxy ctl wait server-dr", "ained"),
            ("evproxy ctl drain def", "ault/127.0.0.1:65432"),
            ("evproxy ctl drain default/127.0.0.1:6", "5432"),
            ("evproxy ctl servers --sta", "te"),
        ):
            terminal.type(typed)
            terminal.until(typed[-3:])
            terminal.type("\t")
            terminal.until(completed)
            # Ctrl-U forgets the line.
            terminal.type("\x15")


def test_a_shell_gets_its_script() -> None:
    """The script of each shell comes on standard output."""
    for name in STARTS:
        done = subprocess.run(
            [sys.executable, "-m", "evproxy", "ctl", "completion", name],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0
        assert "compdef" in done.stdout
