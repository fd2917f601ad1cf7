"""UNIX listening ports: each claims its path, and removes it when it closes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock

from evproxy.escape import escaped
from evproxy.sockets.ports import Acceptor, ListeningSocket, PlainPort
from evproxy.sockets.unix_path import (
    Mark,
    Permissions,
    claimed,
    give,
    in_file_system,
    mark,
    remove_stale_lock,
)

_log = Logger()


class PathSocket(ListeningSocket):
    """
    A listening socket at a path, whose user and group are set before a client can connect.

    :param owner: the user and the group.
    :param path: the path that `bind` will get.
    """

    def __init__(self, made: socket.socket, owner: Permissions, path: bytes) -> None:
        super().__init__(made.family, made.type, made.proto, made.detach())
        self._owner = owner
        self._path = path
        self.mark: Mark | None = None
        """The identity of the file at the path, once the socket is bound."""

    def bind(self, address: Any) -> None:
        """Bind and set the owner: no client can connect before the socket listens."""
        super().bind(address)
        if in_file_system(self._path):
            self.mark = mark(self._path)
            give(self._path, self._owner)


class HandedPathSocket(PathSocket):
    """A socket that is bound to its path already."""

    def bind(self, address: Any) -> None:
        """Set the owner of the path: the socket is bound."""
        if in_file_system(self._path):
            self.mark = mark(self._path)
            give(self._path, self._owner)


class UNIXPort(PlainPort, unix.Port):
    """
    A UNIX listening port of evproxy.

    The port replaces a stale socket, and nothing else.  It closes even if its path cannot be
    removed.  See `evproxy.sockets.unix_path`.
    """

    _made: PathSocket | None
    _links_later = False

    def __init__(
        self, acceptor: Acceptor, owner: Permissions, address: str | bytes, *args: Any
    ) -> None:
        super().__init__(acceptor, address, *args)
        self._path: bytes = UNIXAddress(address).name or b""
        self._owner = owner

    def createInternetSocket(self) -> PathSocket:
        """Make the socket as Twisted does, but as a `PathSocket`; or take one over."""
        handed = self._handed
        kind = PathSocket if handed is None else HandedPathSocket
        self._made = kind(super().createInternetSocket(), self._owner, self._path)
        self._made.setblocking(False)
        if handed is not None:
            self._made.handed_over, self._made.borrowed = handed.handed_over, handed.borrowed
            self._made.shared = handed.shared
        return self._made

    def startListening(self) -> None:
        """
        Bind and listen.  Clean up after a failure.

        A socket that is taken over is used only if there is something at its path.

        :raises CannotListenError: if the path is in use or cannot be taken.
        """
        if self._handed is not None and self._handed.borrowed:
            self._listen_for_another()
            return
        if not in_file_system(self._path):
            self.wantPID = False
            super().startListening()
            return
        try:
            if self._handed is not None and mark(self._path) is None:
                # Somebody has removed the path: no client finds the socket that was there.
                self._handed.close()
                self._handed = None
            if self._handed is not None:
                # The path is there, and so is the socket that listens: this port takes both.
                self._listen()
                return
            with claimed(self._path):
                self._listen()
        except OSError as error:
            raise CannotListenError(None, self._path, error) from error

    def _listen_for_another(self) -> None:
        """Accept on a socket that another process owns, with its path and the permissions."""
        self.wantPID = False
        self.socket = self.createInternetSocket()
        self.socket.listen(self.backlog)
        self.factory.doStart()
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.startReading()

    def own(self) -> None:
        """The process from which the socket came does not serve with it any more."""
        super().own()
        if self._links_later:
            self._links_later = False
            lock, why = FilesystemLock(self._path + b".lock"), "another process has it"
            try:
                remove_stale_lock(self._path)
                if lock.lock():
                    self.lockFile = lock
                    return
            except OSError as error:
                why = error.strerror or str(error)
            _log.warn(
                "The UNIX listener {path} has no lock for Twisted clients: {why}",
                path=escaped(os.fsdecode(self._path)),
                why=why,
            )

    def _listen(self) -> None:
        if self._handed is not None and self._handed.shared:
            # Until `own`, the lock is that of the process that serves.
            self._links_later, self.wantPID = bool(self.wantPID), False
        if self.wantPID:
            remove_stale_lock(self._path)
        try:
            super().startListening()
        except BaseException:
            if isinstance(self._made, HandedPathSocket):
                raise
            if self._made is not None and self._made.mark is not None:
                self._remove(os.unlink, self._path)
            if self.lockFile is not None and self.lockFile.locked:
                self._remove(self.lockFile.unlock)
            raise

    def connectionLost(self, reason: Failure) -> None:
        """The port listens no longer."""
        # `unix.Port.connectionLost` does not close the port if it cannot remove the path, and
        # removes a path that another process has taken.
        if in_file_system(self._path) and not self.handed_over:
            self._leave_path()
        try:
            tcp.Port.connectionLost(self, reason)
        finally:
            self.acceptor.gate.forget(self)

    def _leave_path(self) -> None:
        """Remove the path while the socket still listens: until then no other process takes it."""
        assert self._made is not None
        try:
            replaced = mark(self._path) not in (self._made.mark, None)
        except OSError:
            replaced = False
        if not replaced:
            self._remove(os.unlink, self._path)
            if self.lockFile is not None:
                self._remove(self.lockFile.unlock)
        else:
            _log.warn(
                "Something else is at the path of the UNIX listener {path} now, it stays",
                path=os.fsdecode(self._path),
            )

    def _remove(self, remove: Callable[..., object], *arguments: Any) -> None:
        try:
            remove(*arguments)
        except (OSError, ValueError) as error:
            # The file is gone, or belongs to another process, or this process may not remove it
            # any more (twistd --uid).
            _log.warn(
                "What the UNIX listener {path} put there cannot be removed: {why}",
                path=escaped(os.fsdecode(self._path)),
                why=getattr(error, "strerror", None) or error,
            )
