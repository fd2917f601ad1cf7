"""Real programs that tests talk to.  Missing is a skip at a developer's desk, a failure in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

DIRECTORIES = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
"""Where daemons live that an ordinary user's PATH does not name."""


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
    if environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI has to have it", pytrace=False)
    pytest.skip(f"{name} is not installed")
