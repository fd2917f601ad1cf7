"""Servers from a file: changes arrive, a broken file changes nothing."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from evproxy.settings import Discover
from evproxy.upstream.discovery import file
from evproxy.upstream.discovery.by_kind import discovery_for
from evproxy.upstream.discovery.file import SIZE_LIMIT
from evproxy.upstream.discovery.resolver import Resolver
from tests.support.discovery_recorder import Told
from tests.support.files import replace

OFTEN = 0.02
AT_ONCE = 10.0
"""Seconds in which what is not held up is done, on a machine that is busy."""


def watching(reactor: Any, path: Path) -> tuple[Told, Any]:
    """A discovery of the file at `path` that has started, and what it tells."""
    told = Told()
    discovery = discovery_for(
        reactor, Discover("file", path=str(path), min_interval=OFTEN), Random(1)
    )
    told.source = discovery
    discovery.start(told.changed, told.failed)
    return told, discovery


async def test_changes(reactor: Any, tmp_path: Path) -> None:
    """A file that is replaced, or written in place, is read again, however fast."""
    path = tmp_path / "servers.json"
    replace(path, '{"upstreams": ["a:1"]}')
    told, discovery = watching(reactor, path)
    await told.servers("a:1")
    replace(path, '{"upstreams": ["b:1"]}')
    await told.servers("b:1")
    path.write_text('{"upstreams": ["c:1"]}')
    await told.servers("c:1")
    path.write_text('{"upstreams": ["d:1"]}')
    await told.servers("d:1")
    replace(path, '{"upstreams": []}')
    await told.servers()
    discovery.stop()
    assert told.failures == []
    assert told.problems == (f"no discovered server: {path}: upstreams is empty",)


async def test_toml(reactor: Any, tmp_path: Path) -> None:
    """The name's end tells the format."""
    path = tmp_path / "servers.toml"
    path.write_text('upstreams = ["a:1", {endpoint = "b:1", weight = 3}]')
    told, discovery = watching(reactor, path)
    servers = await told.servers("a:1", "b:1")
    discovery.stop()
    assert [server.weight for server in servers] == [1, 3]


async def test_broken(reactor: Any, tmp_path: Path) -> None:
    """A broken file is told once for each way in which it is broken; the last set stays."""
    path = tmp_path / "servers.toml"
    replace(path, 'upstreams = ["a:1"]')
    told, discovery = watching(reactor, path)
    await told.servers("a:1")
    for text in ["upstreams = [", "upstreams = 1", "upstreams = 2"]:
        replace(path, text)
        if text != "upstreams = 2":
            await told.failure()
    path.unlink()
    assert (await told.failure()).endswith("no such file or directory")
    path.mkdir()
    assert (await told.failure()).endswith("is a directory")
    path.rmdir()
    assert (await told.failure()).endswith("no such file or directory")
    assert len(told.sets) == 1
    replace(path, 'upstreams = ["a:1"]')
    await told.until(lambda: len(told.sets) == 2)
    discovery.stop()
    assert len(told.failures) == 5
    assert all(failure.startswith(f"{path}: ") for failure in told.failures)


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.write_bytes(b"#" * (SIZE_LIMIT + 1))]
)
async def test_unreadable(reactor: Any, tmp_path: Path, make: Any) -> None:
    """A FIFO without a writer, or a huge file, is broken and blocks nothing."""
    path = tmp_path / "servers.toml"
    make(path)
    told, discovery = watching(reactor, path)
    reason = await told.failure()
    discovery.stop()
    assert reason.endswith(("it is not a regular file", f"it is longer than {SIZE_LIMIT} bytes"))


async def test_bad_item(reactor: Any, tmp_path: Path) -> None:
    """An item that is no server is left out and told; a file of such items alone is broken."""
    path = tmp_path / "servers.json"
    replace(path, '{"upstreams": ["a:1", "carrier:pigeon", "b:1"]}')
    told, discovery = watching(reactor, path)
    await told.servers("a:1", "b:1")
    [problem] = told.problems
    assert problem.startswith(f"left out: {path}: upstreams[1]: ")
    replace(path, '{"upstreams": ["a:1", "c:1"]}')
    await told.servers("a:1", "c:1")
    assert (told.problems, told.failures) == ((), [])
    replace(path, '{"upstreams": ["carrier:pigeon", 7]}')
    reason = await told.failure()
    discovery.stop()
    assert reason.startswith(f"no usable server: {path}: upstreams[0]: ")
    assert reason.endswith(" (and 1 more)")
    assert told.endpoints() == ["a:1", "c:1"]


async def test_stop_at_once(reactor: Any, tmp_path: Path) -> None:
    """Stopped before the first look is over, it tells nothing."""
    path = tmp_path / "servers.toml"
    path.write_text('upstreams = ["a:1"]')
    told, discovery = watching(reactor, path)
    discovery.stop()
    assert told == Told()


async def test_the_pool_of_the_reactor_does_not_matter(reactor: Any, tmp_path: Path) -> None:
    """A file, and resolv.conf, are read while every thread of the reactor's pool is taken."""
    end = threading.Event()
    pool = reactor.getThreadPool()
    blocked = [deferToThreadPool(reactor, pool, end.wait) for _ in range(pool.max)]
    path = tmp_path / "servers.toml"
    path.write_text('upstreams = ["a:1"]')
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 192.0.2.1")
    told, discovery = watching(reactor, path)
    try:
        await Deferred.fromCoroutine(told.servers("a:1")).addTimeout(AT_ONCE, reactor)
        resolver = Resolver(reactor, resolv_conf=str(resolv_conf))
        asking = Deferred.fromCoroutine(resolver.nameservers())
        assert await asking.addTimeout(AT_ONCE, reactor) == (("192.0.2.1", 53),)
    finally:
        discovery.stop()
        end.set()
        for each in blocked:
            await each


async def test_a_file_that_hangs_holds_up_no_other(
    reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one file cannot be read at all, as on a dead network mount, others are."""
    end = threading.Event()
    began = threading.Event()
    read = file.read_if_changed

    def read_or_hang(path: str, known: Any) -> Any:
        if path.endswith("hangs.toml"):
            began.set()
            end.wait()
        return read(path, known)

    monkeypatch.setattr(file, "read_if_changed", read_or_hang)
    hanging = [watching(reactor, tmp_path / "hangs.toml") for _ in range(20)]
    path = tmp_path / "servers.toml"
    path.write_text('upstreams = ["a:1"]')
    told, discovery = watching(reactor, path)
    try:
        await Deferred.fromCoroutine(told.servers("a:1")).addTimeout(AT_ONCE, reactor)
        assert began.is_set()
    finally:
        for each in [discovery, *(each for _, each in hanging)]:
            each.stop()
        end.set()
    assert all(each == Told() for each, _ in hanging)
