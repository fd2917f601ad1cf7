"""
What went wrong with a connection, in the few words that a log line has room for.

Pure: an exception in, a short lower-case reason out, without class names and numbers.
Every reason can be printed as it is, whatever the other side wrote into it: see `evproxy.escape`.
"""

from __future__ import annotations

import os
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
"""What can go wrong with a connection, whatever is said over it."""


LONGEST = 200
"""Characters of a reason that are kept."""


def reason_of(error: BaseException | Failure | None) -> str:
    """`error` as a short human reason: ``connection refused``, ``closed by the server``."""
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
            # It is made of parts that are escaped already.
            return one_line(str(error) or type(error).__name__)
    number = error.osError if isinstance(error, ConnectError) else getattr(error, "errno", None)
    if number in ELSEWHERE_TOO:
        return one_line(str(shortage_of(number)))
    if isinstance(number, int):
        return os.strerror(number).lower()
    return from_outside(str(error) or type(error).__name__)


def from_outside(text: str) -> str:
    """`text` that another program wrote, escaped, on one line, cut at `LONGEST` characters."""
    return one_line(escaped(" ".join(text.split())))


def one_line(text: str) -> str:
    """`text` on one line that can be printed, cut at `LONGEST` characters."""
    joined = printable(" ".join(text.split()))
    return joined if len(joined) <= LONGEST else joined[: LONGEST - 1] + "…"


def left_out(fault: str) -> str:
    """That one of the servers that were discovered is left out, for it has `fault`."""
    return one_line(f"left out: {fault}")


def nothing_left(faults: Sequence[str]) -> str:
    """That each of the servers that were discovered has one of the `faults`, at least one."""
    others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return one_line(f"nothing can be used: {faults[0]}") + others


def handshake_reason(error: BaseException | None) -> str:
    """Why a TLS handshake failed: ``TLS handshake failed: certificate verify failed``."""
    match error:
        case SSL.Error():
            reason = _of_openssl(error)
        case ConnectionDone() | ConnectionLost():
            # OpenSSL takes either for an end that came too early.
            reason = "closed by the server"
        case _:
            reason = reason_of(error)
    return one_line("TLS handshake failed" + (reason and f": {reason}"))


def _of_openssl(error: SSL.Error) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(dict.fromkeys(from_outside(entry[2]) for entry in entries if entry[2]))


def _answer_reason(error: ResponseNeverReceived | ResponseFailed) -> str:
    """Of all that happened to one request of an `Agent`, what was not just the end."""
    for failure in error.reasons:
        if failure.check(ConnectionDone, ResponseDone) is None:
            # All else is what the parser raises, of its own and of Python's: a ValueError for
            # a header without a colon, a KeyError for an unknown transfer encoding.
            known = failure.check(*_OF_CONNECTIONS) is not None
            return reason_of(failure) if known else "the answer is not HTTP"
    return "closed by the server before a whole answer"
