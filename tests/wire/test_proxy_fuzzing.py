"""The fuzzer of PROXY headers: a bounded run with each test run, and its contract can be broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evproxy.wire.proxy_protocol import ProxyHeader, ProxyHeaderReader
from tests.support.programs import requires_module
from tests.support.proxy_contract import assert_contract

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "fuzz" / "corpus" / "proxy_protocol"
RUNS = 5000


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """Every input of the corpus keeps the contract."""
    assert_contract(path.read_bytes())


@pytest.mark.fuzzing
def test_fuzzer(tmp_path: Path) -> None:
    """The fuzzer finds nothing in some thousand inputs, and is guided by coverage."""
    requires_module("atheris")
    new = tmp_path / "new"
    new.mkdir()
    run = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz.proxy_protocol"),
            *(f"-runs={RUNS}", "-seed=1", "-timeout=20", "-max_len=1024", "-rss_limit_mb=1024"),
            *(f"-artifact_prefix={tmp_path}/", new, CORPUS),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert f"Done {RUNS} runs" in run.stdout
    # Without coverage of evproxy's own code there would be a handful of edges, and no new inputs.
    [reached] = re.findall(r"DONE +cov: (\d+)", run.stdout)
    assert int(reached) > 150
    assert any(new.iterdir())


class Impatient(ProxyHeaderReader):
    """Wants the whole header in one piece, as Twisted's wrapper does."""

    def feed(self, data: bytes) -> ProxyHeader | None:
        header = super().feed(data)
        if header is None:
            raise ValueError("cut off")
        return header


class Forgetful(ProxyHeaderReader):
    """Drops what comes behind the header."""

    @property
    def rest(self) -> bytes:
        return b""


class Credulous(ProxyHeaderReader):
    """Raises what is not documented."""

    def feed(self, data: bytes) -> ProxyHeader | None:
        if b"\xff" in data:
            raise IndexError
        return super().feed(data)


@pytest.mark.parametrize(
    ("broken", "data"),
    [
        (Impatient, b"PROXY UNKNOWN\r\n"),
        (Forgetful, b"PROXY UNKNOWN\r\nmore"),
        (Credulous, b"PROXY \xff"),
    ],
)
def test_broken_reader(broken: type[ProxyHeaderReader], data: bytes) -> None:
    """The contract finds a reader that breaks it."""
    assert_contract(data)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        assert_contract(data, broken)
