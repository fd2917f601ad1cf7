"""
The files with lists of networks: read at the start, and again when they change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.threads import Threads
from evproxy.errors import SettingsError
from evproxy.escape import printable
from evproxy.policy.access import Access
from evproxy.policy.network_list import MOST_BYTES, read_networks
from evproxy.policy.networks import Networks
from evproxy.settings import ListenerSettings
from evproxy.upstream.discovery.file import open_at_once

INTERVAL = 5.0
"""Seconds between two looks at a file."""

Signature = tuple[int, ...]

_log = Logger(namespace="evproxy")


@define
class _File:
    path: str
    networks: Networks
    signature: Signature
    fault: str = ""


def read_file(path: str) -> tuple[Networks, Signature]:
    """
    The networks in the file at `path`, and what tells that it has changed.

    :raises SettingsError: if the file cannot be read or is wrong; the message has the path.
    """
    try:
        with open(path, "rb", opener=open_at_once) as file:
            signature = _signature(os.fstat(file.fileno()))
            data = file.read(MOST_BYTES + 1)
        return read_networks(data.decode("utf-8", "surrogateescape")), signature
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _read_if_changed(path: str, known: Signature) -> tuple[Networks, Signature] | None:
    try:
        if _signature(os.stat(path)) == known:
            return None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    return read_file(path)


def _signature(status: os.stat_result) -> Signature:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class AccessOfListener:
    """
    The access lists of one listener, kept up to date with their files.

    A file that cannot be read any more, or is wrong, keeps the networks that it had, and the log
    says so once.

    :param reactor: the timers, and calls from threads.
    :param settings: of the listener.
    :param changed: called with the new lists when a file has changed.
    :raises SettingsError: if a file cannot be read or is wrong.
    """

    def __init__(
        self, reactor: Any, settings: ListenerSettings, changed: Callable[[Access], None]
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._changed = changed
        self._files = {
            path: _File(path, *read_file(path))
            for path in (*settings.allow_files, *settings.deny_files)
        }
        self._threads = Threads(reactor, "evproxy networks", 1)
        self._timer: IDelayedCall | None = None

    def access(self) -> Access:
        """The lists as they are now."""
        settings = self._settings
        allow = None
        if settings.allow or settings.allow_files:
            allow = self._union(settings.allow, settings.allow_files)
        return Access(allow, self._union(settings.deny, settings.deny_files))

    def _union(self, networks: Sequence[str], paths: Sequence[str]) -> Networks:
        union = Networks(networks)
        for path in paths:
            union |= self._files[path].networks
        return union

    def start(self) -> None:
        """Watch the files."""
        if self._files and self._timer is None:
            self._timer = self._reactor.callLater(INTERVAL, self._due)

    def close(self) -> None:
        """Watch the files no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self.look()
        self.start()

    def look(self) -> None:
        """Look now whether a file has changed, in a thread."""
        for file in self._files.values():
            reading = self._threads.call(partial(_read_if_changed, file.path, file.signature))
            reading.result.addCallbacks(
                self._read, self._failed, callbackArgs=(file,), errbackArgs=(file,)
            )

    def _read(self, found: tuple[Networks, Signature] | None, file: _File) -> None:
        if found is None:
            return
        file.networks, file.signature = found
        file.fault = ""
        _log.info(
            "{path} has {count} networks now", path=printable(file.path), count=len(file.networks)
        )
        self._changed(self.access())

    def _failed(self, failure: Failure, file: _File) -> None:
        fault = failure.getErrorMessage()
        if fault != file.fault:
            file.fault = fault
            _log.warn("the networks before stay: {fault}", fault=printable(fault))
