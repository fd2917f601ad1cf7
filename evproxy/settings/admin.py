"""
The settings of the admin interface.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from evproxy.config.addresses import domain_fault
from evproxy.config.declare import setting
from evproxy.config.descriptions import OptionalServerDescription
from evproxy.config.rules import FilePath, Flag, Judged, Many
from evproxy.settings.listener import GROUP, MODE, USER


@frozen
class AdminSettings:
    """Where operators and programs ask about the proxy, and change it while it runs."""

    BELOW: ClassVar[str] = "admin"

    listen: str = setting(
        OptionalServerDescription(),
        "Where the [admin interface](admin.md) listens: a Twisted server endpoint description, "
        "such as `tcp:8081:interface=127.0.0.1` or `unix:/run/evproxy/admin.sock`. Empty: there "
        "is no admin interface.",
        default="",
        option="admin",
        # The code that makes the endpoint gives a better message.
        checked=False,
    )
    token_file: str = setting(
        FilePath("a path", ".*"),
        "A file with the [token](admin.md#who-may-change-the-proxy) that a request needs to "
        "change the proxy. Required if machines other than this one can connect.",
        default="",
        option="admin-token-file",
    )
    metrics: bool = setting(
        Flag(),
        "Whether evproxy collects [metrics](metrics.md) for Prometheus, and serves them at "
        "`/metrics`. It needs the extra `metrics` of the package.",
        default=True,
    )
    hosts: tuple[str, ...] = setting(
        Many("an array of host names", Judged("a host name", domain_fault)),
        "The names under which clients reach the admin interface, without the port. `localhost` "
        "and IP addresses need no entry.",
        default=(),
    )
    unix_mode: str = setting(
        MODE,
        "The mode of the path of a UNIX socket, in octal digits. Empty: that of the endpoint "
        "description, or 600.",
        default="",
    )
    unix_user: str = setting(
        USER,
        "The user of that path, a name or a number. Empty: the user of the process.",
        default="",
    )
    unix_group: str = setting(
        GROUP,
        "The group of that path, a name or a number. Empty: the group of the process.",
        default="",
    )
