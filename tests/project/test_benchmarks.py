"""The pure parts of the benchmarks: parsing what load tools print, and the results."""

import json
from pathlib import Path

import pytest

from benchmarks import bar, parsers, picking, report, tls
from benchmarks.measures import ALL as MEASURES
from benchmarks.peers import ALL as PEERS
from benchmarks.peers import Forward, python
from benchmarks.processes import Cores
from benchmarks.results import Results, Spread, Values
from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from evproxy.sockets.tls_certificates import read_certificate

WRK = """\
Running 1m test @ http://127.0.0.1:12000/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   654.28us  112.52us   3.15ms   88.42%
    Req/Sec    75.01k     2.47k   78.20k    80.00%
  Latency Distribution
     50%  636.00us
     75%  701.00us
     90%    1.02ms
     99%    1.08s
  149401 requests in 2.00s, 23.22MB read
"""

STUB_STATUS = """\
Active connections: 51
server accepts handled requests
 60 60 1234
Reading: 0 Writing: 1 Waiting: 50
"""


def results(**samples: list[Values | None]) -> Results:
    """Results of one measure, ``work``, from each peer's samples."""
    return Results({"work": samples})


class TestParsers:
    """The parsers for the output of the load tools."""

    def test_wrk_latency(self) -> None:
        """Percentiles are seconds, whatever unit wrk chose."""
        seen = parsers.wrk(WRK)
        assert seen.latency == pytest.approx({50: 636e-6, 75: 701e-6, 90: 1.02e-3, 99: 1.08})
        assert seen.errors == 0

    def test_wrk_errors(self) -> None:
        """Socket errors and answers that are not 2xx or 3xx add up."""
        text = f"{WRK}  Socket errors: connect 1, read 2, write 3, timeout 4\n"
        text += "  Non-2xx or 3xx responses: 5\n"
        assert parsers.wrk(text).errors == 15

    def test_wrk_failure(self) -> None:
        """Without a distribution, the parser raises an error with the message of wrk."""
        with pytest.raises(parsers.LoadError, match="unable to connect"):
            parsers.wrk("unable to connect to 127.0.0.1:12000 Connection refused")

    def test_stub_status(self) -> None:
        """The parser returns open connections, accepted connections, and requests."""
        assert parsers.stub_status(STUB_STATUS) == parsers.Counters(51, 60, 1234)

    def test_not_stub_status(self) -> None:
        """Any other page is refused."""
        with pytest.raises(parsers.LoadError):
            parsers.stub_status("<h1>404 Not Found</h1>")

    def test_iperf3_both_ways(self) -> None:
        """The bytes received in both directions are added up."""
        end = {
            "sum_sent": {"bytes": 99, "seconds": 9.0},
            "sum_received": {"bytes": 10, "seconds": 1.0},
            "sum_received_bidir_reverse": {"bytes": 20, "seconds": 1.5},
        }
        assert parsers.iperf3(json.dumps({"end": end})) == parsers.BulkLoad(30, 1.5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"error": "the server is busy", "end": {}}', "busy"),
            ('{"end": {}}', "no summary"),
            ("iperf3: not JSON", "not JSON"),
        ],
    )
    def test_iperf3_failure(self, text: str, message: str) -> None:
        """However iperf3 fails, the parser raises the same error, with the message of iperf3."""
        with pytest.raises(parsers.LoadError, match=message):
            parsers.iperf3(text)


class TestResults:
    """Medians and ratios."""

    def test_ratio_is_taken_within_a_round(self) -> None:
        """The ratio is the median of the ratios, not the ratio of the medians."""
        found = results(
            ours=[{"cpu": 1.0}, {"cpu": 4.0}, {"cpu": 9.0}],
            theirs=[{"cpu": 2.0}, {"cpu": 2.0}, {"cpu": 10.0}],
        )
        assert found.ratio("work", "cpu", "ours", "theirs") == Spread(0.9, 0.5, 2.0)

    def test_a_failed_round_has_no_ratio(self) -> None:
        """A round in which either peer failed does not count, and the others do."""
        found = results(
            ours=[None, {"cpu": 4.0}, {"cpu": 6.0}],
            theirs=[{"cpu": 2.0}, {"cpu": 2.0}, None],
        )
        assert found.ratio("work", "cpu", "ours", "theirs") == Spread(2.0, 2.0, 2.0)
        assert found.failures() == [("work", "ours", 1), ("work", "theirs", 1)]

    def test_nothing_measured(self) -> None:
        """A missing measurement has no spread and no ratio."""
        assert Results().spread("work", "ours", "cpu") is None
        assert Results().ratio("work", "cpu", "ours", "theirs") is None

    def test_errors_of_all_rounds(self) -> None:
        """Failed requests are summed over rounds; peers without any are left out."""
        found = results(ours=[{"errors": 2}, None, {"errors": 1}], theirs=[{"errors": 0}])
        assert found.errors() == [("work", "ours", 3)]


class TestBar:
    """Whether the bar is met."""

    @pytest.mark.parametrize(
        ("kib", "outcome"), [(1.5, "stretch met"), (2.5, "met"), (2.51, "missed")]
    )
    def test_outcome(self, kib: float, outcome: str) -> None:
        """A value equal to the bar meets the bar."""
        found = Results({"memory": {bar.SUBJECT: [{"before": kib}]}})
        (verdict,) = bar.verdicts(found)
        assert verdict.outcome == outcome

    def test_ratio_line(self) -> None:
        """A line with a reference is judged by the ratio to it."""
        found = Results({"connections": {"evproxy": [{"cpu": 130.0}], "haproxy": [{"cpu": 100.0}]}})
        (verdict,) = bar.verdicts(found)
        assert (verdict.value.median, verdict.outcome) == (1.3, "met")

    def test_references_are_peers(self) -> None:
        """Every line divides by a peer that exists."""
        names = {peer.name for peer in PEERS}
        assert {line.reference for line in bar.BAR} <= names | {None}


