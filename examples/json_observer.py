# Sessions as lines of JSON, by an observer of one's own:
#
#     twistd -noy examples/json_observer.py
#
# Clients connect to port 8080, and their sessions go to 127.0.0.1:8000.  LISTEN and UPSTREAM in
# the environment are others.

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from twisted.application.service import Application
from twisted.internet import reactor

from evproxy import ProxyService, SessionRecord


class JsonLines:
    """A `SessionObserver`: one line for each session that is over."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def session_ended(self, record: SessionRecord) -> None:
        line = {"peer": record.peer, "server": record.upstream, "reason": str(record.reason)}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


application = Application("JSON lines")
ProxyService(
    reactor,
    [os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")],
    [os.environ.get("UPSTREAM", "127.0.0.1:8000")],
    access_log=False,
    # Once twistd logs, sys.stdout is its log.
    observers=[JsonLines(sys.__stdout__ or sys.stdout)],
).setServiceParent(application)
