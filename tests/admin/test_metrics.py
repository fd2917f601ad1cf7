"""The metrics of a proxy with real sessions."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy import (
    AdminSettings,
    HealthCheck,
    ListenerSettings,
    Pool,
    PoolSettings,
    ProxyService,
    Settings,
    UpstreamServer,
)
from evproxy.admin import metrics as metrics_module
from evproxy.admin.scopes import SCOPES
from evproxy.observe.metrics.declared import DECLARED
from evproxy.observe.metrics.family import Family
from tests.support.admin import ANY_PORT, Admin, Response
from tests.support.peers import RESET, Listening
from tests.support.proxies import Observed
from tests.support.services import Ground, until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Samples:
    """The samples of one answer, by their name and labels."""

    def __init__(self, answer: Response) -> None:
        assert answer.code == 200, answer.body
        self.text = answer.body.decode()
        self.families = {each.name: each for each in text_string_to_metric_families(self.text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of the sample with exactly these labels."""
        found = self._values[name, frozenset(labels.items())]
        return found


async def scrape(admin: Admin, query: str = "") -> Samples:
    return Samples(await admin.get(f"/metrics{query}"))


def serving(ground: Ground, **settings: Any) -> tuple[ProxyService, Admin, str]:
    """A running service, its admin interface, and the name of its server."""
    service = ground.service(admin=ANY_PORT, **settings)
    service.startService()
    return service, Admin(ground.reactor, service), f"127.0.0.1:{ground.upstream.port}"


async def test_sessions(ground: Ground) -> None:
    """Live sessions count at once, and the facts about ended ones once they have ended."""
    observed = Observed()
    service, admin, server = serving(ground, observers=[observed])
    listener = ANY_PORT
    client, peer = await ground.session(service)
    live = await scrape(admin)
    assert live("evproxy_sessions", listener=listener, phase="relaying") == 1
    assert live("evproxy_sessions_started_total", listener=listener) == 1
    assert live("evproxy_bytes_to_upstream_total", listener=listener) == 1
    assert live("evproxy_server_bytes_to_downstream_total", pool="default", server=server) == 1
    assert live("evproxy_session_duration_seconds_count", listener=listener) == 0
    await client.send(b"x" * 1000)
    await peer.receive(1000)
    client.reset()
    assert await peer.rest() == (b"", RESET)
    await observed.ended()
    ended = await scrape(admin)
    assert ended("evproxy_sessions", listener=listener, phase="relaying") == 0
    assert ended("evproxy_sessions_started_total", listener=listener) == 1
    reason = {"by": "downstream", "how": "reset", "phase": "relaying"}
    assert ended("evproxy_sessions_ended_total", listener=listener, **reason) == 1
    assert ended("evproxy_bytes_to_upstream_total", listener=listener) == 1001
    assert ended("evproxy_server_bytes_to_upstream_total", pool="default", server=server) == 1001
    assert ended("evproxy_server_connects_total", pool="default", server=server) == 1
    for name in ("session_duration", "connect_time", "first_byte_time"):
        assert ended(f"evproxy_{name}_seconds_count", listener=listener) == 1
        assert ended(f"evproxy_{name}_seconds_bucket", listener=listener, le="+Inf") == 1


