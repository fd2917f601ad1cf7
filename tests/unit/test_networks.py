"""Addresses as numbers, and sets of networks."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evproxy.policy.address_number import IPV6, address_number
from evproxy.policy.intervals import Intervals
from evproxy.policy.networks import Networks, network_fault

ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.ip_addresses(v=4).map("::ffff:{}".format),
    st.ip_addresses(v=4).map("64:ff9b::{}".format),
    st.ip_addresses(v=6).map("{}%eth0".format),
)
NEARLY = st.text("0123456789abcdefABCDEF:.%xg+-_ \t\n٣", max_size=45)


def reference(host: str) -> int | None:
    """What `address_number` is, by `ipaddress`."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return int(address)
    mapped = address.ipv4_mapped
    return IPV6 + int(address) if mapped is None else int(mapped)


@pytest.mark.parametrize(
    ("host", "number"),
    [
        ("0.0.0.0", 0),
        ("10.0.0.1", 0x0A000001),
        ("255.255.255.255", 2**32 - 1),
        ("::", IPV6),
        ("::1", IPV6 + 1),
        ("0:0:0:0:0:0:0:1", IPV6 + 1),
        ("::ffff:10.0.0.1", 0x0A000001),
        ("::FFFF:a00:1", 0x0A000001),
        ("::10.0.0.1", IPV6 + 0x0A000001),
        ("2001:db8::", IPV6 + (0x20010DB8 << 96)),
        ("fe80::1%eth0", IPV6 + (0xFE80 << 112) + 1),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 2 * IPV6 - 1),
    ],
)
def test_numbers(host: str, number: int) -> None:
    """IPv4 comes first, then IPv6; a mapped address is IPv4, and a zone does not count."""
    assert address_number(host) == number


