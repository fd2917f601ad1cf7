"""``evproxy check FILE…``: reports the problems of configuration files, and runs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from math import floor
from typing import TextIO

from evproxy.cli.settings_file import listen_fault, read_settings
from evproxy.config.changes import changes, needs_restart
from evproxy.config.document import ConfigErrors
from evproxy.config.loops import copied_to
from evproxy.config.problems import listed
from evproxy.escape import escaped
from evproxy.settings import Settings
from evproxy.sockets.tls_certificates import read_certificate, shown_date

GOOD = 0
PROBLEMS = 1


def check_files(paths: Iterable[str], out: TextIO, err: TextIO) -> int:
    """
    Report every problem of the configuration files at `paths`.

    Writes one line to `err` for each problem, and one line to `out` for each good file.  There is
    one more line to `out` for each certificate of a good file: how long it lasts.

    :return: the exit status: `PROBLEMS` if there is a problem, else `GOOD`.
    """
    status = GOOD
    for path in paths:
        name = escaped(path)
        try:
            settings = read_settings(path, _listen_fault, lists=True)
        except ConfigErrors as errors:
            status = PROBLEMS
            err.writelines(f"{name}: {problem}\n" for problem in errors.problems)
        else:
            out.write(f"{name}: good: {_summary(settings)}\n")
            out.writelines(f"{name}: {line}\n" for line in _certificates(settings))
    return status


def check_reload(running: str, new: str, out: TextIO, err: TextIO) -> int:
    """
    Report what a reload from the configuration file `running` to the file `new` would change.

    Writes one line to `out` for each change, and one line to `err` for each problem of a file, and
    for each change that needs a restart.

    :return: the exit status: `PROBLEMS` if the reload would be refused, else `GOOD`.
    """
    read: list[Settings] = []
    for path in (running, new):
        try:
            read.append(read_settings(path, _listen_fault, lists=True))
        except ConfigErrors as errors:
            err.writelines(f"{escaped(path)}: {problem}\n" for problem in errors.problems)
    if len(read) < 2:
        return PROBLEMS
    name = escaped(new)
    if problems := needs_restart(*read):
        err.writelines(f"{name}: {problem}\n" for problem in problems)
        return PROBLEMS
    found = changes(*read)
    out.writelines(f"{name}: {change}\n" for change in found.lines)
    if not found:
        out.write(f"{name}: nothing would change\n")
    return GOOD


def _listen_fault(description: str) -> str | None:
    if description.startswith("systemd:"):
        return None  # the sockets exist only when systemd starts the proxy
    return listen_fault(description)


def _summary(settings: Settings) -> str:
    servers = sum(len(pool.upstreams) for pool in settings.pools)
    discovered = sum(pool.discover is not None for pool in settings.pools)
    by_name = {pool.name: pool for pool in settings.pools}
    used = {pool for listener in settings.listeners for pool in copied_to(listener, by_name)}
    unused = [pool.name for pool in settings.pools if pool.name not in used]
    if any(listener.route for listener in settings.listeners):
        # The function may choose any pool.
        unused = []
    parts = [
        _count(len(settings.listeners), "listener"),
        _count(len(settings.pools), "pool"),
        _count(servers, "upstream server"),
    ]
    if discovered:
        parts.append(f"discovery for {_count(discovered, 'pool')}")
    if unused:
        parts.append(f"no listener uses {listed(unused, 'and')}")
    return ", ".join(parts)


def _certificates(settings: Settings) -> Iterator[str]:
    now = time.time()
    for listener in settings.listeners:
        for path in () if listener.tls is None else listener.tls.certificates:
            certificate = read_certificate(path)
            days = floor(certificate.days_left(now))
            yield (
                f"{escaped(path)}: for {listed(certificate.names, 'and') or 'no name'}, "
                f"until {shown_date(certificate.expires)} ({_count(days, 'day')})"
            )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
