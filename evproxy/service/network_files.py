"""
The files with lists of networks: read at the start, and again when they change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.files import Signature, UnusableFile, read_whole, signature_of
from evproxy.engine.threads import NoThread, Threads
from evproxy.errors import SettingsError
from evproxy.escape import escaped, printable
from evproxy.policy.access import Access
from evproxy.policy.network_list import MOST_BYTES, read_networks
from evproxy.policy.networks import Networks
from evproxy.settings import ListenerSettings

INTERVAL = 5.0
"""Seconds between two looks at the files of a listener."""

_log = Logger(namespace="evproxy")


@frozen
class NetworkFile:
    """The networks that were last read from a file, and `fault`, why a later read failed."""

    networks: Networks
    signature: Signature
    fault: str = ""


def read_file(path: str) -> NetworkFile:
    """
    Read the file at `path`.

    :raises SettingsError: if the file cannot be read or is wrong; the message has the path.
    """
    try:
        read = read_whole(path, MOST_BYTES)
        networks = read_networks(read.data.decode("utf-8", "surrogateescape"))
    except OSError as error:
        raise SettingsError(f"{escaped(path)}: cannot be read: {error.strerror}") from None
    except UnusableFile as error:
        raise SettingsError(f"{escaped(path)}: cannot be read: {error}") from None
    except SettingsError as error:
        raise SettingsError(f"{escaped(path)}: {error}") from None
    return NetworkFile(networks, read.before)


def read_files(
    settings: ListenerSettings, known: Mapping[str, NetworkFile] | None = None
) -> dict[str, NetworkFile]:
    """
    Read the files with lists of networks of `settings`, except those that are `known`.  Blocks.

    :raises SettingsError: if a file cannot be read or is wrong; the message begins with the key.
    """
    files: dict[str, NetworkFile] = {}
    for key in ("allow_files", "deny_files"):
        for index, path in enumerate(getattr(settings, key)):
            file = None if known is None else known.get(path)
            try:
                current = file is not None and _is_current(path, file)
                files[path] = file if file is not None and current else read_file(path)
            except SettingsError as error:
                raise SettingsError(f"{key}[{index}]: {error}") from None
    return files


def _is_current(path: str, file: NetworkFile) -> bool:
    try:
        return not file.fault and signature_of(path) == file.signature
    except OSError:
        return False


def read_again(path: str, known: NetworkFile) -> NetworkFile:
    """The file at `path` as it is now: `known` if it has not changed.  Does not raise."""
    try:
        if signature_of(path) == known.signature:
            return known
    except OSError:
        # The read says why.
        pass
    try:
        return read_file(path)
    except SettingsError as error:
        return NetworkFile(known.networks, known.signature, str(error))


def access_of(settings: ListenerSettings, files: Mapping[str, NetworkFile]) -> Access:
    """The lists that `settings` of a listener say, whose files have what `files` say."""

    def union(networks: Sequence[str], paths: Iterable[str]) -> Networks:
        found = Networks(networks)
        for path in paths:
            found |= files[path].networks
        return found

    allow = None
    if settings.allow or settings.allow_files:
        allow = union(settings.allow, settings.allow_files)
    return Access(allow, union(settings.deny, settings.deny_files))


@frozen
class Look:
    """What a look at the files of a listener found; `access` is ``None`` if nothing changed."""

    files: dict[str, NetworkFile]
    access: Access | None


def look_at(settings: ListenerSettings, known: Mapping[str, NetworkFile]) -> Look:
    """Look whether a file that is `known` has changed.  Blocks: call this in a thread."""
    files = {path: read_again(path, file) for path, file in known.items()}
    changed = any(file.networks is not known[path].networks for path, file in files.items())
    return Look(files, access_of(settings, files) if changed else None)


class AccessOfListener:
    """
    The access lists of one listener, kept up to date with their files.

    A file that cannot be read any more, or is wrong, keeps the networks that it had, and the log
    says so once.

    :param reactor: the timers, and calls from threads.
    :param settings: of the listener.
    :param changed: called with the new lists when a file has changed.
    :param files: what the files have; ``None``: read them now.
    :raises SettingsError: if a file cannot be read or is wrong.
    """

    def __init__(
        self,
        reactor: Any,
        settings: ListenerSettings,
        changed: Callable[[Access], None],
        files: Mapping[str, NetworkFile] | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._changed = changed
        self._files = read_files(settings) if files is None else dict(files)
        self._threads = Threads(reactor, "evproxy networks", 1)
        self._timer: IDelayedCall | None = None
        self._looking: Deferred[Any] | None = None

    def access(self) -> Access:
        """The lists as they are now."""
        return access_of(self._settings, self._files)

    @property
    def files(self) -> Mapping[str, NetworkFile]:
        """What the files have, by their paths."""
        return self._files

    def renew(self, files: Mapping[str, NetworkFile], access: Access) -> bool:
        """Use what was read from `files`, in `access`; return whether that is something new."""
        before, self._files = self._files, dict(files)
        if self._looking is not None:
            # What it finds is older.
            looking, self._looking = self._looking, None
            looking.cancel()
        if all(file.networks is before[path].networks for path, file in files.items()):
            return False
        self._changed(access)
        return True

    def start(self) -> None:
        """Watch the files."""
        if self._files and self._timer is None:
            self._timer = self._reactor.callLater(INTERVAL, self._due)

    def close(self) -> None:
        """Watch the files no more; `changed` is not called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _due(self) -> None:
        self._timer = None
        self.look()
        self.start()

    def look(self) -> None:
        """Look now whether a file has changed, in a thread, unless a look is not over yet."""
        if self._looking is None:
            work = partial(look_at, self._settings, self._files)
            self._looking = self._threads.call(work).result
            self._looking.addCallbacks(self._looked, self._not_looked)

    def _looked(self, found: Look) -> None:
        self._looking = None
        before, self._files = self._files, found.files
        for path, file in found.files.items():
            known = before[path]
            if file.networks is not known.networks:
                _log.info(
                    "{path} has {count} networks now",
                    path=escaped(path),
                    count=len(file.networks),
                )
            elif file.fault and file.fault != known.fault:
                _log.warn("the networks before stay: {fault}", fault=printable(file.fault))
        if found.access is not None:
            self._changed(found.access)

    def _not_looked(self, failure: Failure) -> None:
        if self._looking is None:
            return
        self._looking = None
        if failure.check(NoThread) is None:
            _log.failure("The lists of networks could not be looked at", failure)
