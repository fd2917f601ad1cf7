"""
The settings of an injected fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from evproxy.config.declare import keys_of, setting
from evproxy.config.kinds import belongs_to
from evproxy.config.problems import quoted
from evproxy.config.rules import Choice, Judged, Many, Matching, Number, Seconds, Text, Whole
from evproxy.config.tables import Table
from evproxy.errors import SettingsError
from evproxy.policy.networks import network_fault

FAULT_KINDS = (
    "latency",
    "bandwidth",
    "slicer",
    "slow-close",
    "timeout",
    "stall",
    "half-open",
    "limit",
    "end",
    "reset",
    "truncate",
    "corrupt",
    "tls-failure",
    "tls-stall",
    "refused",
    "hang",
)
STREAMS = ("downstream", "upstream", "both")
DISTRIBUTIONS = ("uniform", "normal", "pareto")
MOST = 10**15
"""The largest number of bytes that a setting may name."""
_BYTES = Whole(0, MOST)
_CUTS = ("limit", "end", "reset", "truncate")
CONNECT_KINDS = ("refused", "hang")
"""The kinds that are about the connect, before there are bytes."""
_STREAMS_OF = {
    "tls-failure": ("upstream",),
    "tls-stall": ("upstream",),
    "refused": ("upstream", "downstream"),
    "hang": ("upstream",),
}
"""The streams of the kinds that do not have all; the first is the default."""


def default_stream(kind: object) -> str:
    """The stream of a fault of `kind` that names none."""
    return _STREAMS_OF.get(kind, STREAMS)[0] if isinstance(kind, str) else STREAMS[0]


@frozen
class FaultSettings:
    """One fault: what happens to the bytes of the sessions for which its conditions hold."""

    kind: str = setting(
        Choice(FAULT_KINDS), "What happens to the bytes: see [the kinds](faults.md#the-kinds)."
    )
    name: str = setting(
        Matching("a name", r"[\w.-]*"),
        "Its name in the log and for programs.",
        default="",
        default_shown="`KIND_STREAM`",
    )
    stream: str = setting(
        Choice(STREAMS),
        "Which bytes: `downstream` are those that the server sends to the client, `upstream` those "
        "that the client sends to the server. Of `refused` and `hang`: the connect to the server "
        "(`upstream`), or the client's connection (`downstream`).",
        default=None,
        default_shown="`downstream`; of `tls-…`, `refused` and `hang`: `upstream`",
    )
    latency: float = setting(
        Seconds(0),
        "The time from when a byte came until it goes on.",
        default=0.0,
        kinds=("latency",),
    )
    jitter: float = setting(
        Seconds(0),
        "How far the latency varies, by `distribution`.",
        default=0.0,
        kinds=("latency",),
    )
    distribution: str = setting(
        Choice(DISTRIBUTIONS),
        "`uniform`: from `latency - jitter` to `latency + jitter`. `normal`: `jitter` is the "
        "standard deviation. `pareto`: never less than `latency`, on average `jitter` more, and "
        "sometimes much more.",
        default="uniform",
        kinds=("latency",),
    )
    rate: int = setting(
        _BYTES, "Bytes in a second. 0: no byte passes.", default=0, kinds=("bandwidth",)
    )
    average_size: int = setting(
        Whole(1, 2**30), "The average size of a piece, in bytes.", default=1, kinds=("slicer",)
    )
    size_variation: int = setting(
        Whole(0, 2**30),
        "How many bytes a piece may be larger or smaller.",
        default=0,
        kinds=("slicer",),
    )
    delay: float = setting(
        Seconds(0),
        "Seconds between two pieces; until the end is passed on; until the reset.",
        default=0.0,
        kinds=("slicer", "slow-close", "reset"),
    )
    timeout: float = setting(
        Seconds(0),
        "The session ends when so many seconds have passed without a byte. 0: never.",
        default=0.0,
        kinds=("timeout",),
    )
    bytes: int = setting(_BYTES, "How many bytes pass before.", default=0, kinds=_CUTS)
    share: float = setting(
        Number(0, 1), "The share of bytes that are changed.", default=0.001, kinds=("corrupt",)
    )
    probability: float = setting(
        Number(0, 1),
        "For which share of the sessions; drawn for each session and each stream. Of `refused` and "
        "`hang`: for which share of the connects.",
        default=1.0,
    )
    peer: str = setting(
        Judged(
            'an IP address or a network, such as "10.0.0.0/8"',
            lambda text: network_fault(text) if text else None,
        ),
        "Only for clients of this network.",
        default="",
    )
    route: str = setting(
        Text(), "Only for sessions whose `route` in the access log is this.", default=""
    )
    server: str = setting(Text(), "Only for sessions with this server, by its name.", default="")
    after: float = setting(
        Seconds(0),
        "The fault begins so many seconds after the session relays. Of `refused` and `hang`: after "
        "evproxy has read the fault.",
        default=0.0,
    )
    lasts: float = setting(
        Seconds(0), "The fault lasts so many seconds. 0: until the session ends.", default=0.0
    )
    every: float = setting(
        Seconds(0),
        "The fault begins again so many seconds after it began; longer than `lasts`. 0: it does "
        "not.",
        default=0.0,
    )
    after_bytes: int = setting(
        _BYTES, "The fault leaves so many bytes of the stream alone first.", default=0
    )
    until_bytes: int = setting(
        _BYTES, "The fault leaves the bytes after so many alone. 0: none.", default=0
    )

    def __attrs_post_init__(self) -> None:
        if not self.stream:
            object.__setattr__(self, "stream", default_stream(self.kind))
        given = {
            key: value
            for key, each in keys_of(FaultSettings).items()
            if (value := getattr(self, key)) != each.default
        }
        for key, why in self.contradictions(given):
            raise SettingsError(f"{key}: {why}")

    @staticmethod
    def contradictions(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """
        The keys that contradict others, each with why.

        :param values: valid values by their keys; a key that is absent has its default.
        """
        kind, stream = values.get("kind"), values.get("stream")
        if isinstance(kind, str):
            for key, each in keys_of(FaultSettings).items():
                if key in values and each.setting.kinds and kind not in each.setting.kinds:
                    yield key, belongs_to(each.setting.kinds, kind)
            streams = _STREAMS_OF.get(kind, STREAMS)
            if stream is not None and stream not in streams:
                allowed = " or ".join(map(quoted, streams))
                yield "stream", f"must be {allowed} for kind {quoted(kind)}, got {quoted(stream)}"
        every, lasts = values.get("every", 0), values.get("lasts", 0)
        if every and not lasts:
            yield "every", "has no effect without lasts"
        elif every and every <= lasts:
            yield "every", f"must be more than lasts, which is {lasts:g}"
        until, after = values.get("until_bytes", 0), values.get("after_bytes", 0)
        if kind in CONNECT_KINDS:
            for key in ("after_bytes", "until_bytes"):
                if values.get(key):
                    yield key, f"has no effect for kind {quoted(kind)}: a connect has no bytes"
        elif until and until <= after:
            yield "until_bytes", f"must be more than after_bytes, which is {after}"

    @property
    def called(self) -> str:
        """The name of the fault: `name`, or else one of its kind and its stream."""
        return self.name or f"{self.kind}_{self.stream}"


FAULTS = Many("an array of tables", Table(FaultSettings))
"""The faults of a listener or a pool."""

SEED = Whole(0, 2**32)
"""The seed of faults; 0: a new one."""

SEED_MEANING = (
    "Where the draws of the faults begin: the same seed gives the n-th session the same draws. "
    "0: a new seed, which the log has."
)
