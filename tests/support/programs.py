"""
Real programs that tests talk to, and modules that not every machine can have.

Missing is a skip at a developer's desk, a failure in CI.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from twisted.internet.utils import getProcessOutputAndValue

DIRECTORIES = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
"""The directories of daemons that are not in an ordinary user's PATH."""

WITH_STDIN = 'file=$1; shift; exec "$@" < "$file"'


def search_path(environ: Mapping[str, str]) -> str:
    """The PATH of `environ`, then `DIRECTORIES`, then PostgreSQL's own, newest first."""
    postgresql = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True
    )
    return os.pathsep.join([environ.get("PATH", os.defpath), *DIRECTORIES, *map(str, postgresql)])


def requires_program(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """
    The path of the program `name`.

    Where there is none, the test is skipped, or failed if ``CI`` is set in `environ`:
    CI installs every program, so that there a skip would hide a hole.
    """
    found = shutil.which(name, path=search_path(environ))
    if found is not None:
        return found
    missing(name, environ)


def requires_module(name: str, environ: Mapping[str, str] = os.environ) -> None:
    """The same for the Python module `name`."""
    if importlib.util.find_spec(name) is None:
        missing(name, environ)


def missing(name: str, environ: Mapping[str, str]) -> NoReturn:
    """Skip the test, or fail it if ``CI`` is set in `environ`."""
    if environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI has to have it", pytrace=False)
    pytest.skip(f"{name} is not installed")


async def said(reactor: Any, *command: str | Path, stdin: Path | None = None) -> str:
    """What a program says on standard output; it has to end well."""
    program, *arguments = [requires_program(str(command[0])), *map(str, command[1:])]
    if stdin is not None:
        arguments = ["-c", WITH_STDIN, "sh", str(stdin), program, *arguments]
        program = "/bin/sh"
    environment = {**os.environ, "LC_ALL": "C"}
    out, err, status = await getProcessOutputAndValue(program, arguments, environment)
    assert status == 0, f"{command}: {status}\n{out.decode()}\n{err.decode()}"
    text: str = out.decode()
    return text
