"""The keys `faults` and `filters` of a listener."""

from __future__ import annotations

import pytest

from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from evproxy.errors import SettingsError
from evproxy.faults import bandwidth, latency
from evproxy.settings import FaultSettings
from tests.support.configs import SOUND, problems


def listener(line: str) -> str:
    """A configuration file whose first listener has `line`."""
    return SOUND.replace("[[listeners]]", f"[[listeners]]\n{line}", 1)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ('[{kind = "latncy"}]', '[0].kind: expected one of "latency", '),
        ("[{latency = 1.0}]", "[0].kind: required, but missing"),
        ('[{kind = "latency", latency = -1}]', "[0].latency: expected a number of seconds"),
        ('[{kind = "latency", rate = 5}]', '[0].rate: belongs to kind "bandwidth", and this is'),
        ('[{kind = "stall", stream = "up"}]', '[0].stream: expected one of "downstream", '),
        ('[{kind = "stall", probability = 2}]', "[0].probability: expected a number from 0 to 1"),
        ('[{kind = "stall", peer = "10.0.0.1/8"}]', "[0].peer: expected an IP address or a netw"),
        ('[{kind = "stall", every = 2.0}]', "[0].every: has no effect without lasts"),
        (
            '[{kind = "stall", every = 2.0, lasts = 2.0}]',
            "[0].every: must be more than lasts, which is 2",
        ),
        (
            '[{kind = "stall", after_bytes = 9, until_bytes = 9}]',
            "[0].until_bytes: must be more than after_bytes, which is 9",
        ),
        (
            '[{kind = "tls-failure", stream = "downstream"}]',
            '[0].stream: must be "upstream" for kind "tls-failure", got "downstream"',
        ),
        ('[{kind = "hang", stream = "both"}]', '[0].stream: must be "upstream" for kind "hang"'),
        (
            '[{kind = "refused", stream = "both"}]',
            '[0].stream: must be "upstream" or "downstream" for kind "refused", got "both"',
        ),
        ('[{kind = "hang", until_bytes = 9}]', '[0].until_bytes: has no effect for kind "hang"'),
        (
            '[{kind = "limit", bytes = 1}, {kind = "limit", bytes = 2}]',
            '[1].name: the same as faults[0], "limit_downstream": give each a name',
        ),
        ('[{kind = "stall", what = 1}]', "[0].what: unknown key"),
        ('"stall"', ": expected an array of tables"),
    ],
)
def test_wrong_faults(faults: str, expected: str) -> None:
    """Each wrong key of a fault has one line with its path."""
    [problem] = problems(listener(f"faults = {faults}"))
    assert problem.startswith(f"listeners[0].faults{expected}")


def test_contradictions_in_a_fault_that_is_wrong_besides() -> None:
    """One run finds both."""
    fault = '{kind = "hang", stream = "both", probability = 2}'
    first, second = sorted(problems(listener(f"faults = [{fault}]")))
    assert first.startswith("listeners[0].faults[0].probability: ")
    assert second.startswith("listeners[0].faults[0].stream: ")


def test_contradictions_of_a_program() -> None:
    """A program gets them as one error, as for a wrong value."""
    for values, why in (
        ({"kind": "tls-stall", "stream": "both"}, 'stream: must be "upstream" for kind'),
        ({"kind": "latency", "rate": 5}, 'rate: belongs to kind "bandwidth"'),
        ({"kind": "stall", "every": 1.0}, "every: has no effect without lasts"),
        ({"kind": "refused", "after_bytes": 5}, "after_bytes: has no effect for kind"),
    ):
        with pytest.raises(SettingsError, match=why):
            FaultSettings(**values)


def test_the_stream_of_a_fault_that_names_none() -> None:
    """It is that of the kind."""
    streams = {kind: FaultSettings(kind).stream for kind in ("stall", "tls-stall", "hang")}
    assert streams == {"stall": "downstream", "tls-stall": "upstream", "hang": "upstream"}


def test_wrong_filters() -> None:
    """A filter has a module and a name."""
    [problem] = problems(listener('filters = ["Banner"]'))
    assert problem.startswith('listeners[0].filters[0]: expected "MODULE:NAME", got "Banner"')


def test_faults_of_a_file() -> None:
    """The file makes the same values as the functions."""
    text = listener(
        'faults = [{kind = "latency", latency = 0.2, stream = "both"},'
        ' {kind = "bandwidth", rate = 1000, name = "slow"}]\nfaults_seed = 7'
    )
    settings = parse(text, Surroundings()).listeners[0]
    assert settings.faults == (latency(0.2, stream="both"), bandwidth(1000, name="slow"))
    assert settings.faults_seed == 7


def test_wrong_values_in_python() -> None:
    """A wrong value has the message of the file."""
    with pytest.raises(SettingsError, match="latency: expected a number of seconds"):
        latency(-1.0)
    with pytest.raises(SettingsError, match="kind: expected one of"):
        FaultSettings("delay")


def test_faults_of_a_pool() -> None:
    """A pool has the same keys, with the same messages."""
    text = SOUND.replace("[pools.web]", '[pools.web]\nfaults = [{kind = "stall", rate = 1}]', 1)
    [problem] = problems(text)
    assert problem.startswith('pools.web.faults[0].rate: belongs to kind "bandwidth", and this is')
