"""
Health checks that no server can ever pass, and keys of theirs that can have no effect.

The same for a check of the file and one that a program makes: values in, reasons out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from evproxy.config.addresses import is_address
from evproxy.settings import ANSWER_LIMIT, BODY_LIMIT, HealthCheck

BODILESS = (204, 205, 304)
"""The statuses from 200 on whose answers have no body (RFC 9110, 15.3.5, 15.3.6 and 15.4.5)."""

NO_USE = "of no use without verify = true"
_ESCAPE = re.compile(r"\\(?:x..|.)", re.DOTALL)


def impossible(check: HealthCheck) -> Iterator[tuple[str, str]]:
    """The keys of `check` that cannot be as they are together, each with the reason."""
    match check.kind:
        case "http":
            yield from _http(check)
        case "send-expect":
            yield from _send_expect(check)
        case "tls":
            yield from _tls(check)


def _http(check: HealthCheck) -> Iterator[tuple[str, str]]:
    if check.method == "CONNECT":
        yield "method", "CONNECT asks for a tunnel, and not for a path"
    if not check.expect_text:
        return
    if check.method == "HEAD":
        yield "expect_text", "the answer to HEAD has no body that it could be in"
    for status in BODILESS:
        if status in check.expect_status:
            why = f"an answer of status {status} has no body that expect_text could be in"
            yield "expect_status", why
    if _size(check.expect_text) > BODY_LIMIT:
        yield "expect_text", f"it is longer than the {BODY_LIMIT} bytes of a body that are read"


def _send_expect(check: HealthCheck) -> Iterator[tuple[str, str]]:
    if _size(_ESCAPE.sub("x", check.expect)) > ANSWER_LIMIT:
        yield "expect", f"it is longer than the {ANSWER_LIMIT} bytes of an answer that are read"
    if check.expect and check.expect_pattern:
        yield "expect_pattern", "there is expect too: only one of them can be"
    if check.expect_pattern and _matches_nothing(check.expect_pattern):
        yield "expect_pattern", "it matches an empty answer too, so that none is waited for"


def _tls(check: HealthCheck) -> Iterator[tuple[str, str]]:
    if not check.verify:
        if check.ca:
            yield "ca", NO_USE
        if is_address(check.server_name):
            yield "server_name", f"{NO_USE}: an address is not sent in a handshake"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _matches_nothing(pattern: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            return re.compile(pattern.encode()).search(b"") is not None
    except (re.error, ValueError, OverflowError, RecursionError):
        # That it is no pattern is told elsewhere.
        return False
