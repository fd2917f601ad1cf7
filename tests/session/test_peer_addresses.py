"""Each client has one address and each server one name, whatever the spelling."""

from __future__ import annotations

from typing import Any

import pytest

from evproxy import Pool, SettingsError
from evproxy.config.canonical import canonical_address, host_and_port, server_name
from evproxy.model import ConnectionInfo, UpstreamServer
from evproxy.upstream.address import parse_upstream
from evproxy.upstream.dialers import TCPAddress
from tests.support.peers import IPV6, Listening, connect
from tests.support.proxies import Proxied


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::FFFF:102:304", "1.2.3.4"),
        ("0:0:0:0:0:ffff:1.2.3.4", "1.2.3.4"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("FE80:0::1%Eth0", "fe80::1%Eth0"),
        ("::ffff:0:1.2.3.4", "::ffff:0:102:304"),
        ("Example.org", "Example.org"),
        ("", ""),
    ],
)
def test_canonical_addresses(written: str, canonical: str) -> None:
    """Each address has one canonical form; text that is not an address stays unchanged."""
    assert canonical_address(written) == canonical_address(canonical) == canonical


SPELLINGS = {
    "a:80": ["a:80", "tcp:a:80", "a:080", "tcp:host=a:port=80", "tcp:port=80:host=a"],
    "1.2.3.4:80": ["1.2.3.4:80", "[::ffff:1.2.3.4]:80", "tcp:[::FFFF:102:304]:80"],
    "[::1]:80": ["[::1]:80", "tcp:[0:0::1]:80", r"tcp:\:\:1:80", r"tcp:host=\:\:1:port=0080"],
    "[fe80::1%eth0]:80": ["[FE80::1%eth0]:80", r"tcp:fe80\:\:1%eth0:80"],
}


@pytest.mark.parametrize(
    ("name", "endpoint"), [(name, each) for name, all_ in SPELLINGS.items() for each in all_]
)
def test_the_name_of_a_server(name: str, endpoint: str) -> None:
    """A server has one name, however its endpoint is written."""
    assert UpstreamServer(endpoint).name == server_name(name) == name


@pytest.mark.parametrize(
    "endpoint",
    ["unix:/a", "tls:a:443", "a:1:timeout=3", "a:1:bindAddress=1.2.3.4", r"x:\:\:1:80", "nosuch"],
)
def test_the_name_of_any_other_server(endpoint: str) -> None:
    """A description with more than a host and a port keeps its own name."""
    assert UpstreamServer(endpoint).name == UpstreamServer(f"tcp:{endpoint}").name == endpoint


def test_a_server_that_is_given_twice(reactor: Any) -> None:
    """A pool refuses a server that it has under another spelling, and finds it by any spelling."""
    for spellings in SPELLINGS.values():
        for other in spellings[1:]:
            with pytest.raises(SettingsError, match=" is listed twice"):
                Pool(reactor, [spellings[0], other])
    pool = Pool(reactor, ["[::1]:80"])
    with pytest.raises(SettingsError, match=" is already in the pool"):
        pool.add(r"tcp:\:\:1:80")
    pool.remove(r"tcp:\:\:1:80")
    assert pool.servers == ()


def test_a_mapped_server_is_connected_as_ipv4() -> None:
    """A server with an IPv4-mapped address needs no IPv6."""
    assert parse_upstream("[::ffff:1.2.3.4]:80") == TCPAddress("1.2.3.4", 80)


@pytest.mark.skipif(not IPV6, reason="there is no IPv6 here")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_of_a_listener_for_both_families(proxied: Proxied, host: str) -> None:
    """An IPv4 client of an IPv6 listener has the same address and the same server as elsewhere."""
    servers = [proxied.closes(Listening.tcp(proxied.reactor)) for _ in range(8)]
    by_name = {f"127.0.0.1:{each.port}": each for each in servers}
    await proxied.start(
        listen=r"tcp:0:interface=\:\:", upstreams=list(by_name), balance="source-hash"
    )
    expected = next(proxied.pool.candidates(ConnectionInfo(host, 1))).name
    client = proxied.closes(connect(proxied.reactor, (host, proxied.address[1])))
    port = client.socket.getsockname()[1]
    # With any other server, this would wait forever.
    server = await by_name[expected].accept()
    server.close()
    client.close()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.peer, record.upstream) == (host_and_port(host, port), expected)
