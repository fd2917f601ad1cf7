"""
Recordings as pcapng, which Wireshark and tshark open.

The bytes of a session are in TCP packets that are made up: with a handshake, the sequence numbers
that fit the bytes, an acknowledgement after each packet with bytes, FIN and RST.  Sources:
draft-ietf-opsawg-pcapng (the blocks), RFC 9293 (TCP), RFC 791 and RFC 8200 (IP), RFC 1071 (the
checksum), RFC 9850 (the lines with the keys of TLS).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from evproxy.wire.recording.events import Event, Kind, RecordedSession

SEGMENT = 32 * 1024
"""The most bytes of one packet: half of the window, which has no scale."""

WINDOW = 65535
UNKNOWN = {"downstream": ("192.0.2.1", 1024), "upstream": ("192.0.2.2", 1025)}
"""The addresses of peers that have no IP address, such as UNIX sockets (RFC 5737)."""

_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_RAW_IP = 101
_COMMENT = 1
_TLS_KEY_LOG = 0x544C534B
_TCP = 6
_OTHER = {"downstream": "upstream", "upstream": "downstream"}

Address = IPv4Address | IPv6Address


class PcapngEncoder:
    """
    Encodes one recording as pcapng.

    :param session: which session the recording is of.
    :param host: the address of evproxy to which the client has connected, if the packets are those
        between the two; ``None``: they are those between the client and the server.
    """

    def __init__(self, session: RecordedSession, host: str | None = None) -> None:
        self._session = session
        self._at = session.started
        hosts: dict[str, Address] = {}
        self._ports: dict[str, int] = {}
        other = session.upstream if host is None else host
        for side, peer in (("downstream", session.peer), ("upstream", other)):
            hosts[side], self._ports[side] = _address(peer, UNKNOWN[side])
        if len({host.version for host in hosts.values()}) > 1:
            hosts = {side: _as_ipv6(host) for side, host in hosts.items()}
        self._hosts = hosts
        self._next = {"downstream": 0, "upstream": 0}
        self._ended: set[str] = set()

    def begin(self) -> bytes:
        session = self._session
        comment = (
            f"evproxy: session {session.unique_id} of listener {session.listener}, "
            f"client {session.peer}, pool {session.pool}, server {session.upstream}"
        )
        section = struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + _comment(comment)
        interface = struct.pack("=HHI", _RAW_IP, 0, 0)
        return (
            _block(0x0A0D0D0A, section)
            + _block(1, interface)
            + self._packet("downstream", _SYN, 0.0)
            + self._packet("upstream", _SYN | _ACK, 0.0)
            + self._packet("downstream", _ACK, 0.0)
        )

    def mark(self) -> Callable[[], None]:
        following, ended = self._next.copy(), self._ended.copy()

        def undo() -> None:
            self._next, self._ended = following, ended

        return undo

    def encode(self, event: Event) -> bytes:
        time, side = event.time, event.side
        if event.kind is Kind.DATA:
            data = event.data
            pieces = (data[start : start + SEGMENT] for start in range(0, len(data), SEGMENT))
            return b"".join(
                self._packet(side, _PSH | _ACK, time, piece)
                + self._packet(_OTHER[side], _ACK, time)
                for piece in pieces
            )
        if event.kind is Kind.END:
            self._ended.add(side)
            return self._packet(side, _FIN | _ACK, time) + self._packet(_OTHER[side], _ACK, time)
        if event.kind is Kind.RESET:
            self._ended.update(_OTHER)
            return self._packet(side, _RST | _ACK, time)
        if event.kind is Kind.SECRETS:
            keys = struct.pack("=II", _TLS_KEY_LOG, len(event.data)) + _padded(event.data)
            return _block(0x0A, keys)
        if event.kind is Kind.STOPPED:
            comment = f"the recording stops: {event.text}"
            return self._packet("upstream", _ACK, time, comment=comment)
        if len(self._ended) == len(_OTHER):
            return b""
        # evproxy resets both sides.
        return self._packet("upstream", _RST | _ACK, time, comment=event.text)

    def _packet(
        self, side: str, flags: int, time: float, data: bytes = b"", comment: str = ""
    ) -> bytes:
        """An Enhanced Packet Block with a packet from `side`."""
        other = _OTHER[side]
        source, target = self._hosts[side].packed, self._hosts[other].packed
        sequence = self._next[side]
        acknowledged = self._next[other] if flags & _ACK else 0
        taken = len(data) + bool(flags & (_SYN | _FIN))
        self._next[side] = (sequence + taken) % 2**32
        header = struct.pack(
            ">HHIIBBHHH",
            self._ports[side],
            self._ports[other],
            sequence,
            acknowledged,
            5 << 4,
            flags,
            WINDOW,
            0,
            0,
        )
        length = len(header) + len(data)
        pseudo = source + target + struct.pack(">II", length, _TCP)
        check = _checksum(pseudo + header + data)
        tcp = header[:16] + struct.pack(">H", check) + header[18:] + data
        packet = _ip(source, target, length) + tcp
        micros = round((self._at + time) * 1_000_000)
        body = struct.pack(
            "=IIIII", 0, micros >> 32 & 0xFFFFFFFF, micros & 0xFFFFFFFF, len(packet), len(packet)
        )
        return _block(6, body + _padded(packet) + (_comment(comment) if comment else b""))


def _ip(source: bytes, target: bytes, length: int) -> bytes:
    """The IP header before `length` bytes of TCP."""
    if len(source) == 4:
        before = struct.pack(">BBHHHBB", 0x45, 0, 20 + length, 0, 0x4000, 64, _TCP)
        check = _checksum(before + source + target)
        return before + struct.pack(">H", check) + source + target
    return struct.pack(">IHBB", 6 << 28, length, _TCP, 64) + source + target


def _checksum(data: bytes) -> int:
    """The Internet checksum: a sum of 16-bit words is what the whole number is modulo 65535."""
    if len(data) % 2:
        data += b"\0"
    return (65535 - int.from_bytes(data, "big") % 65535) % 65535


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("=I", len(body) + 12)
    return struct.pack("=I", kind) + length + body + length


def _comment(text: str) -> bytes:
    """The options of a block: a comment, and the end of the options."""
    value = text.encode("utf-8", "replace")[:0xFFFF]
    return struct.pack("=HH", _COMMENT, len(value)) + _padded(value) + struct.pack("=HH", 0, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _as_ipv6(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _address(text: str, unknown: tuple[str, int]) -> tuple[Address, int]:
    """The IP address and the port in `text`, or those of `unknown`."""
    host, _, port = text.removeprefix("tcp:").rpartition(":")
    try:
        # The zone of a link-local address is no part of a packet.
        found: Address = ip_address(host.strip("[]").partition("%")[0])
        number = int(port)
    except ValueError:
        return ip_address(unknown[0]), unknown[1]
    if not 0 < number < 65536:
        return found, unknown[1]
    return found, number
