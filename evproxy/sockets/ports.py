"""
Ports: Twisted's, with a pause, and no loss when descriptors run out.

What they accept goes to an `Acceptor`, and what keeps them from accepting is told to a `Gate`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import cached_property
from socket import SocketType
from typing import Any, Protocol

from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.loop import IN
from evproxy.errors import Shortage
from evproxy.escape import escaped
from evproxy.sockets.unix_path import (
    Mark,
    Permissions,
    claimed,
    give,
    in_file_system,
    mark,
    remove_stale_lock,
)

MOST_ACCEPTS = 64
"""The most connections accepted before other sockets get their turn."""

PATIENCE = 4
"""How often in a row as many connections as were looked for must come before more are."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""The errors of accept(2) and socket(2) that say: not now, but later."""

_log = Logger()


class Gate(Protocol):
    """Who is told of ports and of trouble with them; a service's `Admission` is one."""

    def watch(self, port: PlainPort) -> None: ...

    def forget(self, port: PlainPort) -> None: ...

    def exhausted(self, error: OSError) -> None: ...

    def short(self, shortage: Shortage) -> None: ...


class Acceptor(Protocol):
    """Who watches a port, and what becomes of those that it accepts."""

    gate: Gate

    def start_accepting(self, port: PlainPort) -> None: ...

    def stop_accepting(self, port: PlainPort) -> None: ...

    def accepted(self, sock: SocketType, peer: Any, factory: Any) -> None: ...


class ListeningSocket(socket.socket):
    """
    A listening socket that accepts for less.

    It remembers its kind, of which `socket.socket` makes an enumeration's members each time
    it is asked.
    """

    def accept(self) -> tuple[Any, Any]:
        """
        What connected, and its address, as `socket.socket` has them.

        The first is a `SocketType`: what `socket.socket` adds in Python is not needed, and
        costs more than the system calls.
        """
        descriptor, peer = self._accept()  # type: ignore[attr-defined]
        return SocketType(self.family, self.type, self.proto, descriptor), peer

    @cached_property
    def family(self) -> socket.AddressFamily:
        return super().family

    @cached_property
    def type(self) -> socket.SocketKind:
        return super().type


class PlainPort:
    """
    What evproxy's ports add to Twisted's: a pause, and no loss when descriptors run out.

    Mixed into `tcp.Port` and `unix.Port`.
    """

    sink = None
    socket: socket.socket
    factory: Any
    _accepts = 1
    _filled = 0
    _accepting = False
    _made: ListeningSocket | None = None

    def __init__(self, acceptor: Acceptor, *args: Any) -> None:
        super().__init__(*args)
        self.acceptor = acceptor

    def createInternetSocket(self) -> ListeningSocket:
        """Twisted's own, as a `ListeningSocket`."""
        made = super().createInternetSocket()  # type: ignore[misc]
        self._made = ListeningSocket(made.family, made.type, made.proto, made.detach())
        self._made.setblocking(False)
        return self._made

    def startListening(self) -> None:
        """Bind and listen; where it cannot, nothing is left."""
        try:
            super().startListening()  # type: ignore[misc]
        except BaseException:
            # `unix.Port` leaves it open, and so does `tcp.Port` of Twisted 24.7.
            if self._made is not None:
                self._made.close()
            raise

    def startReading(self) -> None:
        if not self._accepting:
            self._accepting = True
            self.acceptor.start_accepting(self)

    def stopReading(self) -> None:
        if self._accepting:
            self._accepting = False
            self.acceptor.stop_accepting(self)

    def pause_accepting(self) -> None:
        """Leave clients in the accept queue."""
        self.stopReading()

    def resume_accepting(self) -> None:
        """Accept again."""
        if self.connected and not self.disconnecting:  # type: ignore[attr-defined]
            self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """It listens no longer."""
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        finally:
            self.acceptor.gate.forget(self)

    def event(self, mask: int) -> None:
        """The engine tells that there is something to accept: accept it."""
        accepted = 0
        for _ in range(self._accepts):
            if not self._accepting:
                break
            try:
                sock, peer = self.socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self.acceptor.gate.exhausted(error)
                    break
                # A connection that is gone again (accept(2)): there may be others.
                continue
            accepted += 1
            try:
                self.acceptor.accepted(sock, peer, self.factory)
            except BaseException:
                # What leaves `doRead` ends a port.
                _log.failure("A connection that was accepted broke")
        # One too many is a system call for nothing, one too few another turn of the loop.
        if accepted < self._accepts:
            self._accepts = max(1, accepted)
            self._filled = 0
        else:
            self._filled += 1
            if self._filled >= PATIENCE:
                self._accepts = min(MOST_ACCEPTS, accepted * 2)

    def event_failed(self) -> None:
        """An error that was logged; the port goes on."""

    def doRead(self) -> None:
        """The same, told by the reactor."""
        self.event(IN)


class TCPPort(PlainPort, tcp.Port):
    """A TCP listening port of evproxy."""


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
