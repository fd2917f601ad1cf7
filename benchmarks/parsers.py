"""From what the load tools print to numbers. Pure: text in, values out."""

from __future__ import annotations

import json
import re

from attrs import frozen

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PERCENTILE = re.compile(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_BAD_ANSWERS = re.compile(r"Non-2xx or 3xx responses: (\d+)")


class LoadError(Exception):
    """A load tool did not do its work; the message is its own."""


@frozen
class Counters:
    """nginx's stub_status: open connections, and connections and requests ever."""

    active: int
    accepted: int
    requests: int


@frozen
class HttpLoad:
    """What wrk saw: percentiles of latency in seconds by percent, and failures."""

    latency: dict[int, float]
    errors: int


@frozen
class BulkLoad:
    """What iperf3 moved, all streams and both ways together, and for how long."""

    bytes_moved: int
    seconds: float


def stub_status(text: str) -> Counters:
    """Read the page of nginx's ngx_http_stub_status_module.

    Raises:
        LoadError: it is not such a page.
    """
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) != 7:
        raise LoadError(f"not a stub_status page: {text[:200]!r}")
    active, accepted, _, requests = numbers[:4]
    return Counters(active, accepted, requests)


def wrk(text: str) -> HttpLoad:
    """Read what ``wrk --latency`` printed.

    Raises:
        LoadError: there is no latency distribution in it.
    """
    latency = {
        int(percent): float(value) * _UNITS[unit]
        for percent, value, unit in _PERCENTILE.findall(text)
    }
    if not latency:
        raise LoadError(f"wrk: {text.strip()[:200]}")
    found = _SOCKET_ERRORS.search(text)
    errors = sum(map(int, found.groups())) if found else 0
    bad = _BAD_ANSWERS.search(text)
    return HttpLoad(latency, errors + (int(bad[1]) if bad else 0))


def iperf3(text: str) -> BulkLoad:
    """Read what ``iperf3 --json`` printed; bytes are those that were received.

    Raises:
        LoadError: iperf3 reports an error, or printed no summary.
    """
    try:
        report = json.loads(text)
    except json.JSONDecodeError as bad:
        raise LoadError(f"iperf3: {text.strip()[:200]}") from bad
    if "error" in report:
        raise LoadError(f"iperf3: {report['error']}")
    end = report["end"]
    received = [end[name] for name in ("sum_received", "sum_received_bidir_reverse") if name in end]
    if not received:
        raise LoadError("iperf3: no summary of what was received")
    return BulkLoad(
        sum(int(part["bytes"]) for part in received),
        max(float(part["seconds"]) for part in received),
    )
