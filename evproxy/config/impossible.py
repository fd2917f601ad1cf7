"""
Health checks that no server can ever pass, and keys of a check that can have no effect.

Serves a check from the file and one that a program makes: values in, reasons out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from evproxy.config.canonical import is_address
from evproxy.settings import ANSWER_LIMIT, BODY_LIMIT, HealthCheck

BODILESS = (204, 205, 304)
"""The statuses from 200 on whose answers have no body (RFC 9110, 15.3.5, 15.3.6 and 15.4.5)."""

NO_USE = "has no effect without verify = true"
_ESCAPE = re.compile(r"\\(?:x..|.)", re.DOTALL)


def impossible(check: HealthCheck) -> Iterator[tuple[str, str]]:
    """Each key of `check` that contradicts another key, with the reason."""
    match check.kind:
        case "http":
            yield from _http(check)
        case "send-expect":
            yield from _send_expect(check)
        case "tls":
            yield from _tls(check)


def _http(check: HealthCheck) -> Iterator[tuple[str, str]]:
    if check.method == "CONNECT":
        yield "method", "CONNECT asks for a tunnel, not for a path"
    if not check.expect_text:
        return
    if check.method == "HEAD":
        yield "expect_text", "the answer to HEAD has no body"
    for status in BODILESS:
        if status in check.expect_status:
            why = f"an answer of status {status} has no body for expect_text"
            yield "expect_status", why
    if _size(check.expect_text) > BODY_LIMIT:
        yield (
            "expect_text",
            f"it is longer than the {BODY_LIMIT} bytes that a check reads of a body",
        )


def _send_expect(check: HealthCheck) -> Iterator[tuple[str, str]]:
    if _size(_ESCAPE.sub("x", check.expect)) > ANSWER_LIMIT:
        yield (
            "expect",
            f"it is longer than the {ANSWER_LIMIT} bytes that a check reads of an answer",
        )
    if check.expect and check.expect_pattern:
        yield "expect_pattern", "cannot be used together with expect"
    if check.expect_pattern and _matches_nothing(check.expect_pattern):
        yield "expect_pattern", "it matches an empty answer, so the check would not wait for one"


def _tls(check: HealthCheck) -> Iterator[tuple[str, str]]:
    if not check.verify:
        if check.ca:
            yield "ca", NO_USE
        if is_address(check.server_name):
            yield "server_name", f"{NO_USE}: an address is not sent in a handshake"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _matches_nothing(pattern: str) -> bool:
    with warnings.catch_warnings(action="ignore"):
        return re.search(pattern.encode(), b"") is not None
