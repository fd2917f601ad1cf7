"""
Runs ``docker run`` commands without Docker: as process 1 of separate namespaces.

The process has the user, the volumes, the read-only file system and the limits of the command.  Its
network has only a loopback interface, where the name ``app`` is 127.0.0.1.  Its image is the files
of this machine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from attrs import frozen

from tests.support.programs import requires_program
from tests.support.twistd import PATIENCE, ROOT, TWISTD, environment

PROGRAMS = {"twistd": TWISTD, "python": sys.executable}
"""The programs of the image, and their paths on this machine."""

MOUNTS = """
set -e
ip link set lo up
printf '127.0.0.1 localhost app\\n' > "$1/hosts"
mount --bind "$1/hosts" /etc/hosts
mount -t tmpfs none /run
mount -t tmpfs none /srv
shift
"""
"""The shell script that runs first in a container."""

NOT_HERE = {"publish", "stop-timeout", "cap-drop"}
"""The options that are ignored, because namespaces, the test or the user have the same effect."""


@frozen
class Command:
    """A ``docker run`` command: its options, and the command line in the container."""

    options: tuple[tuple[str, str], ...]
    arguments: tuple[str, ...]

    @classmethod
    def read(cls, line: str, image: str, entry: Sequence[str]) -> Command:
        """Parse the command in `line`; `entry` is the entry point of the `image`."""
        program, verb, *words = shlex.split(line)
        assert (program, verb) == ("docker", "run")
        place = words.index(image)
        options = [word.removeprefix("--").partition("=") for word in words[:place]]
        given = {name: value for name, _, value in options}
        start = [given.pop("entrypoint")] if "entrypoint" in given else list(entry)
        return cls(tuple(given.items()), (*start, *words[place + 1 :]))

    def option(self, name: str) -> str:
        """Return the value of an option, empty if the option is missing."""
        return dict(self.options).get(name, "")

    def shell(self, directory: Path, volumes: Mapping[str, Path]) -> list[str]:
        """Return the shell command line; `volumes` has the directories to mount."""
        script, last = [MOUNTS], []
        for name, value in self.options:
            match name:
                case "volume":
                    source, target, *how = value.split(":")
                    quoted = shlex.quote(str(volumes[source]))
                    script.append(f"mkdir -p {target}; mount --bind {quoted} {target}")
                    if how == ["ro"]:
                        script.append(f"mount -o remount,bind,ro {target}")
                case "read-only":
                    last.append("mount -o remount,bind,ro /")
                case "ulimit":
                    limit = value.removeprefix("nofile=").replace(":", " ").split()
                    last.append(f"ulimit -Sn {limit[0]}; ulimit -Hn {limit[1]}")
                case "user":
                    user, group = value.split(":")
                    setpriv = (
                        f"setpriv --reuid={user} --regid={group} --clear-groups --no-new-privs"
                    )
                    last.append(f'set -- {setpriv} "$@"')
                case _:
                    assert name in NOT_HERE, name
        program, *arguments = self.arguments
        lines = "\n".join([*script, *last, 'exec "$@"'])
        return ["sh", "-c", lines, "sh", str(directory), PROGRAMS[program], *arguments]


def commands(page: str) -> list[str]:
    """The ``docker run`` lines of a page in Markdown."""
    return re.findall(r"^ {4}(docker run .*)$", page, flags=re.MULTILINE)


def entry_point(page: str) -> list[str]:
    """The entry point of the image that a page makes."""
    [found] = re.findall(r"^ENTRYPOINT (\[.*\])$", page, flags=re.MULTILINE)
    entry: list[str] = json.loads(found)
    return entry


def isolated(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs `arguments` as process 1; skip, or fail in CI, if impossible."""
    namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net"]
    unshare = [requires_program("unshare"), *namespaces]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, timeout=PATIENCE)
    if tried.returncode:
        why = f"namespaces cannot be made: {tried.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return [*unshare, *arguments]


class Container:
    """A process 1 and its output; killed at the end of the block, or after `PATIENCE`."""

    def __init__(self, arguments: Sequence[str], cwd: Path = ROOT) -> None:
        for program in ("ip", "mount", "setpriv", "nsenter"):
            requires_program(program)
        self._process = subprocess.Popen(
            isolated(arguments),
            cwd=cwd,
            env={**environment(), "PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._end_of_patience = threading.Timer(PATIENCE, self._kill)
        self._end_of_patience.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_of_patience.cancel()
        self._kill()
        self._process.communicate()

    def _kill(self) -> None:
        # A change of the user clears the parent-death signal (prctl(2)).
        for child in self._children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.kill()

    def _children(self) -> list[int]:
        pid = self._process.pid
        try:
            return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        except FileNotFoundError:
            return []

    @property
    def one(self) -> int:
        """The number of process 1, as seen from outside."""
        [child] = self._children()
        return child

    def says(self, pattern: str) -> re.Match[str]:
        """Return the first line, from now on, that contains `pattern`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            found = re.search(pattern, line)
            if found is not None:
                return found
        raise EOFError(f"it ended after {self.lines}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to process 1."""
        os.kill(self.one, number)

    def ended(self) -> int:
        """Wait for the end, and return the exit status."""
        assert self._process.stdout is not None
        self.lines += self._process.stdout
        return self._process.wait(PATIENCE)

    def inside(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a program in the network of the container."""
        nsenter = [requires_program("nsenter"), f"--target={self.one}", "--net"]
        if os.geteuid() != 0:
            nsenter += ["--user", "--preserve-credentials"]
        return subprocess.Popen(
            [*nsenter, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