class TestReport:
    """The tables."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0, "0"), (0.2634, "0.263"), (1.234, "1.23"), (15.04, "15.0"), (104.6, "105")],
    )
    def test_three_digits(self, value: float, text: str) -> None:
        """Numbers have three significant digits and no exponent."""
        assert report.number(value) == text

    def test_thousands(self) -> None:
        """Numbers from a thousand on are whole."""
        assert report.number(55076.4) == "55,076"

    def test_missing_value(self) -> None:
        """The table says that a failed peer has no number."""
        found = Results({"connections": {"evproxy": [None], "haproxy": [{"cpu": 70.0}]}})
        text = report.medians(found, PEERS)
        assert "| new connections: CPU per connection, µs | n/a | 70.0 |" in text

    def test_row_without_any_value(self) -> None:
        """A measure without any number is not in the tables."""
        found = Results({"connections": {"evproxy": [{"cpu": 1.0}], "haproxy": [{"cpu": 2.0}]}})
        for text in (report.medians(found, PEERS), report.ratios(found, PEERS, "haproxy")):
            assert "CPU per connection" in text
            assert "connections: connections" not in text

    def test_a_table_has_the_peers_that_took_part(self) -> None:
        """Measures with the same peers share a table; there is no column for the others."""
        both: dict[str, list[Values | None]] = {"evproxy": [{"cpu": 1.0}], "nginx": [{"cpu": 2.0}]}
        found = Results({"bulk-1": both, "connections": {"evproxy": [{"cpu": 3.0}]}})
        first, second = report.medians(found, PEERS).split("\n\n")
        assert first.startswith("|  | evproxy | nginx |\n")
        assert second.startswith("|  | evproxy |\n")
        assert "connections" not in report.ratios(found, PEERS, "nginx")
        assert report.ratios(found, PEERS, "haproxy") == ""

    def test_rounds_that_met_the_bar(self) -> None:
        """The median decides, and the table shows how many rounds met the bar."""
        samples: list[Values | None] = [{"before": kib} for kib in (1.4, 2.4, 2.6)]
        found = Results({"memory": {bar.SUBJECT: [*samples, None]}})
        assert "| 2.40 (1.40 to 2.60) | met | 2 of 4 | 1 of 4 |" in report.bar(found)


class TestCores:
    """The cores of the proxy and of the load."""

    def test_proxy_alone(self) -> None:
        """The proxy has the last core, the load all others."""
        assert Cores.split({0, 1, 2}) == Cores(frozenset({2}), frozenset({0, 1}))

    def test_one_core(self) -> None:
        """A single core is shared."""
        assert Cores.split({3}) == Cores(frozenset({3}), frozenset({3}))


def test_peers_have_measures() -> None:
    """If a peer is restricted to some measures, these measures exist."""
    names = {measure.name for measure in MEASURES}
    assert all((peer.measures or names) <= names for peer in PEERS)


@pytest.mark.parametrize("policy", picking.POLICIES)
def test_picking_has_so_many_servers(policy: str) -> None:
    """The configuration file of each size is good, and has as many different servers."""
    for size in picking.SIZES:
        servers = picking.servers(size, 8000)
        settings = parse(python.configuration({8080: servers}, balance=policy), Surroundings())
        assert len({server.name for server in settings.pools[0].upstreams}) == size
        assert settings.pools[0].balance == policy


def test_evproxy_has_a_pool_behind_each_listener() -> None:
    """One process has a service for each forward, with the relay that is asked for."""
    pools = {8080: ["127.0.0.1:8000"], 8081: ["127.0.0.1:8001"]}
    settings = parse(python.configuration(pools, relay="stream"), Surroundings())
    behind = {pool.name: [each.name for each in pool.upstreams] for pool in settings.pools}
    assert [behind[listener.pool] for listener in settings.listeners] == list(pools.values())
    assert settings.relay == "stream"


def test_every_peer_has_its_forwards(tmp_path: Path) -> None:
    """Each port is in the arguments or in the files of the peer."""
    forwards = [Forward(12001, 12002), Forward(12003, 12004)]
    for peer in PEERS:
        command = peer.command(forwards, tmp_path)
        files = [path.read_text() for path in tmp_path.iterdir()]
        text = " ".join([*command.argv, *files])
        assert all(str(port) in text for port in (12001, 12002, 12003, 12004)), peer.name
        for path in tmp_path.iterdir():
            path.unlink()


def test_the_peers_of_the_tls_measures_end_tls(tmp_path: Path) -> None:
    """Each names the certificate; evproxy's file is good."""
    pem = tls.certificate(tmp_path)
    assert tls.certificate(tmp_path) == pem
    read_certificate(str(pem))
    for peer in PEERS:
        if peer.name in tls.PEERS:
            directory = tmp_path / peer.name
            directory.mkdir()
            peer.command([Forward(12001, 12002, pem)], directory)
            [text] = [path.read_text() for path in directory.iterdir()]
            assert str(pem) in text, peer.name
    settings = parse((tmp_path / "evproxy" / "evproxy.toml").read_text(), Surroundings())
    assert settings.listeners[0].tls is not None
    assert settings.listeners[0].tls.certificates == (str(pem),)
