"""Who may ask the admin interface, and who may change the proxy."""

from __future__ import annotations

import pytest

from evproxy.admin.answers import Problem
from evproxy.admin.guard import Asking, Guard

TOKEN = b"0123456789abcdef"
OPEN = Guard(b"", frozenset({"proxy.internal"}))
CLOSED = Guard(TOKEN, frozenset())
HERE = ("127.0.0.1:8081",)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8081", "[::1]:8081", "[::1]", "10.1.2.3:1", "localhost"),
        *("LOCALHOST:8081", "proxy.internal", "Proxy.Internal:80", "proxy.internal.:80"),
    ],
)
def test_a_name_of_the_interface(host: str) -> None:
    """An address, localhost and a name of the settings may be asked for."""
    OPEN.check(Asking(local=False, changes=False, hosts=(host,)))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8081", "localhost.evil.example", "", "[::1"]
)
def test_another_name(host: str) -> None:
    """A name that an attacker may have given the address of the interface is refused."""
    with pytest.raises(Problem) as raised:
        OPEN.check(Asking(local=False, changes=False, hosts=(host,)))
    assert raised.value.code == 403
    assert str(raised.value).startswith("Host: ")


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1", "127.0.0.1")])
def test_not_one_name(hosts: tuple[str, ...]) -> None:
    """HTTP/1.1 requires one Host (RFC 9112, section 3.2)."""
    with pytest.raises(Problem) as raised:
        OPEN.check(Asking(local=False, changes=False, hosts=hosts))
    assert raised.value.code == 400


def test_no_name_needed() -> None:
    """No browser reaches a UNIX socket, or sends no Host."""
    OPEN.check(Asking(local=True, changes=True, hosts=("anything",)))
    OPEN.check(Asking(local=False, changes=True, old=True))


@pytest.mark.parametrize(
    ("origins", "sites"),
    [
        ((), ()),
        (("http://127.0.0.1:8081",), ("same-origin",)),
        (("https://127.0.0.1:8081",), ()),
        ((), ("none",)),
    ],
)
def test_own_pages(origins: tuple[str, ...], sites: tuple[str, ...]) -> None:
    """Programs, the user, and pages of the interface itself may change the proxy."""
    asking = Asking(local=False, changes=True, hosts=HERE, origins=origins, sites=sites)
    OPEN.check(asking)


@pytest.mark.parametrize(
    ("origins", "sites", "header"),
    [
        (("http://evil.example",), (), "Origin"),
        (("http://127.0.0.1:9999",), (), "Origin"),
        (("null",), (), "Origin"),
        ((), ("cross-site",), "Sec-Fetch-Site"),
        ((), ("same-site",), "Sec-Fetch-Site"),
        (("http://127.0.0.1:8081",), ("cross-site",), "Sec-Fetch-Site"),
    ],
)
def test_pages_of_others(origins: tuple[str, ...], sites: tuple[str, ...], header: str) -> None:
    """A page of another site may not change the proxy; it cannot read an answer anyway."""
    asking = Asking(local=False, changes=True, hosts=HERE, origins=origins, sites=sites)
    with pytest.raises(Problem) as raised:
        OPEN.check(asking)
    assert raised.value.code == 403
    assert str(raised.value).startswith(f"{header}: ")
    OPEN.check(Asking(local=False, changes=False, hosts=HERE, origins=origins, sites=sites))


@pytest.mark.parametrize(
    "credentials",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer 0123456789abcdeX",),
        ("Bearer 0123456789abcde",),
        ("Basic 0123456789abcdef",),
        ("Bearer 0123456789abcdef", "Bearer 0123456789abcdef"),
        ("Bearer \udce9",),
    ],
)
def test_a_wrong_token(credentials: tuple[str, ...]) -> None:
    """With a token file, a request without its token changes nothing, on UNIX sockets too."""
    for local in (False, True):
        with pytest.raises(Problem) as raised:
            CLOSED.check(Asking(local=local, changes=True, hosts=HERE, credentials=credentials))
        assert raised.value.code == 401
        assert raised.value.headers == {"WWW-Authenticate": 'Bearer realm="evproxy"'}


def test_the_right_token() -> None:
    """The token lets a request change the proxy; without it, it can read."""
    credentials = ("bearer 0123456789abcdef",)
    CLOSED.check(Asking(local=False, changes=True, hosts=HERE, credentials=credentials))
    CLOSED.check(Asking(local=False, changes=False, hosts=HERE))
