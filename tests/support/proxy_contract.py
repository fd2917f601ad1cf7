"""What holds for a reader of PROXY headers, whatever it reads."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import ProxyHeader, ProxyHeaderReader, header_bytes

MakeReader = Callable[[], ProxyHeaderReader]


@frozen
class Outcome:
    """The header and its size; no header if more bytes are needed; or that it is refused."""

    header: ProxyHeader | None = None
    size: int = 0
    refused: bool = False


def outcome(data: bytes, piece: int, make_reader: MakeReader = ProxyHeaderReader) -> Outcome:
    """What a reader makes of `data` in pieces of `piece` bytes."""
    reader = make_reader()
    for begin in range(0, len(data), piece):
        try:
            header = reader.feed(data[begin : begin + piece])
        except ProxyHeaderError as error:
            message = str(error)
            assert message.isprintable(), message
            assert message.isascii(), message
            assert len(message) < 600, message
            assert reader.size == 0
            return Outcome(refused=True)
        if header is not None:
            taken = data[: begin + piece]
            assert 0 < reader.size <= len(taken)
            assert reader.rest == taken[reader.size :]
            return Outcome(header, reader.size)
        assert reader.size == 0
        assert reader.rest == b""
    return Outcome()


def assert_contract(data: bytes, make_reader: MakeReader = ProxyHeaderReader) -> Outcome:
    """
    `data` is accepted or refused with the one documented error, alike in pieces of any size.

    A header that was read can be written, and says the same when it is read again.
    """
    whole = outcome(data, max(len(data), 1), make_reader)
    for piece in (1, 7):
        assert outcome(data, piece, make_reader) == whole, piece
    if whole.header is not None:
        assert outcome(data[: whole.size], whole.size, make_reader) == whole
        _ = whole.header.tlvs.ssl
        assert_round_trip(whole.header, make_reader)
    return whole


def assert_round_trip(header: ProxyHeader, make_reader: MakeReader = ProxyHeaderReader) -> None:
    """Reading what was written gives the same facts."""
    written = header_bytes(header)
    again = make_reader().feed(written)
    assert again is not None
    without_addresses = header.version == 2 and header.source is None
    expected = evolve(header, local=True) if without_addresses else header
    assert sorted(again.tlvs) == sorted(expected.tlvs)
    assert evolve(again, tlvs=()) == evolve(expected, tlvs=())
    assert header_bytes(again) == written
