"""Files as other programs write them."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Replace the file atomically, as other programs should."""
    beside = path.with_name("new")
    beside.write_text(text)
    beside.rename(path)
