"""
A DNS resolver: sends a query over UDP and, after a truncated answer, over TCP.

Messages are those of `twisted.names.dns`.  `twisted.names.client.Resolver` is not used: it
cannot be cancelled, keeps TCP connections and timers after the answer, may repeat a truncated
query to another server, reads resolv.conf in the reactor's thread, and waits for the timeout
even if the kernel reports that no process listens.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.canonical import host_and_port
from evproxy.engine.threads import NoThread, Threads
from evproxy.escape import escaped
from evproxy.upstream.discovery.polling import LookUpFailed
from evproxy.upstream.discovery.records import Answer, canonical, nameservers_in
from evproxy.upstream.reasons import reason_of

ATTEMPT_TIMEOUTS = (1.0, 2.0)
"""The timeouts of an answer in seconds: all servers are tried with the first, then the next."""

TCP_TIMEOUT = 5.0
"""The timeout of the whole answer over TCP, in seconds."""

RESOLV_CONF = "/etc/resolv.conf"
RESOLV_CONF_LIMIT = 64 * 1024

DATAGRAM_LIMIT = 4096
"""The limit of one UDP answer in bytes; without EDNS it has at most 512 (RFC 1035, 2.3.4)."""

RESPONSES = {
    dns.EFORMAT: "FORMERR",
    dns.ESERVER: "SERVFAIL",
    dns.ENAME: "NXDOMAIN",
    dns.ENOTIMP: "NOTIMP",
    dns.EREFUSED: "REFUSED",
}

Nameserver = tuple[str, int]


class Resolver:
    """
    Sends queries to DNS servers.

    :param reactor: provides `IReactorTime`, `IReactorFDSet`, `IReactorTCP`, `IReactorFromThreads`.
    :param nameservers: addresses and ports; empty: those of resolv.conf(5), which is read
        again, in a thread of its own, before each look-up.
    """

    def __init__(
        self, reactor: Any, nameservers: Sequence[Nameserver] = (), resolv_conf: str = RESOLV_CONF
    ) -> None:
        self._reactor = reactor
        self._nameservers = tuple(nameservers)
        self._resolv_conf = resolv_conf
        self._threads = Threads(reactor, "evproxy resolv.conf", 1)

    async def nameservers(self) -> tuple[Nameserver, ...]:
        """The name servers to use now; `LookUpFailed` if resolv.conf(5) cannot be read."""
        if self._nameservers:
            return self._nameservers
        try:
            text = await self._threads.call(partial(read_text, self._resolv_conf)).result
        except NoThread as error:
            raise LookUpFailed(reason_of(error)) from None
        return nameservers_in(text)

    async def ask(
        self,
        servers: Sequence[Nameserver],
        name: str,
        kind: int,
        timeouts: Sequence[float] = ATTEMPT_TIMEOUTS,
    ) -> dns.Message:
        """
        Query the records of `kind` that `name` has.

        :param timeouts: as `ATTEMPT_TIMEOUTS`.
        :raises LookUpFailed: if there is no such name, or if no server gives a valid answer.
        """
        query = dns.Message(dns.randomSource(), recDes=1)
        query.addQuery(name.removesuffix(".").encode("idna"), kind)
        what = f"{dns.QUERY_TYPES[kind]} of {escaped(name)}"
        reason = ""
        for timeout in timeouts:
            for server in servers:
                try:
                    answer = await self._exchange(server, query, timeout)
                except (OSError, ConnectError, TimeoutError) as error:
                    reason = f"{what}: {reason_of(error)} (asked {host_and_port(*server)})"
                    continue
                if answer.rCode == dns.OK:
                    return answer
                code = RESPONSES.get(answer.rCode, f"response code {answer.rCode}")
                reason = f"{what}: {code}"
                if answer.rCode == dns.ENAME:
                    raise LookUpFailed(reason)
        raise LookUpFailed(reason)

    async def _exchange(self, server: Nameserver, query: dns.Message, timeout: float) -> Answer:
        answer = await ask_over_udp(self._reactor, server, query).addTimeout(timeout, self._reactor)
        # An answer that is cut without saying so is no smaller set of records either.
        if answer.trunc or answer.cut:
            asking = ask_over_tcp(self._reactor, server, query)
            answer = await asking.addTimeout(TCP_TIMEOUT, self._reactor)
            if answer.cut:
                raise ConnectionError("the answer has fewer records than it says")
        return answer


def read_text(path: str) -> str:
    """Read the beginning of the file at `path`; empty if it fails.  Blocks: for threads only."""
    try:
        with open(path, "rb") as file:
            return file.read(RESOLV_CONF_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""


def answer_to(query: dns.Message, data: bytes) -> Answer | None:
    """The message in `data` if it is an answer to `query` (RFC 5452, 9.1), else ``None``."""
    answer = Answer()
    try:
        answer.fromStr(data)
    except (EOFError, ValueError):
        return None
    if not answer.answer or answer.id != query.id or len(answer.queries) != 1:
        return None
    sent, echoed = query.queries[0], answer.queries[0]
    same = canonical(sent.name.name) == canonical(echoed.name.name) and sent.type == echoed.type
    return answer if same else None


@implementer(IReadDescriptor)
class _Datagram:
    """
    One query over UDP, on its own socket and port.

    The socket is connected, so the kernel drops datagrams from other senders, and reports at
    once if no process listens.  (`IReactorUDP` writes two log lines for each port.)
    """

    def __init__(self, reactor: Any, server: Nameserver, query: dns.Message) -> None:
        self._reactor = reactor
        self._query = query
        self.answered: Deferred[Answer] = Deferred()
        self.answered.addBoth(self._close)
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        reactor.addReader(self)
        try:
            self._socket.connect(server)
            self._socket.send(query.toStr())
        except BlockingIOError:
            # For a datagram socket, this error means that no local port is free.
            number = errno.EADDRNOTAVAIL
            self.answered.errback(OSError(number, os.strerror(number)))
        except OSError as error:
            self.answered.errback(error)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def doRead(self) -> None:
        try:
            data = self._socket.recv(DATAGRAM_LIMIT)
        except BlockingIOError:
            return
        except OSError as error:
            self.answered.errback(error)
            return
        answer = answer_to(self._query, data)
        if answer is not None:
            self.answered.callback(answer)

    def connectionLost(self, reason: Failure) -> None:
        # For a pending error, poll and epoll reactors call this; the select reactor calls doRead.
        if not self.answered.called:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.answered.errback(OSError(number, os.strerror(number)))

    def _close(self, result: Any) -> Any:
        self._reactor.removeReader(self)
        self._socket.close()
        return result


def ask_over_udp(reactor: Any, server: Nameserver, query: dns.Message) -> Deferred[Answer]:
    """Query `server` over UDP; `OSError` if this fails."""
    return _Datagram(reactor, server, query).answered


class _Stream(Int16StringReceiver):
    factory: _StreamFactory

    def connectionMade(self) -> None:
        self.sendString(self.factory.query.toStr())

    def stringReceived(self, data: bytes) -> None:
        answer = answer_to(self.factory.query, data)
        if answer is not None:
            self.factory.finish(answer)
        else:
            self.factory.finish(Failure(ConnectionError("this is not the answer to the question")))
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.finish(Failure(ConnectionError("closed by the server")))


class _StreamFactory(ClientFactory):
    noisy = False
    protocol: Callable[[], Protocol] = _Stream

    def __init__(self, query: dns.Message, answered: Deferred[Answer]) -> None:
        self.query = query
        self._answered = answered

    def finish(self, result: Answer | Failure) -> None:
        """Set the result; only the first call has an effect."""
        if not self._answered.called:
            self._answered.callback(result)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.finish(reason)


def ask_over_tcp(reactor: Any, server: Nameserver, query: dns.Message) -> Deferred[Answer]:
    """Query `server` over its own TCP connection (RFC 7766)."""
    answered: Deferred[Answer] = Deferred()
    connector = reactor.connectTCP(*server, _StreamFactory(query, answered), timeout=TCP_TIMEOUT)

    def close(result: Any) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError, TimeoutError):
            connector.disconnect()
        return result

    return answered.addBoth(close)
