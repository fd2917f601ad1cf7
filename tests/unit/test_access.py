"""Who may connect, and the files that list networks."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.policy.access import Access
from evproxy.policy.address_number import address_number
from evproxy.policy.network_list import MOST_LINES, MOST_PROBLEMS, NetworkListError, read_networks
from evproxy.policy.networks import Networks
from evproxy.policy.refusal import Refusal

A, B, UNIX = address_number("10.0.0.1"), address_number("2001:db8::1"), None
DENIED, NOT_ALLOWED = Refusal.DENIED, Refusal.NOT_ALLOWED


@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        (None, [], (None, None, None)),
        (["10.0.0.0/8"], [], (None, NOT_ALLOWED, None)),
        (["::/0"], [], (NOT_ALLOWED, None, None)),
        (None, ["10.0.0.0/8"], (DENIED, None, None)),
        (["10.0.0.0/8"], ["10.0.0.1"], (DENIED, NOT_ALLOWED, None)),
        (["0.0.0.0/0", "::/0"], ["0.0.0.0/0", "::/0"], (DENIED, DENIED, None)),
        ([], [], (NOT_ALLOWED, NOT_ALLOWED, None)),
    ],
)
def test_access(
    allow: list[str] | None, deny: list[str], expected: tuple[Refusal | None, ...]
) -> None:
    """Deny comes first; without an allow list everyone may connect; UNIX clients always may."""
    access = Access(None if allow is None else Networks(allow), Networks(deny))
    assert tuple(map(access.refusal, (A, B, UNIX))) == expected


def test_a_list() -> None:
    """A list has a network in each line, comments, blank lines, and any line ends."""
    text = "# page\fbreak\r\n10.0.0.0/8  # office\r\n\r\n\t::1\f\n192.0.2.1"
    networks = read_networks(text)
    assert len(networks) == 3
    for host in ("10.1.2.3", "::1", "192.0.2.1"):
        number = address_number(host)
        assert number is not None
        assert number in networks
    assert len(read_networks("")) == 0


def test_problems_of_a_list() -> None:
    """Every wrong line is named, up to a bound; what it says stays on one line."""
    with pytest.raises(NetworkListError) as caught:
        read_networks("10.0.0.0/8\n10.0.0.1/8\n\n::1 # fine\nma\x1bn\n")
    assert caught.value.problems == (
        'line 2: "10.0.0.1/8": did you mean 10.0.0.0/8?',
        'line 5: "ma\\u001bn": it is not an IP address or a network',
    )
    assert str(caught.value) == caught.value.problems[0] + " (and 1 more)"
    with pytest.raises(NetworkListError) as caught:
        read_networks("no\n" * 50)
    assert len(caught.value.problems) == MOST_PROBLEMS
    assert str(caught.value).endswith("(and 49 more)")


def test_bounds_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of as many lines and bytes as allowed is read, and a longer one is refused."""
    read_networks("\n" * MOST_LINES)
    with pytest.raises(NetworkListError, match=r"^the list has more than 1000000 lines$"):
        read_networks("\n" * MOST_LINES + "#")
    monkeypatch.setattr("evproxy.policy.network_list.MOST_BYTES", 10)
    assert len(read_networks("10.0.0.0/8")) == 1
    with pytest.raises(NetworkListError, match=r"^the list has more than 10 bytes$"):
        read_networks("10.0.0.0/8\n")


LINES = st.text("0123456789abcdef:.%/# \t\r\f", max_size=30)


@given(st.lists(st.one_of(LINES, st.text()), max_size=8).map("\n".join))
def test_any_list_is_read_or_refused(text: str) -> None:
    """Any text is a list or raises the one documented error."""
    with suppress(NetworkListError):
        read_networks(text)
