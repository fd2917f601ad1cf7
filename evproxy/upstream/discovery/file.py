"""
Servers from a file that another program writes; each change is noticed.

The suffix of the name (``.toml``, ``.json``) says whether the file is TOML or JSON.  The file
has one key::

    upstreams = ["10.0.0.1:80", {endpoint = "10.0.0.2:80", weight = 2, backup = true}]

    {"upstreams": ["10.0.0.1:80", {"endpoint": "10.0.0.2:80", "weight": 2, "backup": true}]}

Items that are not valid are left out.  If the array is empty, the set is empty.  If no item
is valid, or if the file has any other content, this is a failure: the last set stays.  Writers
must replace the file in one step (write another file, then rename it), because half a file may
look like a shorter list.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.files import Signature, UnusableFile, read_whole, signature_of
from evproxy.engine.threads import NoThread, Threads
from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.announcer import Announcer
from evproxy.upstream.discovery.server_list import (
    ItemReader,
    Listed,
    Unreadable,
    ValidateEndpoint,
)
from evproxy.upstream.discovery.steps import Steps
from evproxy.upstream.reasons import left_out, nothing_left, one_line, reason_of

SIZE_LIMIT = 1024 * 1024
"""The limit for the file in bytes; a longer file is a failure."""

SETTLED = 0.1
"""
Seconds after its last change until the times of a file show the next change reliably: the
clock of a file system may have a resolution of 10 ms (a kernel's jiffy).
"""

READERS = {".toml": ItemReader.toml_file, ".json": ItemReader.json_file}

_log = Logger()


@frozen
class Content:
    """The content of a file; `signature` identifies it, ``None`` if it is not yet reliable."""

    data: bytes
    signature: Signature | None


def read_if_changed(path: str, known: Signature | None) -> Content | None:
    """
    Read the file at `path`; ``None`` if its signature is still `known`.

    :raises OSError: if the file cannot be read.
    :raises UnusableFile: if it is not a regular file, or too long.

    Blocks: call this in threads only.
    """
    if known is not None and signature_of(path) == known:
        return None
    read = read_whole(path, SIZE_LIMIT)
    settled = time.time() - read.changed > SETTLED and read.before == read.after
    return Content(read.data, read.after if settled else None)


class FileDiscovery:
    """
    Checks the file at `path` every `interval` seconds, in a thread of its own.

    A failure is reported once, and again only when its reason changes.

    :param reactor: provides `IReactorTime` and `IReactorFromThreads`.
    """

    def __init__(
        self, reactor: Any, path: str, interval: float, validate: ValidateEndpoint | None = None
    ) -> None:
        read = READERS[os.path.splitext(path)[1]]
        self._path = path
        self._interval = interval
        self._read = partial(read, ItemReader(validate))
        self._announcer = Announcer()
        self._signature: Signature | None = None
        self._steps = Steps(reactor)
        # One thread for each file: a read that hangs does not block other files.
        self._threads = Threads(reactor, "evproxy file", 1)

    def start(
        self, changed: Callable[[Sequence[UpstreamServer]], None], failed: Callable[[str], None]
    ) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.start(changed, failed)
        self._steps.start(self._check)

    def stop(self) -> None:
        """See `evproxy.interfaces.Discovery`.  Does not wait for a read in the thread."""
        self._announcer.stop()
        self._steps.stop()

    @property
    def problems(self) -> Sequence[str]:
        """See `evproxy.interfaces.PartlyFailing`."""
        return self._announcer.problems

    def _check(self) -> None:
        reading = self._threads.call(partial(read_if_changed, self._path, self._signature))
        self._steps.set_current(reading.result.addCallbacks(self._read_done, self._read_failed))

    def _read_done(self, content: Content | None) -> None:
        self._steps.pause(self._interval, self._check)
        if content is None:
            return
        self._signature = content.signature
        try:
            listed = self._read(content.data)
        except Unreadable as error:
            self._announcer.unusable(self._shown(str(error)))
        else:
            self._announce(listed)

    def _announce(self, listed: Listed) -> None:
        faults = [self._shown(fault) for fault in listed.faults]
        if listed.servers:
            self._announcer.found(listed.servers, map(left_out, faults))
        elif faults:
            self._announcer.unusable(nothing_left(faults))
        else:
            self._announcer.found(
                (), [f"no discovered server: {self._shown('upstreams is empty')}"]
            )

    def _read_failed(self, failure: Failure) -> None:
        if not self._steps.running:
            return
        self._steps.pause(self._interval, self._check)
        self._signature = None
        if failure.check(OSError, UnusableFile, NoThread) is None:
            _log.failure("reading a file failed with an unexpected error", failure=failure)
        self._announcer.unusable(self._shown(reason_of(failure)))

    def _shown(self, reason: str) -> str:
        return one_line(f"{self._path}: {reason}")


def file_discovery(
    reactor: Any, settings: Discover, validate: ValidateEndpoint | None = None
) -> FileDiscovery:
    """Make the discovery of kind ``file`` that `settings` describe; checks every `min_interval`."""
    return FileDiscovery(reactor, settings.path, settings.min_interval, validate)
