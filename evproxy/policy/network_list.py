"""The text of a file that lists networks."""

from __future__ import annotations

from collections.abc import Iterator

from evproxy.config.problems import quoted
from evproxy.errors import SettingsError
from evproxy.policy.networks import Networks, network_fault, network_interval

MOST_LINES = 1_000_000
"""The most lines of a list, comments included."""

MOST_BYTES = 64 * 1024 * 1024
"""The most bytes of a list: 64 for each line, where the longest IPv6 network has 43."""

MOST_PROBLEMS = 10
"""The most problems that an error has; further problems are counted."""


class NetworkListError(SettingsError):
    """
    A list of networks is wrong.

    `problems`: one line for each problem, which begins with the number of its line; at most
    `MOST_PROBLEMS`.  The message is the first problem, and how many there are besides.
    """

    def __init__(self, problems: list[str], count: int) -> None:
        self.problems = tuple(problems)
        first, more = problems[0], count - 1
        super().__init__(f"{first} (and {more} more)" if more else first)


def read_networks(text: str) -> Networks:
    """
    The networks in the `text` of a list: one in each line.

    A ``#`` begins a comment, and white space around a network does not count; a line without a
    network is ignored.  A list without any network is an empty set.

    A million lines take 5 seconds, in which the caller does nothing else; read long lists in a
    thread.

    :param text: at most `MOST_BYTES`; check the size of a file before reading it.
    :raises NetworkListError: if a line is wrong, or the text is longer than allowed.
    """
    if len(text) > MOST_BYTES:
        raise NetworkListError([f"the list has more than {MOST_BYTES} bytes"], 1)
    # A line feed at the very end of the text begins no line.
    if text.count("\n", 0, -1) >= MOST_LINES:
        raise NetworkListError([f"the list has more than {MOST_LINES} lines"], 1)
    problems: list[str] = []
    count = 0
    intervals = []
    for line, network in _entries(text):
        interval = network_interval(network)
        if interval is not None:
            intervals.append(interval)
            continue
        count += 1
        if count <= MOST_PROBLEMS:
            problems.append(f"line {line}: {quoted(network)}: {network_fault(network)}")
    if problems:
        raise NetworkListError(problems, count)
    return Networks.of_intervals(intervals)


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """The number of each line that has a network, and the network."""
    # Not `splitlines`, which also ends a line at a form feed and at other characters.
    for number, line in enumerate(text.split("\n"), 1):
        network = line.partition("#")[0].strip()
        if network:
            yield number, network
