"""A file system that is soon full."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """An empty file system with room for 200 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    with tempfile.TemporaryDirectory() as directory:
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", directory]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)
