"""
Every metric of evproxy by its name: its kind, its labels, and what it means.

The names follow those of Prometheus ("Metric and label naming"): a prefix, base units, and
``_total`` for what only grows.  ``docs/metrics.md`` has them as a table.
"""

from __future__ import annotations

from evproxy.observe.metrics.family import Declared

_SERVER = ("pool", "server")

DECLARED = (
    Declared("evproxy_build_info", "gauge", "proxy", ("version",), "1, with the version."),
    Declared(
        "evproxy_draining",
        "gauge",
        "proxy",
        (),
        "1 while the proxy drains, and once it has drained; else 0.",
    ),
    Declared(
        "evproxy_accepting_paused",
        "gauge",
        "proxy",
        (),
        "1 while accepting is paused: at the bound on sessions, or out of descriptors; else 0.",
    ),
    Declared(
        "evproxy_accepting_pauses_total",
        "counter",
        "proxy",
        (),
        "Periods in which accepting was paused.",
    ),
    Declared(
        "evproxy_shortages_total",
        "counter",
        "proxy",
        (),
        "Periods in which evproxy itself lacked something, such as local ports.",
    ),
    Declared(
        "evproxy_log_lines_dropped_total",
        "counter",
        "proxy",
        (),
        "Lines of the access log that were dropped, because its destination was too slow.",
    ),
    Declared(
        "evproxy_certificate_expires_timestamp_seconds",
        "gauge",
        "proxy",
        ("path",),
        "When the certificate in a file ends, in seconds since 1970.",
    ),
    Declared(
        "evproxy_sessions", "gauge", "sessions", ("listener", "phase"), "Sessions by their phase."
    ),
    Declared("evproxy_sessions_max", "gauge", "sessions", (), "The bound on sessions."),
    Declared(
        "evproxy_sessions_started_total",
        "counter",
        "sessions",
        ("listener",),
        "Sessions that have begun.",
    ),
    Declared(
        "evproxy_sessions_ended_total",
        "counter",
        "sessions",
        ("listener", "by", "how", "phase"),
        "Sessions that have ended: who ended them, how, and in which phase.",
    ),
    Declared(
        "evproxy_clients_refused_total",
        "counter",
        "sessions",
        ("listener", "reason"),
        "Clients that got no session, because of their address or a limit.",
    ),
    Declared(
        "evproxy_bytes_to_upstream_total",
        "counter",
        "sessions",
        ("listener",),
        "Bytes passed on for servers.",
    ),
    Declared(
        "evproxy_bytes_to_downstream_total",
        "counter",
        "sessions",
        ("listener",),
        "Bytes passed on for clients.",
    ),
    Declared(
        "evproxy_connect_attempts_total",
        "counter",
        "sessions",
        ("listener",),
        "Servers that were tried for sessions that have ended.",
    ),
    Declared(
        "evproxy_session_duration_seconds",
        "histogram",
        "sessions",
        ("listener",),
        "How long sessions lasted that have ended.",
    ),
    Declared(
        "evproxy_connect_time_seconds",
        "histogram",
        "sessions",
        ("listener",),
        "From accept to the connection with the server, of sessions that have ended.",
    ),
    Declared(
        "evproxy_first_byte_time_seconds",
        "histogram",
        "sessions",
        ("listener",),
        "From accept to the first byte of the server, of sessions that have ended.",
    ),
    Declared(
        "evproxy_pool_servers", "gauge", "pools", ("pool", "state"), "Servers by their state."
    ),
    Declared(
        "evproxy_pool_waiting", "gauge", "pools", ("pool",), "Sessions in the queue of the pool."
    ),
    Declared(
        "evproxy_pool_exhausted_total",
        "counter",
        "pools",
        ("pool",),
        "Periods in which the pool could not serve sessions.",
    ),
    Declared(
        "evproxy_pool_server_changes_total",
        "counter",
        "pools",
        ("pool", "state"),
        "Servers that entered a state, or joined or left.",
    ),
    Declared(
        "evproxy_pool_discovery_failures_total",
        "counter",
        "pools",
        ("pool",),
        "Failures of discovery; each reason counts once until discovery works again.",
    ),
    Declared(
        "evproxy_mirror_copies_total",
        "counter",
        "pools",
        ("pool", "outcome"),
        "Copies of sessions of the pool that have ended: whole, or why they were dropped.",
    ),
    Declared(
        "evproxy_mirror_answers_total",
        "counter",
        "pools",
        ("pool", "result"),
        "Comparisons of the answers of two servers: equal, different or given up.",
    ),
    Declared(
        "evproxy_servers_left_out",
        "gauge",
        "servers",
        (),
        "Servers that have no metrics of their own here, because there are too many.",
    ),
    Declared(
        "evproxy_server_state",
        "gauge",
        "servers",
        (*_SERVER, "state"),
        "1 for the state of the server, 0 for the other states.",
    ),
    Declared("evproxy_server_weight", "gauge", "servers", _SERVER, "The weight in force."),
    Declared("evproxy_server_sessions", "gauge", "servers", _SERVER, "Sessions on the server."),
    Declared(
        "evproxy_server_sessions_max",
        "gauge",
        "servers",
        _SERVER,
        "The most sessions on the server; 0: no limit.",
    ),
    Declared(
        "evproxy_server_connects_total",
        "counter",
        "servers",
        _SERVER,
        "Connects to the server for sessions.",
    ),
    Declared(
        "evproxy_server_connect_failures_total",
        "counter",
        "servers",
        _SERVER,
        "Connects that failed.",
    ),
    Declared(
        "evproxy_server_connect_time_seconds",
        "gauge",
        "servers",
        _SERVER,
        "The time of a connect: a peak that decays. 0: unknown.",
    ),
    Declared(
        "evproxy_server_ejections_total",
        "counter",
        "servers",
        _SERVER,
        "Ejections of the server.",
    ),
    Declared(
        "evproxy_server_checks_total",
        "counter",
        "servers",
        (*_SERVER, "result"),
        "Health checks of the server, passed and failed.",
    ),
    Declared(
        "evproxy_server_bytes_to_upstream_total",
        "counter",
        "servers",
        _SERVER,
        "Bytes passed on for the server.",
    ),
    Declared(
        "evproxy_server_bytes_to_downstream_total",
        "counter",
        "servers",
        _SERVER,
        "Bytes passed on from the server.",
    ),
    Declared(
        "evproxy_flow_control_pauses_total",
        "counter",
        "relay",
        (),
        "How often a slow reader made its peer wait.",
    ),
    Declared(
        "evproxy_kept_bytes",
        "gauge",
        "relay",
        (),
        "Bytes that evproxy keeps: for slow readers, and of clients without a server yet.",
    ),
    Declared("evproxy_pipes_used", "gauge", "relay", (), "Kernel pipes that splice bulk."),
    Declared("evproxy_pipes_unused", "gauge", "relay", (), "Kernel pipes kept for reuse."),
    Declared("evproxy_pipes_max", "gauge", "relay", (), "The bound on kernel pipes."),
)

OF_WORKERS = (
    Declared(
        "evproxy_worker_up",
        "gauge",
        "proxy",
        ("worker",),
        "With workers only: 1 if the worker has answered to this scrape, else 0.",
    ),
    Declared(
        "evproxy_worker_restarts_total",
        "counter",
        "proxy",
        ("worker",),
        "With workers only: processes of the worker that have died.",
    ),
)
"""What there is with workers only."""

BY_NAME = {each.name: each for each in (*DECLARED, *OF_WORKERS)}
