"""
The contract of `evproxy.wire.client_hello`: an answer, or the one error, in any fragmentation.

The first byte of an input is the size of the pieces into which the rest is cut.
"""

from __future__ import annotations

import importlib
import sys

from evproxy.errors import ClientHelloError
from evproxy.wire import client_hello as wire


def outcome(data: bytes, size: int) -> wire.ClientHello | wire.NotTls | str | None:
    """The answer to `data` in pieces of `size` bytes, the text of the error, or ``None``."""
    reader = wire.HelloReader()
    try:
        for start in range(0, len(data), size):
            if (answer := reader.feed(data[start : start + size])) is not None:
                return answer
    except ClientHelloError as error:
        return str(error)
    return None


def one_input(data: bytes) -> None:
    """Raise if `data` breaks the contract."""
    size, data = max(1, data[0] if data else 0), data[1:]
    whole = outcome(data, len(data) or 1)
    assert outcome(data, size) == whole
    match whole:
        case None:
            assert len(data) <= wire.SIZE_LIMIT
        case wire.ClientHello(server_name=str() as name):
            assert name
            assert name.isascii()
            assert name.isprintable()
            assert name == name.lower()
        case str() as message:
            assert message.isascii()
            assert message.isprintable()


if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["evproxy.wire"]):
        importlib.reload(wire)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
