"""
The command ``evproxy replay``: plays the server or the client of a recording.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from evproxy.errors import SettingsError

SAME = 0
"""The exit status if the peer did what it did in the recording."""

DIFFERENT = 1
"""The exit status if the peer did something else."""

CANNOT_PLAY = 2
"""The exit status if the recording cannot be played, or if there is no connection."""

TIMEOUT = 10.0
"""Seconds to wait for the peer, by default."""


def add_to(subparsers: Any) -> None:
    """Add ``replay`` to the commands of ``evproxy``."""
    replay = subparsers.add_parser(
        "replay",
        help="play the server or the client of a recording",
        description=(
            "Plays one side of a recorded session, once, and compares what its peer sends with the"
            " recording. Exits with 0 if that is the same, with 1 at the first difference, which it"
            " prints with its offset in the stream, and with 2 if the recording cannot be played."
        ),
    )
    replay.add_argument("file", metavar="FILE", help="a recording as JSON lines")
    role = replay.add_mutually_exclusive_group(required=True)
    role.add_argument(
        "--listen",
        metavar="ENDPOINT",
        help="play the server: wait for a client at this server endpoint, as tcp:5432",
    )
    role.add_argument(
        "--connect",
        metavar="ENDPOINT",
        help="play the client: connect to HOST:PORT, or to any client endpoint",
    )
    replay.add_argument(
        "--fast", action="store_true", help="play as fast as it goes, and not in the recorded time"
    )
    replay.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=TIMEOUT,
        help=f"how long to wait for the peer to do what it did ({TIMEOUT:g})",
    )


LONGEST_TIMEOUT = 86400


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"expected seconds, more than 0 and at most {LONGEST_TIMEOUT}, got {text!r}"
        )
    return seconds


def run(options: argparse.Namespace, output: TextIO, errors: TextIO) -> int:
    """
    Play a recording.

    :return: the exit status.
    """
    try:
        with open(options.file, "rb") as file:
            return _play(options, file, output)
    except ReplayError as error:
        why = str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        why = f"{options.file}: {error.strerror}"
    print(f"evproxy replay: {why}", file=errors)
    return CANNOT_PLAY


class ReplayError(Exception):
    """Why a recording cannot be played."""


def _play(options: argparse.Namespace, file: BinaryIO, output: TextIO) -> int:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.error import (
        CannotListenError,
        ConnectError,
        DNSLookupError,
        ReactorNotRunning,
    )
    from twisted.python.failure import Failure

    from evproxy.replay import Dialogue, Player, recorded_events
    from evproxy.replay.connection import accepted, connected
    from evproxy.service.listener import cannot_listen
    from evproxy.wire.recording import MalformedRecording

    given: Any = reactor
    try:
        _, events = recorded_events(file)
    except MalformedRecording as error:
        raise ReplayError(f"{options.file}: {error}") from None
    side = "downstream" if options.connect else "upstream"
    player = Player(given, Dialogue(events, side), options.fast, options.timeout)
    outcome: list[int] = []
    problems: list[str] = []
    unexpected: list[Failure] = []

    def listens(address: str) -> None:
        print(f"waits for the client at {address}", file=output, flush=True)

    async def play() -> None:
        try:
            if options.connect:
                await connected(given, options.connect, player, options.timeout)
            else:
                await accepted(given, options.listen, player, listens)
            result = await player.result
        except MalformedRecording as error:
            problems.append(f"{options.file}: {error}")
        except CannotListenError as error:
            problems.append(cannot_listen(error))
        except (SettingsError, ConnectError, DNSLookupError, TimeoutError) as error:
            problems.append(str(error))
        else:
            if result.note:
                print(result.note, file=output)
            if result.difference:
                print(result.difference, file=output)
            else:
                print(
                    f"no difference: {result.sent} bytes sent, {result.received} received",
                    file=output,
                )
            outcome.append(DIFFERENT if result.difference else SAME)

    def done(failure: Failure | None) -> None:
        if failure is not None:
            unexpected.append(failure)
        with suppress(ReactorNotRunning):
            given.stop()

    given.callWhenRunning(lambda: Deferred.fromCoroutine(play()).addBoth(done))
    given.run()
    if unexpected:
        unexpected[0].raiseException()
    if problems:
        raise ReplayError(problems[0])
    return outcome[0] if outcome else CANNOT_PLAY


def main(options: argparse.Namespace) -> int:
    """Run the command on the standard streams."""
    return run(options, sys.stdout, sys.stderr)
