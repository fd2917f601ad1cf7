"""
The text of a state change of a server: the new state's reason, and how long it will last.

A server may be draining, down and ejected at the same time.  The first of these that is true
is its state, and the line also names the others that are true.  Pure.
"""

from __future__ import annotations

from evproxy.upstream.pool.server import PoolServer


def reason_of_state(server: PoolServer, event: str) -> str:
    """The reason for the state of `server`.  If the server is up, the reason is `event`."""
    reasons = {
        "draining": server.drain_why,
        "down": server.down_why,
        "ejected": server.ejection.why,
    }
    return reasons.get(server.state, event)


def state_line(server: PoolServer, event: str, now: float) -> str:
    """
    The text for the new state of `server`.

    :param event: what changed the state: the reason of the new state, or the event that ended
        the previous one (a check passed, for example, while the server is still ejected).
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
