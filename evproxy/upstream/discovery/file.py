"""
Servers from a file that another program writes, read again whenever it changes.

The file is TOML or JSON by its name's end (``.toml``, ``.json``), with one key::

    upstreams = ["10.0.0.1:80", {endpoint = "10.0.0.2:80", weight = 2, backup = true}]

    {"upstreams": ["10.0.0.1:80", {"endpoint": "10.0.0.2:80", "weight": 2, "backup": true}]}

An item that is no server is left out.  An empty array means that there are no servers; one
in which no item is a server, and a file with anything else in it, are broken: the last set
stays.  Writers replace the file whole (write another one beside it, then rename): half a
file may look like a shorter list.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.threads import NoThread, Threads
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.announcer import Announcer
from evproxy.upstream.discovery.cycle import Steps
from evproxy.upstream.discovery.server_list import (
    ItemReader,
    Listed,
    Unreadable,
    ValidateEndpoint,
)
from evproxy.upstream.reasons import left_out, nothing_left, one_line, reason_of

SIZE_LIMIT = 1024 * 1024
"""Bytes; a file that is larger is broken."""

SETTLED = 0.1
"""
Seconds after its last change until a file's times can be trusted to tell the next one:
a file system's clock may tick as coarsely as 10 ms (a kernel's jiffy).
"""

READERS = {".toml": ItemReader.toml_file, ".json": ItemReader.json_file}

Signature = tuple[int, ...]

_log = Logger()


@frozen
class Content:
    """What a file had in it; `signature` tells it from others, ``None`` if it may not."""

    data: bytes
    signature: Signature | None


def read_if_changed(path: str, known: Signature | None) -> Content | None:
    """
    What is in the file at `path`, or ``None`` if it still is what `known` says.

    `OSError` or `Unreadable` if it cannot be read.  Blocks: for threads only.
    """
    if known is not None and signature_of(os.stat(path)) == known:
        return None
    with open(path, "rb", opener=open_at_once) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise Unreadable("it is not a file")
        data = file.read(SIZE_LIMIT + 1)
        after = os.fstat(file.fileno())
    if len(data) > SIZE_LIMIT:
        raise Unreadable(f"it is longer than {SIZE_LIMIT} bytes")
    settled = time.time() - after.st_mtime > SETTLED and signature_of(before) == signature_of(after)
    return Content(data, signature_of(after) if settled else None)


def open_at_once(path: str, flags: int) -> int:
    """An opener for `open` that does not wait for the writer of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def signature_of(status: os.stat_result) -> Signature:
    """What tells a file from a changed or another one."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class FileDiscovery:
    """
    Looks at the file at `path` every `interval` seconds, in a thread of its own.

    What is wrong is told once: again only when something else is wrong.

    :param reactor: provides `IReactorTime` and `IReactorFromThreads`.
    """

    def __init__(
        self, reactor: Any, path: str, interval: float, validate: ValidateEndpoint | None = None
    ) -> None:
        read = READERS.get(os.path.splitext(path)[1])
        if read is None:
            raise SettingsError(f"discover.path: expected a name in .toml or .json, got {path!r}")
        self._path = path
        self._interval = interval
        self._read = partial(read, ItemReader(validate))
        self._announcer = Announcer()
        self._signature: Signature | None = None
        self._steps = Steps(reactor)
        # One for each file: where one cannot be read, no other one waits.
        self._threads = Threads(reactor, "evproxy file", 1)

    def start(
        self, changed: Callable[[Sequence[UpstreamServer]], None], failed: Callable[[str], None]
    ) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.start(changed, failed)
        self._steps.start(self._look)

    def stop(self) -> None:
        """See `evproxy.interfaces.Discovery`.  A read that runs in a thread is not waited for."""
        self._announcer.stop()
        self._steps.stop()

    @property
    def problems(self) -> Sequence[str]:
        """See `evproxy.interfaces.PartlyFailing`."""
        return self._announcer.problems

    def _look(self) -> None:
        looking = self._threads.call(partial(read_if_changed, self._path, self._signature))
        self._steps.under_way(looking.result.addCallbacks(self._taken, self._broken))

    def _taken(self, content: Content | None) -> None:
        self._steps.pause(self._interval, self._look)
        if content is None:
            return
        self._signature = content.signature
        try:
            listed = self._read(content.data)
        except Unreadable as error:
            self._announcer.broken(self._shown(str(error)))
        else:
            self._announce(listed)

    def _announce(self, listed: Listed) -> None:
        faults = [self._shown(fault) for fault in listed.faults]
        if listed.servers:
            self._announcer.found(listed.servers, map(left_out, faults))
        elif faults:
            self._announcer.broken(nothing_left(faults))
        else:
            self._announcer.found(
                (), [f"no discovered server: {self._shown('upstreams is empty')}"]
            )

    def _broken(self, failure: Failure) -> None:
        if not self._steps.going:
            return
        self._steps.pause(self._interval, self._look)
        self._signature = None
        if failure.check(OSError, Unreadable, NoThread) is None:
            _log.failure("a file could not be read in an unforeseen way", failure=failure)
        self._announcer.broken(self._shown(reason_of(failure)))

    def _shown(self, reason: str) -> str:
        return one_line(f"{self._path}: {reason}")


def file_discovery(
    reactor: Any, settings: Discover, validate: ValidateEndpoint | None = None
) -> FileDiscovery:
    """The discovery of kind ``file`` that `settings` describe; looks every `min_interval`."""
    return FileDiscovery(reactor, settings.path, settings.min_interval, validate)
