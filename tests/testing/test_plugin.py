"""The plug-in for pytest, in a pytest of its own, and the examples of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_servers import RealServers, free_port
from tests.support.server_kinds import postgresql, redis

EMPTY = Path(__file__).with_name("empty.ini")
ROOT = Path(__file__).resolve().parents[2]

FAILING = """
import socket

def test_seed(evproxy):
    proxy = evproxy("127.0.0.1", 9)
    raise AssertionError(f"seed is {proxy.seed}")

def test_without():
    raise AssertionError("no proxy")
"""


OPTIONS = ("-q", "-p", "pytest_evproxy", "-p", "no:cacheprovider", "-W", "error")
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Other plug-ins take seconds to import."""


def run_pytest(directory: Path, *arguments: str, **environment: str) -> str:
    """Run pytest on the files in `directory`, without settings of this project."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "-c", str(EMPTY), *arguments, str(directory)],
        cwd=directory,
        env={**os.environ, **ALONE, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ran.stdout + ran.stderr


def seeds_in(output: str) -> list[str]:
    """The seeds of the proxies, as the tests wrote them."""
    return re.findall(r"^E +AssertionError: seed is (\d+)", output, re.MULTILINE)


def test_a_failed_run_can_be_repeated(tmp_path: Path) -> None:
    """The report of a failed test has the seed; with the seed, proxies have the same seeds."""
    (tmp_path / "test_failing.py").write_text(FAILING)
    first = run_pytest(tmp_path)
    assert "2 failed" in first
    [seed] = re.findall(r"to repeat the faults: --evproxy-seed=(\d+)", first)
    second = run_pytest(tmp_path, f"--evproxy-seed={seed}")
    assert seeds_in(first) == seeds_in(second) != []
    assert seeds_in(run_pytest(tmp_path, "--evproxy-seed=1")) != seeds_in(first)


STOPPING = """
from evproxy.testing import ThreadedProxy

stopped = set()

def stop(proxy):
    stopped.add(proxy.port)
    raise RuntimeError("it does not stop")

ThreadedProxy.stop = stop

def test_two_proxies(evproxy):
    evproxy("127.0.0.1", 9)
    evproxy("::1", 9)

def test_both_were_stopped():
    assert len(stopped) == 2
"""


def test_a_proxy_that_does_not_stop(tmp_path: Path) -> None:
    """The others stop nevertheless."""
    (tmp_path / "test_stopping.py").write_text(STOPPING)
    assert "2 passed, 1 error" in run_pytest(tmp_path)


def test_nothing_is_imported_before_a_test_asks() -> None:
    """The plug-in costs a run without proxies nothing, and installs no reactor."""
    code = (
        "import sys, importlib.metadata as m\n"
        "[e] = [e for e in m.entry_points(group='pytest11') if e.name == 'evproxy']\n"
        "e.load()\n"
        "print(sorted(n for n in sys.modules if n.startswith('twisted')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n", ran.stderr


@pytest.mark.peers("redis-server", "postgres", "initdb")
async def test_the_examples(reactor: Any, real_servers: RealServers) -> None:
    """Each example of the documentation is a test that passes."""
    redis_port, postgres_port = free_port(), free_port()
    cache, database = redis(real_servers, redis_port), postgresql(real_servers, postgres_port)
    database.start()
    await cache.started(reactor, redis_port)
    await database.listening(reactor, postgres_port)
    ports = {"REDIS_PORT": str(redis_port), "POSTGRES_PORT": str(postgres_port)}
    output = run_pytest(ROOT / "examples" / "testing", **ports)
    assert re.search(r"^\d+ passed", output, re.MULTILINE), output
    assert "skipped" not in output
    assert "failed" not in output
