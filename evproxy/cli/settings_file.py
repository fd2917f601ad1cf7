"""
Reads a configuration file: returns its settings, or all its problems.

Reads the file once.  `evproxy.config` checks the text; this module then checks the endpoints,
health checks and discoveries as the start of the proxy does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from random import Random
from typing import Any

from evproxy.admin.access import token_of
from evproxy.cli.workers import worker_count
from evproxy.config.document import ConfigErrors, parse
from evproxy.config.loops import loops
from evproxy.config.problems import Path, shown_path
from evproxy.config.reading import Fault, Surroundings
from evproxy.config.sharing import sharing_problems
from evproxy.engine.files import UnusableFile, read_whole
from evproxy.errors import SettingsError
from evproxy.recording.recordings import check_directory
from evproxy.service.certificates import load
from evproxy.service.listener import listener_permissions, server_endpoint
from evproxy.service.network_files import read_files
from evproxy.session.routes import function_named
from evproxy.settings import (
    PERMISSIONS,
    AdminSettings,
    ListenerSettings,
    PoolSettings,
    Settings,
)
from evproxy.sockets.tls_client import ClientTLS
from evproxy.stages.filters import filter_maker_named
from evproxy.upstream.address import check_upstream
from evproxy.upstream.pool.parts import discoveries_on, probes_on
from evproxy.upstream.probes.header import check_header
from evproxy.upstream.probes.probe import check_probe
from evproxy.upstream.tls_dialer import tls_name

SIZE_LIMIT = 16 * 1024 * 1024
"""The most bytes that a configuration file may have."""


def upstream_fault(description: str) -> str | None:
    """Return why no session can connect to `description`; ``None`` if sessions can."""
    return _fault(check_upstream, description)


def listen_fault(description: str) -> str | None:
    """Return why evproxy cannot listen on `description`; ``None`` if it can."""
    return _fault(server_endpoint, description)


def read_settings(path: str, closer_look: Fault = listen_fault, lists: bool = False) -> Settings:
    """
    Return the settings in the file at `path`.  Paths in the file are relative to its directory.

    `closer_look` returns the problem of a listener's endpoint, or ``None``.  `lists`: look at the
    files with lists of networks, too.  A reload does not: it reads those that have changed.

    :raises ConfigErrors: with every problem, if the file cannot be read or is wrong.
    """
    directory = os.path.dirname(os.path.abspath(path))
    settings = parse(_text(path), Surroundings(directory, upstream_fault, closer_look))
    problems = [*permission_problems(settings.listeners), *tls_problems(settings.listeners)]
    problems += [problem for pool in settings.pools for problem in pool_problems(pool)]
    problems += function_problems(settings.listeners)
    problems += record_problems(settings.listeners)
    if lists:
        problems += list_problems(settings.listeners)
    problems += admin_problems(settings.admin)
    problems += map(str, sharing_problems(settings, worker_count(settings)))
    for loop in loops(settings.listeners, settings.pools):
        where = shown_path(("pools", loop.pool.name, "upstreams", loop.index))
        problems.append(f"{where}: {loop.reason}")
    if problems:
        raise ConfigErrors(problems)
    return settings


def permission_problems(listeners: Iterable[ListenerSettings]) -> Iterator[str]:
    """The problems of the `unix_…` keys of `listeners`, each with the path of its key."""
    for index, listener in enumerate(listeners):
        try:
            listener_permissions(listener)
        except SettingsError as error:
            yield f"{shown_path(('listeners', index))}.{error}"


def tls_problems(listeners: Iterable[ListenerSettings]) -> Iterator[str]:
    """Why the files of the `tls` of a listener cannot be used, each with the path of its key."""
    for index, listener in enumerate(listeners):
        if listener.tls is not None:
            try:
                load(listener.tls)
            except SettingsError as error:
                yield f"{shown_path(('listeners', index))}.{error}"


def record_problems(listeners: Iterable[ListenerSettings]) -> Iterator[str]:
    """Why a listener cannot record to its directory, each with the path of its key."""
    for index, listener in enumerate(listeners):
        if listener.record:
            try:
                check_directory(listener.record)
            except SettingsError as error:
                yield f"{shown_path(('listeners', index))}.{error}"


def list_problems(listeners: Iterable[ListenerSettings]) -> Iterator[str]:
    """Why a listener's lists of networks cannot be used, each with the path of its key."""
    for index, listener in enumerate(listeners):
        try:
            read_files(listener)
        except SettingsError as error:
            yield f"{shown_path(('listeners', index))}.{error}"


def function_problems(listeners: Iterable[ListenerSettings]) -> Iterator[str]:
    """Why what a `route` or `filters` of `listeners` name cannot be used, with the key's path."""
    for index, listener in enumerate(listeners):
        named: list[tuple[Path, str, Callable[[str], object]]] = [
            (("filters", number), name, filter_maker_named)
            for number, name in enumerate(listener.filters)
        ]
        if listener.route:
            named.append((("route",), listener.route, function_named))
        # As `python -m` does; twistd and the command evproxy do not.
        if named and (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        for path, name, found in named:
            try:
                found(name)
            except SettingsError as error:
                yield f"{shown_path(('listeners', index, *path))}: {error}"


def admin_problems(admin: AdminSettings) -> Iterator[str]:
    """Why the settings of the admin interface cannot be used, with the path of the key."""
    try:
        token_of(admin)
    except SettingsError as error:
        yield str(error)
    if admin.listen or any(getattr(admin, key) for key in PERMISSIONS):
        try:
            listener_permissions(admin)
        except SettingsError as error:
            yield f"admin.{error}"


def pool_problems(pool: PoolSettings) -> Iterator[str]:
    """Why a server of `pool`, its health check or its discovery is impossible, with the key."""
    from twisted.internet import reactor

    attempts: list[Callable[[], object]] = [
        partial(check_header, server, pool.send_proxy_protocol) for server in pool.upstreams
    ]
    if pool.tls is not None:
        attempts.append(partial(ClientTLS, pool.tls))
        attempts += [partial(tls_name, pool.tls, server) for server in pool.upstreams]
    if pool.health_check is not None:
        attempts.append(partial(probes_on(reactor), pool.health_check))
        attempts += [
            partial(check_probe, pool.health_check, server.endpoint) for server in pool.upstreams
        ]
    if pool.discover is not None:
        attempts.append(partial(discoveries_on(reactor, Random()), pool.discover))
    for attempt in attempts:
        try:
            attempt()
        except SettingsError as error:
            yield f"{shown_path(('pools', pool.name))}.{error}"


def _text(path: str) -> str:
    try:
        data = read_whole(path, SIZE_LIMIT).data
    except OSError as error:
        raise ConfigErrors([f"cannot be read: {error.strerror}"]) from None
    except UnusableFile as error:
        raise ConfigErrors([f"cannot be read: {error}"]) from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigErrors([f"not UTF-8 at byte {error.start + 1}"]) from None


def _fault(attempt: Callable[[Any, str], object], description: str) -> str | None:
    from twisted.internet import reactor

    try:
        attempt(reactor, description)
    except SettingsError as error:
        return str(error)
    return None
