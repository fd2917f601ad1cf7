"""
The start of a PostgreSQL connection, until a client's session has a server and a key.

Pure.  `StartReader` tells what a client sends first, in any fragmentation.  `KeyWatcher` finds the
key with which the client may cancel, in what the server answers.  Neither changes a byte.

Sources: PostgreSQL 18 manual, "Message Flow" (start-up, cancelling, SSL) and "Message Formats";
``ProcessStartupPacket`` in ``src/backend/tcop/backend_startup.c``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from evproxy.errors import HandshakeFailed, PostgresError
from evproxy.escape import printable

SIZE_LIMIT: Final = 10_004
"""
The most bytes of a client's first message.

PostgreSQL has the same limit: ``MAX_STARTUP_PACKET_LENGTH``, 10,000, and 4 for the length itself.
"""

LONGEST_KEY: Final = 256
"""The most bytes of a secret key.  Keys have 4 bytes before protocol 3.2, and then up to 256."""

SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""
SSLRequest: a client asks for TLS.

The server answers one byte, ``S`` or ``N``.  Whatever else came with or before that byte was sent
by an attacker (CVE-2021-23214, CVE-2021-23222).
"""

_AGREED = b"S"
_LENGTH = 4
_HEADER = 8
_MESSAGE_HEADER = 5
_CANCEL = 80877102
_SSL = 80877103
_GSS = 80877104
_MAJOR_VERSION = 3
_SHORTEST_KEY = 4
_TLS_HANDSHAKE = b"\x16"
_BACKEND_KEY_DATA = b"K"
_BEFORE_THE_KEY = (b"R", b"S", b"N", b"v")
"""Authentication, ParameterStatus, NoticeResponse, NegotiateProtocolVersion."""


def agrees_to_tls(answer: bytes) -> bool:
    """
    Whether a server agrees to TLS, by `answer`, all that it has sent after an SSLRequest.

    False: it has sent nothing yet.

    :raises HandshakeFailed: if it does not agree, or sent more than its answer, which nobody may
        before TLS begins (CVE-2021-23222).
    """
    if not answer:
        return False
    if answer[:1] != _AGREED:
        raise HandshakeFailed(f"the server has no TLS: it answers SSLRequest with {answer[:1]!r}")
    if answer != _AGREED:
        raise HandshakeFailed("the server sent more than its answer to SSLRequest")
    return True


@frozen
class SslRequest:
    """The client asks for TLS, and waits for one byte: ``S`` or ``N``."""


@frozen
class GssRequest:
    """The client asks for GSSAPI encryption, and waits for one byte: ``G`` or ``N``."""


@frozen
class DirectTls:
    """The client begins with TLS at once, as it may since PostgreSQL 17."""


@frozen
class CancelRequest:
    """
    The client wants the query of another connection cancelled, and waits for the end of this one.

    `process_id` and `key` are those that the other connection got as `BackendKey`.
    """

    process_id: int
    key: bytes = field(repr=False)


@frozen
class Startup:
    """
    A StartupMessage: the client wants a session.

    `minor`: the client's protocol is 3.`minor`.
    `parameters`: `user`, `database` and whatever else the client set, as text.  What is not UTF-8
    in them is kept as surrogates (PEP 383).
    """

    minor: int
    parameters: Mapping[str, str]

    @property
    def user(self) -> str:
        """The user's name, empty if there is none.  PostgreSQL 18 uses its first 63 bytes."""
        return self.parameters.get("user", "")

    @property
    def database(self) -> str:
        """The name of the database.  By default it is the user's name."""
        return self.parameters.get("database", "") or self.user


Start = SslRequest | GssRequest | DirectTls | CancelRequest | Startup
"""What a client may begin with."""


class StartReader:
    """
    Reads one message of a client that begins, or begins again after the answer to a request.

    `size`: the bytes of the message that was read; 0 for `DirectTls`.  What the client sent after
    an SSLRequest or GSSENCRequest and before the answer must end the session.
    """

    __slots__ = ("_received", "size")

    def __init__(self) -> None:
        self._received = bytearray()
        self.size = 0

    def feed(self, data: bytes) -> Start | None:
        """
        The message as soon as `data` completes it, else ``None``.

        Do not call `feed` again after a message or an error.

        :raises PostgresError: if the client does not speak PostgreSQL 3, or its message has a
            wrong or forbidden length, or is malformed.
        """
        received = self._received
        received += data[: SIZE_LIMIT - len(received)]
        first = bytes(received[:1])
        if first == _TLS_HANDSHAKE:
            return DirectTls()
        if first not in (b"", b"\0"):
            raise PostgresError(f"the first byte is 0x{received[0]:02x}: this is not PostgreSQL")
        if len(received) < _LENGTH:
            return None
        length = _checked(int.from_bytes(received[:_LENGTH]), _HEADER, SIZE_LIMIT)
        if len(received) < _HEADER:
            return None
        code = int.from_bytes(received[_LENGTH:_HEADER])
        _check_code(code, length)
        if len(received) < length:
            return None
        self.size = length
        return _message(code, bytes(received[_HEADER:length]))


