"""Discovery that finds evproxy's own listeners: sessions would come back without an end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evproxy import ListenerSettings, PoolSettings, ProxyService, Settings, UpstreamServer
from evproxy.settings import Discover
from tests.support.real_servers import free_port
from tests.support.services import Ground, until


class Told:
    """A `PoolObserver` of discovery."""

    def __init__(self) -> None:
        self.incomplete: list[str] = []
        self.failed: list[str] = []

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None: ...

    def pool_exhausted(self, pool: str, why: str) -> None: ...

    def discovery_recovered(self, pool: str) -> None: ...

    def discovery_incomplete(self, pool: str, why: str) -> None:
        self.incomplete.append(why)

    def discovery_failed(self, pool: str, why: str) -> None:
        self.failed.append(why)


class Loop:
    """A service with a listener whose pool may find it, and what it was told."""

    def __init__(self, ground: Ground, directory: Path, *, inner: bool) -> None:
        self.ports = free_port(), free_port()
        self.server = f"127.0.0.1:{ground.upstream.port}"
        self.path = directory / "servers.json"
        self.find(self.server)
        listens = [f"tcp:{port}:interface=127.0.0.1" for port in self.ports]
        discover = Discover("file", path=str(self.path), min_interval=0.05)
        found = PoolSettings(name="found", discover=discover)
        # The other listener leads back to the first one.
        first = UpstreamServer(f"127.0.0.1:{self.ports[0]}")
        back = PoolSettings(name="back", upstreams=(first,))
        settings = Settings(
            listeners=(
                ListenerSettings(listens[0], pool="found"),
                ListenerSettings(listens[1], pool="back"),
            ),
            pools=(found, back),
        )
        self.own = f"127.0.0.1:{self.ports[1 if inner else 0]}"
        self.told = Told()
        self.service = ProxyService.from_settings(ground.reactor, settings, observers=[self.told])
        ground.services.append(self.service)
        self.service.startService()

    def find(self, *servers: str) -> None:
        """Have discovery find `servers`."""
        other = self.path.with_suffix(".new")
        other.write_text(json.dumps({"upstreams": servers}))
        other.rename(self.path)

    @property
    def names(self) -> list[str]:
        """The servers of the pool."""
        return [each.name for each in self.service.pools["found"].each_server()]


@pytest.mark.parametrize("inner", [False, True])
async def test_a_listener_that_discovery_finds(ground: Ground, tmp_path: Path, inner: bool) -> None:
    """It is left out, and the log says why; a set of it alone changes nothing."""
    loop = Loop(ground, tmp_path, inner=inner)
    await until(ground.reactor, lambda: loop.names == [loop.server])
    loop.find(loop.server, loop.own, "127.0.0.1:9")
    await until(ground.reactor, lambda: sorted(loop.names) == sorted([loop.server, "127.0.0.1:9"]))
    first = f"tcp:{loop.ports[0]}:interface=127.0.0.1"
    reason = f'"{loop.own}" leads back to the listener "{first}"'
    assert loop.told.incomplete == [f"left out: {reason}"]
    loop.find(loop.own)
    await until(ground.reactor, lambda: bool(loop.told.failed))
    assert loop.told.failed == [f"no usable server: {reason}"]
    assert len(loop.names) == 2
