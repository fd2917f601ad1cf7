"""The recordings of the listeners of a service."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from evproxy import AccessLogSettings, ListenerSettings, PoolSettings, ProxyService, Settings
from evproxy.cli.settings_file import read_settings
from evproxy.config.document import ConfigErrors
from evproxy.hub import Hub
from evproxy.model import UpstreamServer
from tests.recording.test_recordings import read, shown
from tests.support.peers import END
from tests.support.services import ANY_PORT, Ground, until


def settings_with(ground: Ground, **listener: object) -> Settings:
    """The settings of a service in front of the server of `ground`."""
    server = UpstreamServer(f"127.0.0.1:{ground.upstream.port}")
    return Settings(
        listeners=(
            ListenerSettings(ANY_PORT, name="web", **listener),  # type: ignore[arg-type]
        ),
        pools=(PoolSettings(upstreams=(server,)),),
    )


async def test_a_reload_begins_and_ends_recording(ground: Ground, tmp_path: Path) -> None:
    """New sessions are recorded, or not, as the reload says; a running recording goes on."""
    settings = settings_with(ground)
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    await ground.session(service)
    assert service.status().sessions[-1].relay == "socket"
    listener = evolve(settings.listeners[0], record=str(tmp_path))
    await service.reload(evolve(settings, listeners=(listener,)))
    client, server = await ground.session(service)
    await service.reload(settings)
    await ground.session(service)
    assert service.status().sessions[-1].relay == "socket"
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    await service.drain(0)
    (file,) = tmp_path.iterdir()
    session, events = read(file)
    assert (session.listener, session.pool) == ("web", "default")
    assert shown(events) == [
        ("data", "downstream", "?"),
        ("data", "upstream", "!"),
        ("end", "downstream", ""),
        ("end", "upstream", ""),
        ("closed", "", "downstream finished relaying"),
    ]


async def test_nobody_hears_of_sessions_after_the_last_recording(
    ground: Ground, tmp_path: Path
) -> None:
    """Once no listener records, and the last recording has ended, sessions cost what they did."""
    plain = evolve(settings_with(ground), access_log=AccessLogSettings("off"))
    recorded = evolve(settings_with(ground, record=str(tmp_path)), access_log=plain.access_log)
    service = ProxyService.from_settings(ground.reactor, plain)
    ground.services.append(service)
    service.startService()
    hub: Hub = service.listeners[0].factory.context.hub
    assert not hub.ends
    await service.reload(recorded)
    assert hub.ends
    await service.reload(plain)
    await until(ground.reactor, lambda: not hub.ends)
    await service.reload(recorded)
    client, _ = await ground.session(service)
    await service.reload(plain)
    await service.reload(evolve(plain, max_sessions=100))
    assert hub.ends
    client.reset()
    await until(ground.reactor, lambda: not hub.ends)
    await service.reload(recorded)
    client, _ = await ground.session(service)
    await service.reload(plain)
    await service.reload(recorded)
    client.reset()
    await until(ground.reactor, lambda: not service.session_count)
    assert hub.ends
    await service.drain(0)
    ends = [shown(read(file)[1])[-1][0] for file in tmp_path.iterdir()]
    assert ends == ["closed", "closed"]


async def test_a_drain_ends_recordings(ground: Ground, tmp_path: Path) -> None:
    """When the service has drained, the recordings of the last sessions are whole."""
    service = ProxyService.from_settings(
        ground.reactor, settings_with(ground, record=str(tmp_path))
    )
    ground.services.append(service)
    service.startService()
    await ground.session(service)
    await service.drain(0)
    (file,) = tmp_path.iterdir()
    assert shown(read(file)[1])[-1] == ("closed", "", "proxy drain relaying")


def test_the_check_looks_at_the_directory(tmp_path: Path) -> None:
    """The problem has the path of the key; the path is relative to the file."""
    file = tmp_path / "evproxy.toml"
    file.write_text(
        '[[listeners]]\nrecord = "none"\n[pools.default]\nupstreams = ["127.0.0.1:9"]\n'
    )
    with pytest.raises(ConfigErrors) as error:
        read_settings(str(file))
    where = tmp_path / "none"
    assert f"listeners[0].record: {where}: there is no such directory" in str(error.value)
    where.mkdir()
    assert read_settings(str(file)).listeners[0].record == str(where)
