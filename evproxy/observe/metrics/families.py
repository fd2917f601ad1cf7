"""
The metric families of a proxy, from a snapshot of its numbers.

A family makes its samples as they are asked for, so that the work on many servers can be done in
slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field, frozen

from evproxy.model import Phase
from evproxy.observe.metrics.declared import BY_NAME
from evproxy.observe.metrics.family import Family, Values
from evproxy.observe.metrics.live import LiveTotals
from evproxy.observe.metrics.tally import ListenerTotals, Tally
from evproxy.service.status import Status
from evproxy.upstream.pool.status import STATES, ServerStatus

_PHASES = tuple(phase.value for phase in Phase if phase is not Phase.CLOSED)
_DIRECTIONS = ("upstream", "downstream")
_NOTHING = ListenerTotals()
_NO_BYTES = (0, 0)


@frozen(kw_only=True)
class Numbers:
    """
    What the families are made of, at one instant.

    `listeners` are those of the tally; they and `servers` are from before the live sessions were
    added up, so that no session counts twice.
    `states`: how many servers are in each state, by pool and state.  `servers`: the servers with
    metrics of their own, with the name of their pool.  `left_out`: how many servers have none.
    `pipes`: how many are used, how many are unused, and their bound.  `lost`: by listener, the
    sessions that began, and whose end nothing has counted, because their process died.
    """

    status: Status
    version: str
    tally: Tally
    listeners: Mapping[str, ListenerTotals]
    live: LiveTotals
    states: Mapping[tuple[str, str], int]
    servers: Sequence[tuple[str, ServerStatus]]
    left_out: int
    accepting_paused: bool
    log_lines_dropped: int
    pauses: int
    pipes: tuple[int, int, int]
    lost: Mapping[str, int] = field(factory=dict)


@define
class Growing:
    """
    Keeps counters from going back.

    A session that ends while the live sessions are added up may be missing until the next time.
    Prometheus would take the smaller value for a restart.  A server or listener that is left out
    once begins anew.
    """

    _highest: dict[str, dict[tuple[str, ...], float]] = field(factory=dict)

    def never_less(self, family: str, values: Values) -> Iterator[tuple[tuple[str, ...], float]]:
        """Yield all `values` of `family`, none below what it was the last time."""
        before, highest = self._highest.get(family, {}), {}
        for labels, value in values:
            highest[labels] = value = max(value, before.get(labels, 0))
            yield labels, value
        self._highest[family] = highest


def proxy_families(numbers: Numbers) -> Iterator[Family]:
    """The scope ``proxy``."""
    status, tally = numbers.status, numbers.tally
    yield BY_NAME["evproxy_build_info"].of_each([((numbers.version,), 1)])
    yield BY_NAME["evproxy_draining"].of(status.state != "running")
    yield BY_NAME["evproxy_accepting_paused"].of(numbers.accepting_paused)
    yield BY_NAME["evproxy_accepting_pauses_total"].of(tally.pauses)
    yield BY_NAME["evproxy_shortages_total"].of(tally.shortages)
    yield BY_NAME["evproxy_log_lines_dropped_total"].of(numbers.log_lines_dropped)
    yield BY_NAME["evproxy_certificate_expires_timestamp_seconds"].of_each(
        ((each.path,), each.expires) for each in status.certificates
    )


def session_families(numbers: Numbers, growing: Growing) -> Iterator[Family]:
    """The scope ``sessions``."""
    status, live = numbers.status, numbers.live
    ended = {each.name: numbers.listeners.get(each.name, _NOTHING) for each in status.listeners}
    yield BY_NAME["evproxy_sessions"].of_each(
        ((name, phase), live.phases[name, phase]) for name in ended for phase in _PHASES
    )
    yield BY_NAME["evproxy_sessions_max"].of(status.max_sessions)
    begun = (
        (
            (name,),
            totals.sessions
            + numbers.lost.get(name, 0)
            + sum(live.phases[name, phase] for phase in _PHASES),
        )
        for name, totals in ended.items()
    )
    name = "evproxy_sessions_started_total"
    yield BY_NAME[name].of_each(growing.never_less(name, begun))
    yield BY_NAME["evproxy_sessions_ended_total"].of_each(
        ((name, reason.by.value, reason.how.value, reason.phase.value), number)
        for name, totals in ended.items()
        for reason, number in totals.ends.items()
    )
    yield BY_NAME["evproxy_clients_refused_total"].of_each(
        ((each.name, str(getattr(reason, "value", reason))), number)
        for each in status.listeners
        for reason, number in each.refused.items()
    )
    for place, direction in enumerate(_DIRECTIONS):
        name = f"evproxy_bytes_to_{direction}_total"
        sums = [
            ((key,), totals.bytes[place] + live.listener_bytes.get(key, _NO_BYTES)[place])
            for key, totals in ended.items()
        ]
        yield BY_NAME[name].of_each(growing.never_less(name, sums))
    yield BY_NAME["evproxy_connect_attempts_total"].of_each(
        ((key,), totals.attempts) for key, totals in ended.items()
    )
    for name, part in (
        ("evproxy_session_duration_seconds", "durations"),
        ("evproxy_connect_time_seconds", "connects"),
        ("evproxy_first_byte_time_seconds", "first_bytes"),
    ):
        histograms = [((key,), getattr(totals, part)) for key, totals in ended.items()]
        yield BY_NAME[name].of_histograms(histograms)


def pool_families(numbers: Numbers) -> Iterator[Family]:
    """The scope ``pools``."""
    tally, pools = numbers.tally, [each.name for each in numbers.status.pools]
    yield BY_NAME["evproxy_pool_servers"].of_each(
        ((pool, state), numbers.states.get((pool, state), 0)) for pool in pools for state in STATES
    )
    yield BY_NAME["evproxy_pool_waiting"].of_each(
        ((each.name,), each.waiting) for each in numbers.status.pools
    )
    yield BY_NAME["evproxy_pool_exhausted_total"].of_each(
        ((pool,), tally.exhausted[pool]) for pool in pools
    )
    yield BY_NAME["evproxy_pool_server_changes_total"].of_each(
        ((pool, state), tally.changes[pool, state])
        for pool in pools
        for state in (*STATES, "added", "removed")
    )
    yield BY_NAME["evproxy_pool_discovery_failures_total"].of_each(
        ((pool,), tally.discovery_failures[pool]) for pool in pools
    )
    for name, counted in (
        ("evproxy_mirror_copies_total", tally.copies),
        ("evproxy_mirror_answers_total", tally.answers),
    ):
        yield BY_NAME[name].of_each(
            (key, number) for key, number in counted.items() if key[0] in pools
        )


def server_families(numbers: Numbers, growing: Growing) -> Iterator[Family]:
    """The scope ``servers``."""
    servers = numbers.servers
    yield BY_NAME["evproxy_servers_left_out"].of(numbers.left_out)
    yield BY_NAME["evproxy_server_state"].of_each(
        ((pool, each.name, state), each.state == state)
        for pool, each in servers
        for state in STATES
    )
    for name, part in (
        ("evproxy_server_weight", "weight"),
        ("evproxy_server_sessions", "sessions"),
        ("evproxy_server_connects_total", "sessions_total"),
        ("evproxy_server_connect_failures_total", "connect_failures"),
        ("evproxy_server_connect_time_seconds", "connect_time"),
        ("evproxy_server_ejections_total", "ejections"),
    ):
        values = [((pool, each.name), getattr(each, part)) for pool, each in servers]
        yield BY_NAME[name].of_each(values)
    yield BY_NAME["evproxy_server_sessions_max"].of_each(
        ((pool, each.name), each.spec.max_sessions) for pool, each in servers
    )
    yield BY_NAME["evproxy_server_checks_total"].of_each(
        ((pool, each.name, result), number)
        for pool, each in servers
        for result, number in (("passed", each.checks_passed), ("failed", each.checks_failed))
    )
    live = numbers.live.server_bytes
    for place, direction in enumerate(_DIRECTIONS):
        name = f"evproxy_server_bytes_to_{direction}_total"
        part = f"bytes_to_{direction}"
        sums = [
            (key := (pool, each.name), getattr(each, part) + live.get(key, _NO_BYTES)[place])
            for pool, each in servers
        ]
        yield BY_NAME[name].of_each(growing.never_less(name, sums))


def relay_families(numbers: Numbers) -> Iterator[Family]:
    """The scope ``relay``."""
    used, unused, most = numbers.pipes
    yield BY_NAME["evproxy_flow_control_pauses_total"].of(numbers.pauses)
    yield BY_NAME["evproxy_kept_bytes"].of(numbers.live.kept)
    yield BY_NAME["evproxy_pipes_used"].of(used)
    yield BY_NAME["evproxy_pipes_unused"].of(unused)
    yield BY_NAME["evproxy_pipes_max"].of(most)