async def test_servers_and_pools(ground: Ground) -> None:
    """Failed connects, checks and states count for their server."""
    gone = Listening.tcp(ground.reactor)
    dead = f"127.0.0.1:{gone.port}"
    gone.close()
    alive = f"127.0.0.1:{ground.upstream.port}"
    check = HealthCheck("tcp", interval=0.05, fall=1)
    pool = Pool(ground.reactor, [dead, alive], name="web", health_check=check)
    service = ground.service(pool=pool, admin=ANY_PORT)
    service.pools["web"] = service.pools.pop("default")
    pool.hear_if_nobody_does(service.tally)  # type: ignore[arg-type]
    service.startService()
    admin = Admin(ground.reactor, service)
    await until(ground.reactor, lambda: {each.state for each in pool.servers} == {"up", "down"})
    await until(ground.reactor, lambda: pool.server_named(alive).checks_passed > 0)
    found = await scrape(admin)
    key = {"pool": "web", "server": dead}
    assert found("evproxy_server_state", **key, state="down") == 1
    assert found("evproxy_server_state", **key, state="up") == 0
    assert found("evproxy_server_checks_total", **key, result="failed") >= 1
    assert found("evproxy_server_checks_total", pool="web", server=alive, result="passed") >= 1
    assert found("evproxy_pool_servers", pool="web", state="down") == 1
    assert found("evproxy_pool_servers", pool="web", state="up") == 1


async def test_refused_clients(ground: Ground) -> None:
    """Clients without a session count by the reason."""
    settings = Settings(
        listeners=(ListenerSettings(ANY_PORT, name="web", deny=("127.0.0.1",)),),
        pools=(PoolSettings(upstreams=(UpstreamServer("127.0.0.1:1"),)),),
        admin=AdminSettings(ANY_PORT),
    )
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    assert await ground.client(service).rest() == (b"", RESET)
    found = await scrape(Admin(ground.reactor, service))
    assert found("evproxy_clients_refused_total", listener="web", reason="denied") == 1


async def test_flow_control(ground: Ground) -> None:
    """A client that does not read makes its server wait, whichever relay moves the bytes."""
    for relay in ("socket", "stream"):
        service, admin, _ = serving(ground, relay=relay)
        client, server = await ground.session(service)
        while server.send_now(bytes(65536)):
            await until(ground.reactor, lambda: True)
        for _ in range(1000):
            found = await scrape(admin, "?scope=relay")
            if found("evproxy_flow_control_pauses_total"):
                break
            server.send_now(bytes(65536))
            await deferLater(ground.reactor, 0.01)
        assert found("evproxy_flow_control_pauses_total") >= 1
        if relay == "socket":
            assert found("evproxy_kept_bytes") > 0
        assert found("evproxy_pipes_max") > 0
        client.reset()
        server.close()


async def test_the_process(ground: Ground) -> None:
    """The process has the metrics that every program with prometheus-client has."""
    _, admin, _ = serving(ground)
    found = await scrape(admin, "?scope=process")
    assert found("process_cpu_seconds_total") > 0
    assert 0 < found("process_open_fds") < found("process_max_fds")
    assert found("python_gc_collections_total", generation="2") >= 0


async def test_every_declared_metric_is_there(ground: Ground) -> None:
    """An answer has every family of the table, once, with the kind that the table says."""
    _, admin, _ = serving(ground)
    found = await scrape(admin)
    for declared in DECLARED:
        assert found.text.count(f"# TYPE {declared.name} {declared.kind}\n") == 1
        assert found.text.count(f"# HELP {declared.name} ") == 1


async def test_scopes(ground: Ground) -> None:
    """Each scope has the families that are declared for it, and no others."""
    _, admin, _ = serving(ground)
    for scope in SCOPES:
        text = (await scrape(admin, f"?scope={scope}")).text
        for declared in DECLARED:
            assert (f"# TYPE {declared.name} " in text) is (declared.scope == scope)
    both = (await scrape(admin, "?scope=proxy&scope=relay")).text
    assert "evproxy_draining" in both
    assert "evproxy_pipes_max" in both
    assert "evproxy_sessions" not in both
    refused = await admin.get("/metrics?scope=nosuch")
    assert refused.code == 400
    assert refused.error.startswith('scope: expected one of "proxy"')


