"""
The process of ``twistd evproxy``: limits, garbage collection, and the error line.

No other module of evproxy changes the process, except `evproxy.service.signals`, which a program
may use or not.  So a program can combine evproxy with other services.
"""

from __future__ import annotations

import faulthandler
import gc
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from evproxy.admin.errors import AdminCannotListen
from evproxy.config.document import ConfigErrors
from evproxy.errors import CannotOpenLog, CannotTakeOver
from evproxy.escape import printable
from evproxy.service.listener import cannot_listen, shown_address
from evproxy.service.service import ProxyService
from evproxy.service.signals import Signals

if TYPE_CHECKING:
    from evproxy.workers.supervisor import Supervisor

GARBAGE_THRESHOLDS = (50_000, 20, 100)
"""When Python collects garbage: the arguments of `gc.set_threshold`."""

SUPERVISOR_THRESHOLDS = (700, 10, 1_000)
"""The same for a supervisor.  It carries no session, but holds many numbers for long, so that
collections are short, and full ones rare."""

_log = Logger()


class CannotStart(SystemExit, Exception):
    """
    Ends a process that cannot start, with status 1.

    An `Exception` too, so that ``twistd`` reports it to the shell that waits for the daemon, and
    removes the pid file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 1


def cannot_start(lines: Iterable[str]) -> NoReturn:
    """Print each of `lines` to standard error, and raise `CannotStart`."""
    lines = [printable(line) for line in lines]
    # Once twistd logs, sys.stderr is the log.
    if sys.__stderr__ is not None:
        sys.__stderr__.write("".join(f"{line}\n" for line in lines))
        sys.__stderr__.flush()
    raise CannotStart(lines[0])


class Process(Service):
    """
    The service of the process: runs `services`, and ends the process if they cannot listen.

    If a port cannot be bound, the process prints one line instead of a traceback.  The line begins
    with `listen`, or with `admin` for the admin interface: the option or the file that says where
    to listen.  The constructor installs the signal handlers, so they exist before the pid file or a
    socket.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: ProxyService | Supervisor,
        services: MultiService,
        listen: str,
        admin: str = "admin.listen",
    ) -> None:
        self._reactor = reactor
        self._services = services
        self._listen = listen
        self._admin = admin
        self._proxy = proxy
        # Read now: the files may be out of reach later (twistd --chroot, --uid).
        self._version = version("evproxy")
        Signals(reactor, proxy).install()

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        try:
            self._services.privilegedStartService()
        except (CannotListenError, CannotOpenLog, CannotTakeOver, ConfigErrors) as error:
            self._cannot_start(error)

    def startService(self) -> None:
        super().startService()
        try:
            self._services.startService()
        except (CannotListenError, CannotOpenLog, CannotTakeOver) as error:
            self._cannot_start(error)
        if isinstance(self._proxy, ProxyService):
            self._serves(self._proxy.admission.limit)
            settle(self._proxy)
        else:
            serves = self._proxy.when_listening().addCallback(self._serves)
            serves.addCallback(lambda _: freeze(SUPERVISOR_THRESHOLDS))

    def _serves(self, most_sessions: int) -> None:
        by = ""
        if not isinstance(self._proxy, ProxyService):
            by = f", in {len(self._proxy.slots)} workers"
        _log.info(
            "evproxy {version} listens on {where}, for at most {most} sessions{by}",
            version=self._version,
            where=", ".join(map(shown_address, self._proxy.addresses)),
            most=most_sessions,
            by=by,
        )
        admin = self._proxy.admin
        if admin is not None and admin.address is not None:
            _log.info(
                "The admin interface listens on {where}",
                where=shown_address(admin.address),
            )

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        stopped: Deferred[None] | None = self._services.stopService()
        return stopped

    def _cannot_start(
        self, error: CannotListenError | CannotOpenLog | CannotTakeOver | ConfigErrors
    ) -> NoReturn:
        if isinstance(error, CannotListenError):
            source = self._admin if isinstance(error, AdminCannotListen) else self._listen
            line = printable(f"{source}: {cannot_listen(error)}")
        else:
            line = printable(f"evproxy: {error}")
        # A daemon has no standard error, only a log.
        _log.critical("{line}", line=line)
        cannot_start([line])


def settle(proxy: ProxyService) -> None:
    """`proxy` serves, and nothing else runs in this process."""
    proxy.plane.linger()
    show_stacks_on_abort()
    # Rarely: most sessions leave no cycles.
    freeze(GARBAGE_THRESHOLDS)


def freeze(thresholds: tuple[int, int, int]) -> None:
    """Collect garbage at `thresholds`; the objects of now stay, and are not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)


def show_stacks_on_abort() -> None:
    """
    Let SIGABRT, and a crash, print the stack of each thread to standard error.

    systemd's watchdog ends a process by SIGABRT.  Only this shows what holds a loop whose
    interpreter lock is never given up.
    """
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        # Standard error may be closed.
        with suppress(OSError, ValueError, RuntimeError):
            faulthandler.enable(sys.__stderr__)


def raise_open_file_limit() -> None:
    """Raise the soft limit on open files to the hard limit; a session needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems allow less than the hard limit that they report.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
