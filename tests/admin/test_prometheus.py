"""A real Prometheus scrapes a real evproxy, and every query of the dashboard has an answer."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_process import ADMIN, LISTEN, port_of
from tests.support.blocking_clients import Upstream
from tests.support.supervised import Supervised
from tests.support.twistd import PATIENCE, ROOT, Running, wait_until

DASHBOARD = ROOT / "examples" / "grafana-dashboard.json"

JOB = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}
scrape_configs:
  - job_name: evproxy
    static_configs: [{{targets: {targets}}}]
"""

SILENT = ("evproxy_clients_refused_total", "evproxy_certificate_expires")
"""Metrics that have no sample until something happens."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE) as found:
        return json.load(found)


@contextmanager
def prometheus(directory: Path, *targets: str) -> Iterator[str]:
    """Run Prometheus in `directory`, which scrapes `targets`, each ``HOST:PORT``; yield its URL."""
    port = free_port()
    config = directory / "prometheus.yml"
    config.write_text(JOB.format(targets=json.dumps(targets)))
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def answered(url: str, query: str) -> list[Any]:
    """Return the result of `query`; an error of Prometheus fails."""
    found = get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    assert found["status"] == "success", found
    result: list[Any] = found["data"]["result"]
    return result


def answered_or_nothing(url: str, query: str) -> list[Any]:
    """Return the result of `query`, none while Prometheus starts."""
    try:
        return answered(url, query)
    except OSError:
        return []


@pytest.mark.peers("prometheus")
def test_every_query_of_the_dashboard(upstream: Upstream, tmp_path: Path) -> None:
    """Each query is right, and has a result for a proxy that has traffic, also with workers."""
    panels = [each for each in json.loads(DASHBOARD.read_text())["panels"] if "targets" in each]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 30
    options = (LISTEN, upstream.option, ADMIN)
    with (
        Running("evproxy", *options, patience=3 * PATIENCE) as one,
        Supervised(*options) as several,
    ):
        instances = [f"127.0.0.1:{port_of(each)}" for each in (one, several)]
        ports = one.port(), several.serves()
        for port in ports:
            upstream.connect(port)
        rates = "sum by (instance) (rate(evproxy_sessions_ended_total[30s])) > 0"
        with prometheus(tmp_path, *instances) as url:

            def rated() -> bool:
                # A rate needs a scrape before a counter grows, and one after.
                for port in ports:
                    client, server = upstream.connect(port)
                    client.close()
                    assert server.recv(1) == b""
                    server.close()
                return len(answered_or_nothing(url, rates)) == len(instances)

            wait_until(rated)
            for instance, query in product(instances, queries):
                concrete = query.replace("$instance", instance).replace("$__rate_interval", "30s")
                result = answered(url, concrete)
                assert result or any(name in query for name in SILENT), (instance, query)
            assert len(answered(url, "up == 1")) == len(instances)
            assert not answered(url, "scrape_samples_scraped < 50")
