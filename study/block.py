"""
``python -m study block STATEMENT``: blocks an event loop with the reader's own code, and shows what
evproxy's watchdog says of that.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

THRESHOLD = 0.05
"""Seconds from which on the watchdog reports."""

BETWEEN = 0.2
"""Seconds before and after the statement, in which the loop turns."""


class Printed:
    """An observer that prints each report, with its stack."""

    def loop_held(self, report: Any) -> None:
        print(report.text, *report.stack, sep="\n", flush=True)

    def loop_released(self, report: Any) -> None:
        print(report.text, flush=True)


def main(argv: Sequence[str]) -> int:
    """Run the statement in a loop; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m study block",
        description="Block an event loop with your own code; evproxy's watchdog says what it sees.",
    )
    parser.add_argument("statement", help="Python that blocks, such as: time.sleep(0.3)")
    asked = parser.parse_args(argv)
    try:
        code = compile(asked.statement, "<your statement>", "exec")
    except SyntaxError as error:
        print(f"python -m study block: {error.msg}: {asked.statement}", file=sys.stderr)
        return 2
    from twisted.internet import reactor as installed
    from twisted.internet.task import deferLater

    from evproxy import Watchdog

    reactor: Any = installed
    names = {"time": time}
    failed: list[str] = []

    def your_callback() -> None:
        try:
            exec(code, names)
        except Exception as error:
            failed.append(traceback.format_exception_only(error)[-1].strip())

    async def run() -> None:
        await deferLater(reactor, BETWEEN, your_callback)
        await deferLater(reactor, BETWEEN)
        watchdog.stopService()
        reactor.stop()

    def begin() -> None:
        from twisted.internet.defer import Deferred

        Deferred.fromCoroutine(run())

    watchdog = Watchdog(reactor, THRESHOLD, Printed())
    watchdog.startService()
    reactor.callWhenRunning(begin)
    reactor.run()
    longest = watchdog.status().longest_turn
    print(f"The longest turn of the loop took {longest:.3f} s.")
    if failed:
        print(f"python -m study block: {failed[0]}", file=sys.stderr)
    return 1 if failed else 0
