"""
OpenSSL's own functions, through cryptography's binding: for the three that every session calls.

pyOpenSSL's methods do more: they allocate a buffer for each read and copy from it, and look for an
error after each call, also if it succeeded.  That costs a sixth of a request (design note 0018).
Here, a call that neither succeeds nor has to wait returns `FAILED`: repeat it with
pyOpenSSL at once, which finds out why.  OpenSSL's queue of errors, which belongs to the thread and
not to the connection, still has the reason.  The kernel reports an error only once: then the call
returns its number, negative.

Each function takes what `handle_of` returns.  If pyOpenSSL hides its handles one day, they all
return `FAILED`, and pyOpenSSL does everything.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

RECORD = 16 * 1024
"""The most bytes in one record (RFC 8446, 5.1)."""

FAILED = 0
"""Repeat the call with pyOpenSSL."""

WAITS = -(1 << 16)
"""Repeat the call when the socket is ready: to read, or for `write`, to write."""

_lib: Any = Binding.lib
_ffi: Any = Binding.ffi
_from_buffer = _ffi.from_buffer
_read, _write, _do_handshake = _lib.SSL_read, _lib.SSL_write, _lib.SSL_do_handshake
_get_error = _lib.SSL_get_error
_clear_errors = _lib.ERR_clear_error
_WANT_READ: int = _lib.SSL_ERROR_WANT_READ
_WANT_WRITE: int = _lib.SSL_ERROR_WANT_WRITE
_SYSCALL: int = _lib.SSL_ERROR_SYSCALL


def handle_of(connection: SSL.Connection) -> Any:
    """OpenSSL's handle of `connection`; ``None`` if it cannot be found."""
    return getattr(connection, "_ssl", None)


def forget(connection: SSL.Connection) -> None:
    """
    Let pyOpenSSL no longer find `connection` for its callbacks: there are none after the handshake.

    That spares an idle session the weak reference to it, 130 bytes.
    """
    known = getattr(SSL.Connection, "_reverse_mapping", None)
    handle = handle_of(connection)
    if known is not None and handle is not None:
        known.pop(handle, None)


def _outcome(handle: Any, result: int, wait: int) -> int:
    """Why a call returned `result`: `WAITS`, `FAILED`, or an error of the kernel, negative."""
    error = _get_error(handle, result)
    if error == wait:
        return WAITS
    return -int(_ffi.errno) if error == _SYSCALL else FAILED


def handshake(handle: Any) -> int:
    """Go on with the handshake: 1 if it is over, or what `_outcome` says."""
    if handle is None:
        return FAILED
    result: int = _do_handshake(handle)
    if result == 1:
        return 1
    return _outcome(handle, result, _WANT_READ)


def read_into(handle: Any, buffer: bytearray | memoryview) -> int:
    """Read one record, or a part, into `buffer`: how many bytes, or what `_outcome` says."""
    if handle is None:
        return FAILED
    count: int = _read(handle, _from_buffer(buffer), min(RECORD, len(buffer)))
    if count > 0:
        return count
    return _outcome(handle, count, _WANT_READ)


def read_on(handle: Any, buffer: bytearray | memoryview, count: int) -> tuple[int, bool]:
    """
    Read on behind the first `count` bytes of `buffer`, as long as there are full records.

    Return how many bytes are in `buffer`, and whether the end or an error comes behind them.
    """
    if handle is None:
        return count, True
    start, room = _from_buffer(buffer), len(buffer) - RECORD
    while count <= room:
        more: int = _read(handle, start + count, RECORD)
        if more <= 0:
            failed = _get_error(handle, more) != _WANT_READ
            _clear_errors()
            return count, failed
        count += more
        if more < RECORD:
            break
    return count, False


def write(handle: Any, data: bytes | bytearray | memoryview) -> int:
    """Send `data`, record by record: how many bytes are sent, or what `_outcome` says."""
    if handle is None:
        return FAILED
    start, size = _from_buffer(data), len(data)
    sent: int = _write(handle, start, size)
    if sent <= 0:
        return _outcome(handle, sent, _WANT_WRITE)
    while sent < size:
        more: int = _write(handle, start + sent, size - sent)
        if more <= 0:
            # The same happens again to who sends the rest.
            _clear_errors()
            break
        sent += more
    return sent
