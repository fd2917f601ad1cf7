"""A configuration file for a proxy in another process, which a test changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.blocking_clients import Upstream
from tests.support.files import replace

CONFIG = """
[[listeners]]
name = "web"
listen = "{listen}"
pool = "{pool}"
{listener}

[pools.one]
upstreams = ["{server}"]
connect_timeout = {timeout}

[pools.two]
upstreams = ["{server}", {{endpoint = "{other}", weight = 2}}]

[access_log]
path = "{log}"
"""


class ConfigFile:
    """
    A configuration file, and what is in it.

    :param template: its text, with a field for each of `values`.
    """

    def __init__(self, directory: Path, template: str, **values: str) -> None:
        self.path = directory / "evproxy.toml"
        self.option = f"--config={self.path}"
        self._template = template
        self._values = values
        self.write()

    def write(self, **values: str) -> None:
        """Replace the file by one with these values."""
        self._values.update(values)
        replace(self.path, self._template.format(**self._values))


def configured_for(directory: Path, server: str, workers: int = 1) -> ConfigFile:
    """A file whose two pools lead to `server`, ``HOST:PORT``."""
    return ConfigFile(
        directory,
        f"workers = {workers}\n{CONFIG}",
        listen="tcp:0:interface=127.0.0.1",
        pool="one",
        listener="",
        server=server,
        other=server.replace("127.0.0.1", "127.0.0.2"),
        timeout="5.0",
        log="-",
    )


@pytest.fixture
def configured(tmp_path: Path, upstream: Upstream) -> ConfigFile:
    return configured_for(tmp_path, upstream.option.removeprefix("--upstream="))
