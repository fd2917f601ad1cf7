"""The requirements of the benchmarks: where they are installed, and the error without them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.twistd import ROOT

STUBBED = ["apt-get", "chmod", "dpkg-query", "env", "rm", "tee"]
"""The programs that `install-peers` calls, except Python; here they are replaced by stubs."""


def stub(path: Path, text: str = "") -> None:
    """Write a program at `path` that runs only the shell script `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("environment", "own", "into"),
    [
        ({}, True, "own"),
        ({}, False, "path"),
        ({"PYTHON": "other"}, True, "other"),
    ],
)
def test_where_it_is_installed(
    tmp_path: Path, environment: dict[str, str], own: bool, into: str
) -> None:
    """By default, packages are installed into the repository's environment, if there is one."""
    script, programs = tmp_path / "benchmarks" / "install-peers", tmp_path / "bin"
    script.parent.mkdir()
    shutil.copy(ROOT / "benchmarks" / "install-peers", script)
    for name in STUBBED:
        stub(programs / name)
    stub(programs / "id", "echo 0")
    for name, path in ("path", programs / "python3"), ("other", programs / "other"):
        stub(path, f'echo {name} "$@"')
    if own:
        stub(tmp_path / ".venv" / "bin" / "python", 'echo own "$@"')
    done = subprocess.run(
        [script],
        env={"PATH": str(programs), **environment},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{into} -m pip install uvloop matplotlib\n"


WITHOUT = """
import runpy, sys
sys.modules[sys.argv.pop(1)] = None
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("package", ["matplotlib", "attrs"])
def test_a_package_that_is_missing(package: str) -> None:
    """A missing package is one line that says what to run, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, package],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{sys.executable} has no {package}: run benchmarks/install-peers\n"


def test_the_readme_starts_them_where_they_are_installed() -> None:
    """The command in README.md uses the repository's environment."""
    assert ".venv/bin/python -m benchmarks " in (ROOT / "benchmarks" / "README.md").read_text()
