"""Proxies for test suites: faults, waits and what passed, in Twisted, asyncio and plain tests."""

from evproxy.testing.controls import Injection
from evproxy.testing.proxy import FaultyProxy
from evproxy.testing.seen import SeenSession
from evproxy.testing.thread import ReactorThread, ThreadedProxy

__all__ = ["FaultyProxy", "Injection", "ReactorThread", "SeenSession", "ThreadedProxy"]