@pytest.mark.parametrize(
    "host",
    [
        *("", "/run/client.sock", "10.0.0", "10.0.0.1.2", "10.0.0.256", "010.0.0.1", "1.2.3.4 "),
        *("1.2.3.٣", "+1.2.3.4", "1_0.2.3.4", ":", ":::", "1::2::3", ":1::2", "1::2:", "1:2:3"),
        *("1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "12345::", "g::", "::1 ", " 1::", "::\t1\t2"),
        *("0x1::", "::1_2", "[::1]", "::1%", "::1%a%b", "::ffff:10.0.0", "::\t\t12"),
    ],
)
def test_other_texts_have_no_number(host: str) -> None:
    """What is not exactly an IP address has no number."""
    assert address_number(host) is None
    assert reference(host) is None


@given(st.one_of(ADDRESSES, NEARLY, st.text(max_size=20)))
@example("1:2:3:4:5:6::8")
def test_numbers_agree_with_ipaddress(host: str) -> None:
    """Every text has the number that `ipaddress` gives, or none."""
    assert address_number(host) == reference(host)


SPANS = st.tuples(st.integers(0, 300), st.integers(1, 40)).map(lambda it: (it[0], sum(it)))
FAR = st.integers(0, 2**128 - 1).map(lambda first: (first, first + 1))


@given(st.lists(st.one_of(SPANS, FAR), max_size=30))
def test_intervals_are_sets(spans: list[tuple[int, int]]) -> None:
    """A number is in the set exactly if an interval has it, at every edge too."""
    intervals = Intervals(spans)
    for number in {edge + step for span in spans for edge in span for step in (-1, 0, 1)}:
        assert (number in intervals) is any(first <= number < end for first, end in spans)
    merged = list(intervals)
    assert len(merged) == len(intervals)
    assert all(end < first for (_, end), (first, _) in pairwise(merged))
    assert list(Intervals(merged)) == merged


def networks_around(address: IPv4Address | IPv6Address) -> st.SearchStrategy[str]:
    """Networks of all sizes that have the address, and single ones."""
    lengths = st.integers(0, address.max_prefixlen)
    return lengths.map(lambda length: str(ip_network(f"{address}/{length}", strict=False)))


NEAR = st.one_of(
    st.integers(0x0A000000, 0x0A00001F).map(IPv4Address),
    st.integers(2**32 - 16, 2**32 - 1).map(IPv4Address),
    st.integers(0x20010DB8 << 96, (0x20010DB8 << 96) + 31).map(IPv6Address),
    st.integers(0, 16).map(IPv6Address),
    st.ip_addresses(),
)


@given(st.lists(NEAR.flatmap(networks_around), max_size=12), st.lists(NEAR, min_size=1))
def test_membership_agrees_with_ipaddress(
    texts: list[str], addresses: list[IPv4Address | IPv6Address]
) -> None:
    """An address is in the set exactly if it is in a network of the list, however they overlap."""
    networks = Networks(texts)
    naive = [ip_network(text) for text in texts]
    halves = Networks(texts[::2]) | Networks(texts[1::2])
    assert len(halves) == len(networks) <= len(texts)
    for address in addresses:
        number = reference(str(address))
        assert number is not None
        # To `ipaddress`, a mapped address is in ::/0 and not in 0.0.0.0/0.
        member = ip_address(number) if number < IPV6 else address
        expected = any(member in network for network in naive)
        assert (number in networks) is expected
        assert (number in halves) is expected


@pytest.mark.parametrize(
    ("texts", "host", "expected"),
    [
        ([], "10.0.0.1", False),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.0.0.0/8"], "10.255.255.255", True),
        (["10.0.0.0/8"], "11.0.0.0", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["::ffff:10.0.0.0/104"], "10.0.0.1", True),
        (["::ffff:0:0/96"], "192.0.2.1", True),
        (["0.0.0.0/0"], "255.255.255.255", True),
        (["0.0.0.0/0"], "::1", False),
        (["::/0"], "::1", True),
        (["::/0"], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", True),
        (["::/0"], "10.0.0.1", False),
        (["::/0"], "::ffff:10.0.0.1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["10.0.0.0/9", "10.128.0.0/9"], "10.128.0.0", True),
        (["10.0.0.0/8", "10.1.0.0/16"], "10.2.0.0", True),
    ],
)
def test_membership(texts: list[str], host: str, expected: bool) -> None:
    """Which address is in which networks."""
    number = address_number(host)
    assert number is not None
    assert (number in Networks(texts)) is expected


def test_neighbours_are_merged() -> None:
    """Adjacent, nested and repeated networks become one."""
    texts = ["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "10.0.0.0/9", "2001:db8::/32", "::1"]
    assert len(Networks(texts)) == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("10.0.0.0/8", None),
        ("10.0.0.1", None),
        ("2001:DB8::/32", None),
        ("::/0", None),
        ("::ffff:10.0.0.0/104", None),
        ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        ("2001:db8::1/32", "did you mean 2001:db8::/32?"),
        ("10.0.0.0/255.0.0.0", "did you mean 10.0.0.0/8?"),
        ("10.0.0.0/08", "did you mean 10.0.0.0/8?"),
        ("fe80::1%eth0", "it has a zone"),
        ("fe80::%eth0/64", "it has a zone"),
        ("10.0.0.0/33", "it is not an IP address or a network"),
        ("::/129", "it is not an IP address or a network"),
        ("10.0.0.0/", "it is not an IP address or a network"),
        ("10.0.0.0/-1", "it is not an IP address or a network"),
        ("10.0.0.0/8/8", "it is not an IP address or a network"),
        ("10.0.0.0 /8", "it is not an IP address or a network"),
        ("10.0.0.1:80", "it is not an IP address or a network"),
        ("example.org", "it is not an IP address or a network"),
        ("", "it is not an IP address or a network"),
    ],
)
def test_faults_of_networks(text: str, fault: str | None) -> None:
    """A text that is no network has a reason, and a hint where the network is clear."""
    assert network_fault(text) == fault
    if fault is not None:
        with pytest.raises(ValueError, match=re.escape(f": {fault}")):
            Networks(["10.0.0.0/8", text])


@given(st.one_of(NEAR.flatmap(networks_around), ADDRESSES, NEARLY, st.text()))
def test_accepted_networks_are_networks(text: str) -> None:
    """What has no fault is a network of `ipaddress`, and the other way around but for spelling."""
    fault = network_fault(text)
    if fault is None:
        ip_network(text)
        Networks([text])
    elif fault.startswith("did you mean "):
        assert network_fault(fault.removeprefix("did you mean ").removesuffix("?")) is None
