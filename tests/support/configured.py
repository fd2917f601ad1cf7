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


class Configured:
    """A configuration file, and what is in it."""

    def __init__(self, directory: Path, server: str) -> None:
        self.path = directory / "evproxy.toml"
        self.option = f"--config={self.path}"
        self._values = {
            "listen": "tcp:0:interface=127.0.0.1",
            "pool": "one",
            "listener": "",
            "server": server,
            "other": server.replace("127.0.0.1", "127.0.0.2"),
            "timeout": "5.0",
            "log": "-",
        }
        self.write()

    def write(self, **values: str) -> None:
        """Replace the file by one with these values."""
        self._values.update(values)
        replace(self.path, CONFIG.format(**self._values))


@pytest.fixture
def configured(tmp_path: Path, upstream: Upstream) -> Configured:
    return Configured(tmp_path, upstream.option.removeprefix("--upstream="))
