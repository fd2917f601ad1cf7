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
    A listening socket at a path, whose user and group are set before anybody can connect.

    :param owner: who they are.
    :param path: as `bind` is going to be told.
    """

    def __init__(self, made: socket.socket, owner: Permissions, path: bytes) -> None:
        super().__init__(made.family, made.type, made.proto, made.detach())
        self._owner = owner
        self._path = path
        self.mark: Mark | None = None
        """What was put at the path, once it is bound."""

    def bind(self, address: Any) -> None:
        """Bind; nobody can connect before it listens."""
        super().bind(address)
        if in_file_system(self._path):
            self.mark = mark(self._path)
            give(self._path, self._owner)


class UNIXPort(PlainPort, unix.Port):
    """
    A UNIX listening port of evproxy.

    It takes the place of a stale socket, and of nothing else, and closes whatever has become
    of its path.  See `evproxy.sockets.unix_path`.
    """

    _made: PathSocket | None

    def __init__(
        self, acceptor: Acceptor, owner: Permissions, address: str | bytes, *args: Any
    ) -> None:
        super().__init__(acceptor, address, *args)
        self._path: bytes = UNIXAddress(address).name or b""
        self._owner = owner

    def createInternetSocket(self) -> PathSocket:
        """Twisted's own, as a `PathSocket`."""
        self._made = PathSocket(super().createInternetSocket(), self._owner, self._path)
        self._made.setblocking(False)
        return self._made

    def startListening(self) -> None:
        """
        Bind and listen; where it cannot, nothing is left.

        :raises CannotListenError: if the path is in use or cannot be had.
        """
        if not in_file_system(self._path):
            self.wantPID = False
            super().startListening()
            return
        try:
            with claimed(self._path):
                self._listen()
        except OSError as error:
            raise CannotListenError(None, self._path, error) from error

    def _listen(self) -> None:
        if self.wantPID:
            remove_stale_lock(self._path)
        try:
            super().startListening()
        except BaseException:
            if self._made is not None and self._made.mark is not None:
                self._remove(os.unlink, self._path)
            if self.lockFile is not None and self.lockFile.locked:
                self._remove(self.lockFile.unlock)
            raise

    def connectionLost(self, reason: Failure) -> None:
        """It listens no longer."""
        # `unix.Port`'s does not close what it cannot unlink, and unlinks what is another's.
        if in_file_system(self._path):
            self._leave_path()
        try:
            tcp.Port.connectionLost(self, reason)
        finally:
            self.acceptor.gate.forget(self)

    def _leave_path(self) -> None:
        """Remove what it put there, while it still listens: until then nobody else takes it."""
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
            # It is gone or another's, or may not be removed any more (twistd --uid).
            _log.warn(
                "What the UNIX listener {path} put there cannot be removed: {why}",
                path=escaped(os.fsdecode(self._path)),
                why=getattr(error, "strerror", None) or error,
            )
