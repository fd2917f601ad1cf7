"""The names that evproxy has for keys of other proxies' configurations."""

from __future__ import annotations

_OURS = {
    "accept_proxy": "accept_proxy_protocol_from of a listener",
    "acl": "allow, deny and routes of a listener",
    "backend": "a pool, [pools.NAME]",
    "backlog": 'backlog in the description of a listener, as in listen = "tcp:80:backlog=1000"',
    "bind": "listen of a listener",
    "check": "health_check of a pool",
    "cluster": "a pool, [pools.NAME]",
    "clusters": "pools, [pools.NAME]",
    "default_backend": "pool of a listener",
    "fall": "health_check.fall of a pool",
    "frontend": "a listener, [[listeners]]",
    "http_check": "health_check of a pool",
    "inter": "health_check.interval of a pool",
    "listener": "a listener, [[listeners]]",
    "log": "access_log",
    "max_connections": "max_sessions",
    "max_conns": "max_sessions",
    "max_fails": "ejection.failures of a pool",
    "maxconn": "max_sessions",
    "maxqueue": "queue_size of a pool",
    "limit_conn": "max_sessions_per_peer of a listener",
    "limit_req": "new_sessions_per_second_per_peer of a listener",
    "mode": "nothing: everything is TCP",
    "pool": "a pool, [pools.NAME]",
    "proxy_connect_timeout": "connect_timeout of a pool",
    "proxy_pass": "upstreams of a pool",
    "proxy_protocol": "send_proxy_protocol of a pool",
    "proxy_protocol_timeout": "timeouts.handshake",
    "proxy_timeout": "timeouts.idle",
    "resolver": "discover.nameservers of a pool",
    "retries": "connect_attempts of a pool",
    "rate_limit": "new_sessions_per_second of a listener",
    "rise": "health_check.rise of a pool",
    "send_proxy": "send_proxy_protocol = 1 of a pool",
    "send_proxy_v2": "send_proxy_protocol = 2 of a pool",
    "server": "upstreams of a pool",
    "servers": "upstreams of a pool",
    "slowstart": "slow_start of a pool",
    "timeout": "timeouts, and connect_timeout and queue_timeout of a pool",
    "upstream": "upstreams of a pool",
    "warn_blocked_traffic_after": "watchdog.threshold",
}
"""Keys of HAProxy, nginx and Envoy, with ``_`` for ``-``, and what does the same in evproxy."""


def ours_for(key: str) -> str:
    """``, in evproxy it is listen of a listener`` for a key of another proxy, else ''."""
    ours = _OURS.get(key.lower().replace("-", "_").replace(" ", "_"))
    return f", in evproxy it is {ours}" if ours else ""
