"""
What a pool says when the state of a server changes: what holds now, why, and until when.

A server may be draining, down and ejected at the same time; the first of these that is true
is its state, and the line names what is left of the others.  Pure.
"""

from __future__ import annotations

from evproxy.upstream.pool.server import PoolServer


def reason_of_state(server: PoolServer, event: str) -> str:
    """Why the state of `server` is what it is; of one that is up, the `event` that made it so."""
    reasons = {
        "draining": server.drain_why,
        "down": server.down_why,
        "ejected": server.ejection.why,
    }
    return reasons.get(server.state, event)


def state_line(server: PoolServer, event: str, now: float) -> str:
    """
    What is to be said of the state that `server` has from now on.

    :param event: what changed it: the reason of the new state itself, or what ended another
        one that had hidden it (a check that passed, a request).
    :param now: seconds on the reactor's clock.
    """
    reason = reason_of_state(server, event)
    match server.state:
        case "draining":
            end = "its last session ends" if server.leaving else "it is resumed"
            line = f"{reason}, until {end}"
            if server.down:
                line += f"; also down: {server.down_why}"
        case "down":
            line = reason if event == reason else f"{event}, but still down: {reason}"
        case "ejected":
            if event == reason:
                return f"{reason}, for {round(_seconds_left(server, now), 1):g} s"
            return f"{event}, but {_ejected_still(server, now)}"
        case _:
            return event
    if server.ejection.until is not None:
        line += f"; also {_ejected_still(server, now)}"
    return line


def _ejected_still(server: PoolServer, now: float) -> str:
    left = _seconds_left(server, now)
    seconds = f"{left:.0f}" if left >= 1 else f"{max(left, 0.1):.1f}"
    return f"ejected for another {seconds} s: {server.ejection.why}"


def _seconds_left(server: PoolServer, now: float) -> float:
    return 0.0 if server.ejection.until is None else server.ejection.until - now
