"""
The copy of one session: its connection to a server of the second pool, and what waits for it.

To the second pool, a copy is a session: it takes a slot of a server, and connects as sessions do.
The session never waits for its copy: what the second server does not take now is kept, and if too
much is kept, the whole copy is dropped.  A copy that is dropped ends with a reset, so that the
second server never takes a part for the whole.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.interfaces import Pool, Server
from evproxy.mirror.answers import Answers
from evproxy.mirror.context import CopiedSession, CopyContext
from evproxy.mirror.outcome import Outcome
from evproxy.model import CloseReason, Ending, Phase, Side, close_reason
from evproxy.records import MirrorRecord, SessionStatus, Waited
from evproxy.relay.contract import Half
from evproxy.relay.delivery import Delivery, descriptor_of, is_reset, unsent
from evproxy.relay.stream_relay import half_closeable
from evproxy.relay.wrappers import guard
from evproxy.session.connecting import Connecting
from evproxy.session.discarding import NOBODY
from evproxy.session.proxy_header import header_for
from evproxy.settings import Mirror
from evproxy.upstream.pool.server import PoolServer

_log = Logger()


@implementer(IPushProducer)
class SessionCopy:
    """
    Sends what a client sends to a server of a second pool.

    It is an `evproxy.session.connecting.Connectable` and an `evproxy.interfaces.PoolSession`, the
    receiver of the second server's half, and the producer of its transport.

    `copied` is the session that is copied.

    :param context: what the copies of the listener share.
    :param copied: the session that is copied.
    :param pool: the second pool.
    :param mirror: the settings.
    """

    def __init__(
        self, context: CopyContext, copied: CopiedSession, pool: Pool, mirror: Mirror
    ) -> None:
        self._context = context
        self.copied = copied
        self._pool = pool
        self._mirror = mirror
        self.info = copied.info
        self.opening = copied.opening
        self.server: Server | None = None
        self.phase = Phase.CONNECTING
        self.tried = self.error = self.cause = ""
        self.attempts = 0
        self.waited: Waited | None = None
        self._began = context.clock.seconds()
        self._connecting: Connecting | None = None
        self._half: Half | None = None
        self._queue: deque[bytes] = deque()
        self._queued = self._sent = self._answered = 0
        self._paused = self._producing = False
        self._client_ended = self._session_over = self._end_sent = self._server_ended = False
        self._delivery: Delivery | None = None
        self._deadline: IDelayedCall | None = None
        self._outcome: Outcome | None = None
        self._told = False
        self._answers = Answers(mirror, context.room)

    def start(self) -> None:
        """Connect to a server of the second pool."""
        self._context.begun(self)
        self._connecting = connecting = Connecting(self._context.connects, self, self._pool)
        connecting.find()

    def status(self, now: float) -> SessionStatus:
        """What the conditions of faults can ask for, at `now`."""
        copied = self.copied
        return SessionStatus(
            id=copied.id,
            listener=copied.info.listener,
            peer=copied.peer,
            phase=self.phase,
            pool=self._pool.name,
            upstream="" if self.server is None else self.server.name,
            relay="",
            attempts=self.attempts,
            started=self._began,
            connect_time=None,
            duration=now - self._began,
            bytes_to_upstream=self._sent,
            bytes_to_downstream=self._answered,
            unique_id=copied.unique_id,
        )

    # What happens to the session.

    def upload(self, data: bytes) -> None:
        """The client sent `data`."""
        if self._outcome is not None:
            return
        if self._half is not None and not self._paused and not self._queue:
            self._write(data)
        elif self._queued + len(data) > self._mirror.buffer:
            self.drop(Outcome.FELL_BEHIND, f"it is more than {self._mirror.buffer} bytes behind")
        elif not self._context.room.take(len(data)):
            self.drop(Outcome.NO_ROOM, "all copies together keep too many bytes")
        else:
            self._queue.append(data)
            self._queued += len(data)

    def download(self, data: bytes) -> None:
        """The session's own server sent `data`."""
        self._answers.add_first(data)
        self._tell()

    def server_ended(self) -> None:
        """The session's own server ended its stream in order."""
        self._answers.first_ended()
        self._tell()

    def client_ended(self) -> None:
        """The client ended its stream in order."""
        self._client_ended = True
        self._go_on()

    def session_over(self) -> None:
        """The session is over: the second server gets what is left, within a bounded time."""
        self._answers.session_over()
        self._tell()
        if self._outcome is None:
            self._session_over = True
            linger = self._context.linger
            self._deadline = self._context.clock.callLater(
                linger, self.cut, Outcome.TOO_LATE, f"not done {linger:g} s after the session's end"
            )
            self._go_on()

    # What a `Connecting` and a pool call.

    def connected(self, upstream: Half, now: float, seconds: float) -> None:
        """`server` is connected: send it what waits."""
        connecting, self._connecting = self._connecting, None
        server = self.server
        assert connecting is not None
        assert server is not None
        self.phase = Phase.RELAYING
        self._half = upstream
        self.error = self.cause = ""
        upstream.receiver = self
        try:
            self._pool.connected(server, seconds)
            self._context.adopt(upstream)
            guard(upstream.transport)
            if self.opening is None and not connecting.header_sent:
                upstream.transport.write(self.preamble())
            self._producing = True
            upstream.transport.registerProducer(self, True)
            self.resumeProducing()
        except Exception:
            self.broke()

    def preamble(self) -> bytes:
        """What `server` gets before everything else: a PROXY header, or nothing."""
        version = 0 if self.server is None else self.server.proxy_version
        copied = self.copied
        return header_for(version, self.info, copied.host, copied.unique_id) if version else b""

    def close_unconnected(self, by: Side, how: Ending) -> None:
        """There is no server for the copy."""
        self.drop(Outcome.UNREACHABLE, self.error)

    def end(self, by: Side, how: Ending) -> None:
        """The second pool resets the sessions of a server that went down."""
        self.drop(Outcome.SERVER_DOWN, "its server went down")

    def broke(self) -> None:
        """Log the current exception, and drop the copy; call this in an ``except`` clause."""
        failure = Failure()
        _log.failure("The copy of session {id} broke", failure, id=self.copied.id)
        self.drop(Outcome.ERROR, failure.getErrorMessage())

    # The producer of the second server's transport.

    def pauseProducing(self) -> None:
        """The second server takes no more bytes now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send what waits, as long as the second server takes it."""
        self._paused = False
        while self._queue and not self._paused:
            data = self._queue.popleft()
            self._queued -= len(data)
            self._context.room.give_back(len(data))
            self._write(data)
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost, which the half reports itself."""
        self._producing = False

    # The receiver of the second server's half.

    def received(self, data: bytes) -> None:
        """The second server sent `data`."""
        self._answered += len(data)
        self._answers.add_second(data)

    def stream_ended(self) -> None:
        """The second server ended its stream in order."""
        self._server_ended = True
        self._answers.second_ended()
        if self._end_sent and self._half is not None:
            self._half.transport.loseConnection()

    def peer_reset(self) -> None:
        """The second server reset the connection."""
        self.drop(Outcome.RESET, "its server reset the connection")

    def closing_here(self, ended: bool) -> bool:
        """Code on the second server's side closes the connection: its loss follows."""
        return False

    def half_broke(self) -> None:
        """The half raised an exception, which is logged."""
        self.drop(Outcome.ERROR, "the protocol of its server's connection broke")

    def connection_lost(self, reason: Failure) -> None:
        """The connection to the second server is gone."""
        if self._outcome is None:
            in_order = reason.check(ConnectionDone) is not None
            if in_order and not self._server_ended:
                # Twisted's own TLS ends both streams at once.
                self._answers.second_ended()
            if in_order and self._end_sent:
                self._outcome = Outcome.WHOLE
            else:
                self._outcome = Outcome.RESET
                self.error = "its server broke off, before it had got all"
        self._finish()

    # The end.

    def cut(self, outcome: Outcome, why: str) -> None:
        """The time is over: the copy is whole, if the second server has got all, or dropped."""
        half = self._half if self._end_sent else None
        if half is not None and not unsent(descriptor_of(half.transport)):
            self._answers.give_up(f"the second server has not ended its answer: {why}")
            outcome, why = Outcome.WHOLE, ""
        self.drop(outcome, why)

    def drop(self, outcome: Outcome, why: str) -> None:
        """End the copy now, with a reset."""
        if self._outcome is not None:
            return
        self._outcome, self.error = outcome, why
        self._answers.give_up(f"the copy was dropped: {why}")
        connecting, self._connecting = self._connecting, None
        half = self._half
        if half is not None:
            self._unregister()
            half.transport.abortConnection()
            return
        if connecting is not None:
            connecting.stop()
        self._finish()

    def _write(self, data: bytes) -> None:
        assert self._half is not None
        self._sent += len(data)
        self._half.transport.write(data)

    def _go_on(self) -> None:
        """End the stream to the second server, or its connection, once all is written."""
        half = self._half
        if half is None or self._queue or self._end_sent or self._outcome is not None:
            return
        transport = half.transport
        if self._client_ended:
            self._end_sent = True
            self._unregister()
            if half_closeable(transport) and not self._server_ended:
                transport.loseWriteConnection()
            else:
                transport.loseConnection()
        elif self._session_over and self._delivery is None:
            self._unregister()
            self._delivery = Delivery(self._context.clock, transport, self._delivered)

    def _delivered(self) -> None:
        self._delivery = None
        assert self._half is not None
        if is_reset(descriptor_of(self._half.transport)):
            self.drop(Outcome.RESET, "its server reset the connection")
        else:
            self.drop(Outcome.WHOLE, "")

    def _unregister(self) -> None:
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        if self._producing and self._half is not None:
            self._producing = False
            self._half.transport.unregisterProducer()

    def _finish(self) -> None:
        if self.phase is Phase.CLOSED:
            return
        connected = self.phase is Phase.RELAYING
        self.phase = Phase.CLOSED
        self._unregister()
        half, self._half = self._half, None
        if half is not None:
            half.receiver = NOBODY
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._context.room.give_back(self._queued)
        self._queue.clear()
        if self._outcome is not Outcome.WHOLE:
            self._answers.close()
        if connected:
            self._leave_the_pool()
        self._tell()

    def _tell(self) -> None:
        """Tell that the copy is over, once it is known how the answers compare."""
        if self.phase is Phase.CLOSED and self._answers.decided and not self._told:
            self._told = True
            self._context.over(self._record())

    def _leave_the_pool(self) -> None:
        server = self.server
        assert server is not None
        if isinstance(server, PoolServer):
            server.bytes_to_upstream += self._sent
            server.bytes_to_downstream += self._answered
        with _log.failuresHandled("The pool broke at the end of a copy"):
            self._pool.ended(server, self, self._reason(), self._answered > 0)

    def _reason(self) -> CloseReason:
        if self._outcome is Outcome.RESET:
            return close_reason(Side.UPSTREAM, Ending.RESET, Phase.RELAYING)
        if self._outcome is Outcome.WHOLE:
            return close_reason(Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING)
        return close_reason(Side.PROXY, Ending.REQUESTED, Phase.RELAYING)

    def _record(self) -> MirrorRecord:
        outcome, answers = self._outcome, self._answers
        assert outcome is not None
        return self.copied.record(
            self._pool.name,
            outcome,
            self.error or answers.why,
            server=self.tried if self.server is None else self.server.name,
            bytes_sent=self._sent,
            bytes_answered=self._answered,
            answers=answers.verdict,
            difference=answers.difference,
            duration=self._context.clock.seconds() - self._began,
        )