def _checked(length: int, least: int, most: int) -> int:
    if not least <= length <= most:
        raise PostgresError(f"the first message has a length of {length}")
    return length


def _check_code(code: int, length: int) -> None:
    """Refuse an unknown message, and a known one of a wrong length, before the rest of it."""
    if code in (_SSL, _GSS):
        _checked(length, _HEADER, _HEADER)
    elif code == _CANCEL:
        _checked(length, _HEADER + 4 + 1, _HEADER + 4 + LONGEST_KEY)
    elif code >> 16 != _MAJOR_VERSION:
        raise PostgresError(f"protocol {code >> 16}.{code & 0xFFFF} is not PostgreSQL 3")


def _message(code: int, body: bytes) -> Start:
    """The message of `code`, whose length is right for it."""
    if code == _SSL:
        return SslRequest()
    if code == _GSS:
        return GssRequest()
    if code == _CANCEL:
        return CancelRequest(int.from_bytes(body[:4]), body[4:])
    return Startup(code & 0xFFFF, _parameters(body))


def _parameters(body: bytes) -> Mapping[str, str]:
    """
    The parameters of a StartupMessage: names and values, each with a NUL after it, and a last NUL.

    For PostgreSQL, the last of several values counts.  Two users or databases are refused, since
    what stands behind evproxy may decide otherwise.
    """
    if body == b"\0":
        return {}
    texts = body[:-2].split(b"\0")
    if not body.endswith(b"\0\0") or len(texts) % 2 or not all(texts[::2]):
        raise PostgresError("the parameters of the start-up message are malformed")
    names = [name.decode("utf-8", "surrogateescape") for name in texts[::2]]
    values = [value.decode("utf-8", "surrogateescape") for value in texts[1::2]]
    for name in ("user", "database"):
        if names.count(name) > 1:
            raise PostgresError(f"the start-up message has two values for {name}")
    return dict(zip(names, values, strict=True))


@frozen
class BackendKey:
    """With `key`, a client may cancel what the server's process `process_id` does for it."""

    process_id: int
    key: bytes = field(repr=False)


class KeyWatcher:
    """
    Finds the `BackendKey` in a server's answers to a client that begins.

    `over`: there is no more to find.  The key was found, or the server is ready without one, sent
    an error, or does not speak PostgreSQL.

    Never raises.  Holds at most the 265 bytes of the message with the key; other messages are
    skipped, whatever their length.
    """

    __slots__ = ("_held", "_wanted", "over")

    def __init__(self) -> None:
        self._held: bytearray | None = bytearray()
        self._wanted = _MESSAGE_HEADER
        self.over = False

    def feed(self, data: bytes) -> BackendKey | None:
        """
        The key as soon as `data` completes it, else ``None``.

        :param data: what the server sent, from the first byte after its answers to SSLRequest and
            GSSENCRequest on.
        """
        position = 0
        while position < len(data) and not self.over:
            stop = min(len(data), position + self._wanted)
            self._wanted -= stop - position
            if self._held is not None:
                self._held += data[position:stop]
            position = stop
            if not self._wanted and (key := self._part_complete()) is not None:
                return key
        return None

    def _part_complete(self) -> BackendKey | None:
        """A header, the message with the key, or a message to skip has come to its end."""
        held = self._held
        if held is not None and len(held) > _MESSAGE_HEADER:
            self.over = True
            body = bytes(held[_MESSAGE_HEADER:])
            return BackendKey(int.from_bytes(body[:4]), body[4:])
        skipped = 0 if held is None else self._begin_message(bytes(held))
        if skipped:
            self._held, self._wanted = None, skipped
        elif not self._wanted:
            self._held, self._wanted = bytearray(), _MESSAGE_HEADER
        return None

    def _begin_message(self, header: bytes) -> int:
        """Look at the header of a message, and return how many bytes to skip."""
        kind, length = header[:1], int.from_bytes(header[1:]) - _LENGTH
        if kind in _BEFORE_THE_KEY and length >= 0:
            return length
        if kind == _BACKEND_KEY_DATA and 4 + _SHORTEST_KEY <= length <= 4 + LONGEST_KEY:
            self._wanted = length
        else:
            self.over = True
        return 0


def error_response(message: str, code: str = "08004") -> bytes:
    """
    ErrorResponse: what a client shows as ``FATAL:  message``, before evproxy ends the connection.

    Send it only after a StartupMessage: clients take no error as an answer to SSLRequest
    (CVE-2024-10977).

    :param message: text for the user; characters that are not printable are escaped.
    :param code: the SQLSTATE (PostgreSQL manual, "Error Codes"): ``08004`` means that the server
        rejected the connection, ``53300`` too many connections, ``57P03`` cannot connect now.
    """
    texts = ("SFATAL", "VFATAL", f"C{code}", f"M{printable(message)}", "")
    fields = b"".join(text.encode() + b"\0" for text in texts)
    return b"E" + (_LENGTH + len(fields)).to_bytes(4) + fields
