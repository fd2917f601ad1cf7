"""Keys of a listener, and of its routes, that can have no effect."""

from __future__ import annotations

import pytest

from tests.support.configs import SOUND, problems

TLS = 'tls = {certificates = ["a.pem"]%s}\n'
ROUTES = 'routes = [{%s, pool = "web"}]\n'
AUTHORITY = ', client_ca = "ca.pem", client_certificate = "required"'
FROM = "accept_proxy_protocol_from = [%s]\n"
UNIX = 'listen = "unix:a"\n'
NO_ADDRESS = "clients of a UNIX socket have no address"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ('record_format = "pcapng"', ".record_format: has no effect without record"),
        ("record_max_files = 9", ".record_max_files: has no effect without record"),
        ('record = "r"\nrecord_max_bytes = 9', None),
        (
            TLS % "" + ROUTES % 'alpn = "h2"',
            '.routes[0].alpn: no session matches it: "h2" is not in the listener\'s tls.alpn',
        ),
        (TLS % ', alpn = ["h2"]' + ROUTES % 'alpn = "h2"', None),
        (ROUTES % 'alpn = "h2"', None),
        (
            TLS % "" + ROUTES % 'client_cert = "a"',
            ".routes[0].client_cert: no session matches it without tls.client_ca or "
            "accept_proxy_protocol_from",
        ),
        (TLS % AUTHORITY + ROUTES % 'client_cert = "a"', None),
        (FROM % '"10.0.0.1"' + ROUTES % 'client_cert = "a"', None),
        (
            'name = "a"\n' + ROUTES % 'listener = "b"',
            '.routes[0].listener: no session matches it: the name of this listener is "a"',
        ),
        ('name = "b"\n' + ROUTES % 'listener = "b"', None),
        (
            'routes = [{sni = "a", pool = "web"}, {pool = "web"}, {sni = "b", pool = "web"}]',
            ".routes[2]: no session gets here: routes[1] has no condition, and so matches all",
        ),
        ('routes = [{sni = "a", pool = "web"}, {pool = "web"}]', None),
        (
            FROM % '"unix"',
            ".accept_proxy_protocol_from: has no effect: this is not a UNIX listener",
        ),
        (FROM % '"unix", "10.0.0.1"', None),
        (
            UNIX + FROM % '"10.0.0.1"',
            f'.accept_proxy_protocol_from: has no effect: {NO_ADDRESS}, say "unix"',
        ),
        (UNIX + FROM % '"unix"', None),
        ('listen = "mine:unix:a"\n' + FROM % '"10.0.0.1"' + 'deny = ["10.0.0.1"]', None),
        ('listen = "systemd:INET:0"\n' + FROM % '"unix"', None),
        (
            UNIX + 'deny = ["10.0.0.1"]',
            f".deny: has no effect: {NO_ADDRESS} without a PROXY header",
        ),
        (UNIX + FROM % '"unix"' + 'deny = ["10.0.0.1"]', None),
        (
            UNIX + ROUTES % 'peer = "10.0.0.1"',
            f".routes[0].peer: no session matches it: {NO_ADDRESS} without a PROXY header",
        ),
        (UNIX + FROM % '"unix"' + ROUTES % 'peer = "10.0.0.1"', None),
        ('record = "r"\nrecord_format = 5', ".record_format: expected one of"),
        ("accept_proxy_protocol_from = 5", ".accept_proxy_protocol_from: expected"),
        ("routes = [5]", ".routes[0]: expected a table"),
        ('tls = 5\nroutes = [{alpn = 5, pool = "web"}]', ".tls: expected a table"),
        ('listen = 5\nroutes = [{peer = 5, pool = "web"}]', ".listen: expected"),
    ],
)
def test_keys_of_a_listener_without_effect(keys: str, line: str | None) -> None:
    """No session could match the route, or no client has what the key is about."""
    found = problems(SOUND.replace("[[listeners]]", f"[[listeners]]\n{keys}", 1))
    if line is None:
        assert found == []
    else:
        assert found[0].startswith(f"listeners[0]{line}")
        assert len([each for each in found if "no effect" in each or "no session" in each]) <= 1
