"""Files as other programs write them."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write the file whole, as writers should."""
    beside = path.with_name("new")
    beside.write_text(text)
    beside.rename(path)
