"""
The contract of `evproxy.wire.postgres`: an answer, or the one error, in any fragmentation.

The first byte of an input is the size of the pieces into which the rest is cut.  The rest is read
as what a client sends, and as what a server answers.
"""

from __future__ import annotations

import importlib
import sys

from evproxy.errors import PostgresError
from evproxy.wire import postgres as wire


def started(data: bytes, size: int) -> tuple[wire.Start | str | None, int]:
    """The answer to `data` in pieces of `size` bytes, or the text of the error, and its size."""
    reader = wire.StartReader()
    try:
        for start in range(0, len(data), size):
            if (answer := reader.feed(data[start : start + size])) is not None:
                return answer, reader.size
    except PostgresError as error:
        return str(error), 0
    return None, 0


def watched(data: bytes, size: int) -> tuple[wire.BackendKey | None, bool]:
    """The key in `data` in pieces of `size` bytes, and whether the watcher is over."""
    watcher = wire.KeyWatcher()
    keys = [watcher.feed(data[start : start + size]) for start in range(0, len(data), size)]
    return next((key for key in keys if key is not None), None), watcher.over


def one_input(data: bytes) -> None:
    """Raise if `data` breaks the contract."""
    size, data = max(1, data[0] if data else 0), data[1:]
    whole, taken = started(data, len(data) or 1)
    assert started(data, size) == (whole, taken)
    assert taken <= min(len(data), wire.SIZE_LIMIT)
    if whole is None:
        assert len(data) < wire.SIZE_LIMIT
    if isinstance(whole, str):
        assert whole.isascii()
        assert whole.isprintable()
    key, over = watched(data, len(data) or 1)
    assert watched(data, size) == (key, over)
    if key is not None:
        assert over
        assert 4 <= len(key.key) <= wire.LONGEST_KEY


if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["evproxy.wire"]):
        importlib.reload(wire)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
