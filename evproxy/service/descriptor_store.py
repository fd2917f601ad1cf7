"""
The descriptor store of systemd: it keeps listening sockets while evproxy restarts, or crashes.

evproxy passes its listening sockets to systemd (``FDSTORE=1``, sd_notify(3)).  The next process
gets them back as inherited descriptors, by their name (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
import stat
from collections.abc import MutableMapping

from evproxy.service.listening_sockets import ListeningSockets
from evproxy.service.notify_socket import NotifySocket
from evproxy.sockets.passing import MOST_DESCRIPTORS

NAME = "evproxy"
"""The name of evproxy's descriptors in the store (``FDNAME``)."""

FIRST = 3
"""The first descriptor that systemd passes (``SD_LISTEN_FDS_START``)."""


class DescriptorStore:
    """
    Stores the listening `sockets` of a proxy, and has them take over those that were stored.

    Without ``FDSTORE`` in `environ` (systemd before 254), whether there is a store is not known.
    Then UNIX sockets are not stored, since their paths would stay when evproxy stops.

    :param notifies: the socket of systemd.
    :param environ: ``LISTEN_FDNAMES`` and ``FDSTORE`` are used, and removed.
    """

    def __init__(
        self, sockets: ListeningSockets, notifies: NotifySocket, environ: MutableMapping[str, str]
    ) -> None:
        self._sockets = sockets
        self._notifies = notifies
        self._keeps_paths = environ.pop("FDSTORE", "0") != "0"
        self._stored: list[tuple[int, int]] = []
        found = stored_descriptors(environ)
        sockets.handed.offer(found)
        self._is_fresh = not found

    def store(self) -> None:
        """
        Have the listening sockets of now in the store, and no others.

        They go on listening when the service stops.
        """
        descriptors = self._sockets.keep(self._keeps_paths)
        marks = [(os.fstat(each).st_dev, os.fstat(each).st_ino) for each in descriptors]
        # Those that nobody has taken are of no use any more.
        self._sockets.handed.abandon()
        if marks == self._stored:
            return
        if self._stored or not self._is_fresh:
            self._notifies.send("FDSTOREREMOVE=1", f"FDNAME={NAME}")
        self._stored, self._is_fresh = marks, False
        for start in range(0, len(descriptors), MOST_DESCRIPTORS):
            some = descriptors[start : start + MOST_DESCRIPTORS]
            self._notifies.send("FDSTORE=1", f"FDNAME={NAME}", descriptors=some)


def stored_descriptors(environ: MutableMapping[str, str]) -> list[int]:
    """
    Return the inherited listening sockets that evproxy had stored.

    Twisted's endpoints have removed ``LISTEN_PID`` and ``LISTEN_FDS`` if they are for this process.
    """
    if environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        return []
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    found = [FIRST + place for place, name in enumerate(names) if name == NAME]
    found = [descriptor for descriptor in found if _is_socket(descriptor)]
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return found


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False
