"""
systemd itself, as the first process of a namespace of its own, for the units of one test.

It has its own processes, mounts and control groups, and the network of the test.  It starts
nothing but what the test asks for.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.programs import requires_program
from tests.support.twistd import PATIENCE, wait_until

SYSTEMD = "/lib/systemd/systemd"

BEGIN = """
set -e
echo $$ > "$1/cgroup.procs"
exec unshare --cgroup --mount --pid --fork --kill-child=KILL --mount-proc sh -e -c '
    mount -t tmpfs tmpfs /run
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /run/systemd/system
    cp "$1"/*.service /run/systemd/system
    printf "[Unit]\\nDescription=nothing\\n" > /run/systemd/system/nothing.target
    echo begins
    exec "$2" --system --unit=nothing.target --log-target=kmsg
' sh "$2" "$3"
"""

LONGEST = 110.0
"""Seconds after which it is killed in any case."""


class RealSystemd:
    """
    A systemd with the units in `directory`.

    :raises OSError: if this machine does not allow it.
    """

    def __init__(self, directory: Path) -> None:
        hierarchies = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
        whole = next(each for each in hierarchies if (each / "cgroup.controllers").exists())
        self._group = whole / f"evproxy-test-{os.getpid()}"
        self._group.mkdir()
        environment = {**os.environ, "container": "evproxy-test"}
        self._process = subprocess.Popen(
            ["sh", "-c", BEGIN, "sh", str(self._group), str(directory), SYSTEMD],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self._end_of_patience = threading.Timer(LONGEST, self._process.kill)
        self._end_of_patience.start()
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != b"begins\n":
            self.close()
            raise OSError(said.decode(errors="replace").strip())
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        wait_until(lambda: bool(children.read_text()))
        self._first = children.read_text().split()[0]
        wait_until(lambda: self.ask("is-system-running") in ("running", "degraded"))

    def ask(self, *command: str) -> str:
        """What ``systemctl`` says to `command`."""
        enter = ["nsenter", "--target", self._first, "--mount", "--pid", "--cgroup"]
        done = subprocess.run(
            [*enter, "systemctl", "--no-pager", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return (done.stdout or done.stderr).strip()

    def do(self, *command: str) -> None:
        """Have ``systemctl`` do `command`, which has to succeed."""
        said = self.ask(*command)
        assert said == "", (said, self.ask("status", "--lines=0", command[-1]))

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.ask("show", "--value", f"--property={name}", unit)

    def close(self) -> None:
        """End everything, and leave nothing behind."""
        self._end_of_patience.cancel()
        self._process.kill()
        self._process.communicate()
        wait_until(lambda: "populated 0" in (self._group / "cgroup.events").read_text())
        for path in sorted(self._group.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        self._group.rmdir()


@pytest.fixture
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealSystemd]:
    """A systemd with the unit that the fixture `unit` of the test has written to `tmp_path`."""
    for program in ("systemctl", "unshare", "nsenter"):
        requires_program(program)
    request.getfixturevalue("unit")
    try:
        made = RealSystemd(tmp_path)
    except (OSError, StopIteration) as error:
        pytest.skip(f"this machine does not allow a systemd in a namespace: {error}")
    yield made
    with suppress(OSError):
        made.close()
