"""
Short reasons for log lines: the error of a connection in a few words.

Pure: takes an exception, returns a short lower-case reason without class names and numbers.
Every reason is printable, whatever text the server has put into it: see `evproxy.escape`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import TimeoutError
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectingTimeout
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived

from evproxy.errors import EvproxyError
from evproxy.escape import escaped, printable
from evproxy.policy.shortages import ELSEWHERE_TOO, shortage_of

_OF_CONNECTIONS = (
    *(ConnectError, ConnectionLost, TimeoutError, OSError),
    *(SSL.Error, VerificationError, CertificateError),
)
"""The errors of a connection, whatever the protocol on it."""


LONGEST = 200
"""The most characters of a reason; the rest is cut off."""


def reason_of(error: BaseException | Failure | None) -> str:
    """A short reason for `error`: ``connection refused``, ``closed by the server``."""
    match error:
        case None:
            return "unknown"
        case Failure():
            return reason_of(error.value)
        case SSL.Error():
            return one_line("TLS: " + (_of_openssl(error) or "the handshake failed"))
        case VerificationError() | CertificateError():
            return "certificate verify failed: it is not for the server's name"
        case ResponseNeverReceived() | ResponseFailed():
            return _answer_reason(error)
        case TimeoutError() | ConnectingTimeout():
            return "timed out"
        case DNSLookupError():
            return "the name cannot be resolved"
        case ConnectionDone():
            return "closed by the server"
        case ConnectionLost():
            return "connection reset"
        case EvproxyError():
            # The parts of the message are already escaped.
            return one_line(str(error) or type(error).__name__)
    number = error.osError if isinstance(error, ConnectError) else getattr(error, "errno", None)
    if number in ELSEWHERE_TOO:
        return one_line(str(shortage_of(number)))
    if isinstance(number, int):
        return os.strerror(number).lower()
    return from_outside(str(error) or type(error).__name__)


def from_outside(text: str) -> str:
    """`text` of another program, escaped, on one line, cut at `LONGEST` characters."""
    return one_line(escaped(" ".join(text.split())))


def one_line(text: str) -> str:
    """`text` on one printable line, cut at `LONGEST` characters."""
    joined = printable(" ".join(text.split()))
    return joined if len(joined) <= LONGEST else joined[: LONGEST - 1] + "…"


def left_out(fault: str) -> str:
    """The line for a discovered server that is left out because of `fault`."""
    return one_line(f"left out: {fault}")


def nothing_left(faults: Sequence[str]) -> str:
    """The line for a discovery that found no usable server, because of `faults` (at least one)."""
    others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return one_line(f"no usable server: {faults[0]}") + others


def handshake_reason(error: BaseException | None) -> str:
    """Why a TLS handshake failed: ``TLS handshake failed: certificate verify failed``."""
    match error:
        case SSL.Error():
            reason = _of_openssl(error)
        case ConnectionDone() | ConnectionLost():
            # For OpenSSL, both are an early end of the stream.
            reason = "closed by the server"
        case _:
            reason = reason_of(error)
    return one_line("TLS handshake failed" + (reason and f": {reason}"))


def description_fault(error: Exception) -> str:
    """Why Twisted, or a plugin, refuses an endpoint description; `error` is its exception."""
    number = re.fullmatch(r"invalid literal for int\(\) with base 10: (.*)", str(error), re.DOTALL)
    # For a directory that cannot be listed, Twisted raises an error without its own message.
    error = getattr(error, "originalException", error)
    match error:
        case TypeError() | IndexError():
            return "its arguments are incomplete or unknown"
        case ValueError() if number is not None:
            return f"{number[1]} is not a number"
        case OSError(strerror=str(), filename=str()):
            return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _of_openssl(error: SSL.Error) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(dict.fromkeys(from_outside(entry[2]) for entry in entries if entry[2]))


def _answer_reason(error: ResponseNeverReceived | ResponseFailed) -> str:
    """The reason in the failures of an `Agent` request: the first that is not a normal end."""
    for failure in error.reasons:
        if failure.check(ConnectionDone, ResponseDone) is None:
            # Any other exception comes from the HTTP parser: a ValueError for a header without
            # a colon, for example, or a KeyError for an unknown transfer encoding.
            known = failure.check(*_OF_CONNECTIONS) is not None
            return reason_of(failure) if known else "the answer is not HTTP"
    return "closed by the server before the end of the answer"