async def test_openmetrics(ground: Ground) -> None:
    """A client that accepts OpenMetrics gets it, and its strict parser accepts the answer."""
    service, admin, _ = serving(ground)
    await ground.session(service)
    for port in range(1, 100):
        service.pools["default"].add(f"127.0.0.1:{port}")
    answer = await admin.get("/metrics", Accept=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    text = answer.body.decode()
    assert text.endswith("# EOF\n")
    assert text.count("# EOF") == 1
    names = [each.name for each in openmetrics_families(text)]
    assert len(set(names)) == len(names)
    assert {each.name.removesuffix("_total") for each in DECLARED} <= set(names)
    plain = await admin.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.peers("promtool")
async def test_promtool(ground: Ground) -> None:
    """Prometheus' own linter finds nothing, with sessions, failures and labels from outside."""
    service, admin, _ = serving(ground)
    client, _ = await ground.session(service)
    client.reset()
    for name in ('unix:/run/a"b.sock', "unix:/run/ä.sock"):
        service.pools["default"].add(name)
    text = (await admin.get("/metrics")).body
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_many_servers(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers beyond the bound are counted, and have no metrics of their own."""
    monkeypatch.setattr(metrics_module, "MOST_SERVERS_MEASURED", 10)
    service, admin, _ = serving(ground)
    for port in range(1, 50):
        service.pools["default"].add(f"127.0.0.1:{port}")
    found = await scrape(admin)
    assert found("evproxy_servers_left_out") == 40
    assert found("evproxy_pool_servers", pool="default", state="up") == 50
    assert len(found.families["evproxy_server_weight"].samples) == 10


async def test_a_reload_meanwhile(ground: Ground) -> None:
    """A scrape in slices has the pools of its begin, while others join and leave."""
    service, admin, server = serving(ground)
    for port in range(1, 300):
        service.pools["default"].add(f"127.0.0.1:{port}")
    scraping = Deferred.fromCoroutine(scrape(admin, "?scope=pools"))
    while not scraping.called:
        name = f"other{len(service.pools)}"
        service.pools[name] = Pool(ground.reactor, [server], name=name)
        await deferLater(ground.reactor, 0)
    found = await scraping
    assert found("evproxy_pool_servers", pool="default", state="up") == 300


async def test_counters_grow(ground: Ground) -> None:
    """While sessions come and go, no counter gets smaller from one scrape to the next."""
    service, admin, _ = serving(ground)
    before: dict[Any, float] = {}
    for _ in range(10):
        client, server = await ground.session(service)
        await client.send(b"x" * 100)
        await server.receive(100)
        client.reset()
        found = await scrape(admin)
        for family in found.families.values():
            for sample in family.samples if family.type == "counter" else ():
                key = (sample.name, *sorted(sample.labels.items()))
                assert sample.value >= before.get(key, 0)
                before[key] = sample.value


async def test_a_source_of_ones_own(ground: Ground) -> None:
    """A program adds families of its own to a scope."""
    service, admin, _ = serving(ground)
    family = Family("own_total", "counter", "Own.", [("", (("a", "b"),), 7)])
    service.metric_sources.append(("loop", lambda: [family]))
    assert (await scrape(admin, "?scope=loop"))("own_total", a="b") == 7


async def test_it_can_be_off(ground: Ground) -> None:
    """Without metrics, there is nothing at /metrics; without an admin interface, nothing counts."""
    service = ground.service(admin=AdminSettings(ANY_PORT, metrics=False))
    service.startService()
    assert (await Admin(ground.reactor, service).get("/metrics")).code == 404
    assert ground.service().tally is None


def test_the_dashboard_is_in_the_examples() -> None:
    """Each panel of the dashboard asks for metrics that exist."""
    path = Path(__file__).resolve().parents[2] / "examples" / "grafana-dashboard.json"
    panels = [each for each in json.loads(path.read_text())["panels"] if "targets" in each]
    names = {each.name for each in DECLARED}
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"evproxy_\w+", target["expr"])
    }
    known = names | {
        f"{each.name}{suffix}"
        for each in DECLARED
        if each.kind == "histogram"
        for suffix in ("_bucket", "_sum", "_count")
    }
    assert asked <= known
    assert len(asked) > 25
