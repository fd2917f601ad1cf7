"""
Filters: plain objects through which the bytes of a session pass.

A filter has those of the methods of `Filter` that it needs, and inherits nothing.  Where it has no
method, bytes and ends pass unchanged.  One filter belongs to one session.

Backpressure: a filter that holds bytes says how many with `held`.  While one filter of a session
holds 64 KiB of one side, that side is not read.  What a filter injects is not bounded by evproxy:
inject no more than a few answers at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from evproxy.errors import SettingsError, StageFailed
from evproxy.model import Ending, Side
from evproxy.records import SessionStatus
from evproxy.relay.stages import HELD, Outlet, Stage, close_stages, name_in_code


class Filter(Protocol):
    """What a filter may have; every method may be absent."""

    def started(self, session: FilteredSession) -> None:
        """The session begins to relay: the first call."""

    def upload(self, data: bytes) -> bytes | None:
        """The client sent `data`: return what the server gets now; ``None`` or empty: nothing."""

    def download(self, data: bytes) -> bytes | None:
        """The server sent `data`: return what the client gets now; ``None`` or empty: nothing."""

    def ended(self, side: Side) -> bytes | None:
        """
        `side` ended its stream in order: return what its receiver gets before the end.

        Not called if the connection of `side` breaks.
        """

    def held(self, side: Side) -> int:
        """Return how many bytes from `side` the filter holds."""

    def closed(self) -> None:
        """The session is over: the last call."""


class FilteredSession:
    """
    What a filter may do to its session, at any time until it is over.

    `status` is what is known of the session: a snapshot from when it began to relay.
    """

    def __init__(
        self, status: SessionStatus, upload: Outlet, download: Outlet, name: str = ""
    ) -> None:
        self.status = status
        self._name = name
        self._outlets = {Side.DOWNSTREAM: upload, Side.UPSTREAM: download}

    def is_over(self) -> None:
        """The session is over: nothing has an effect any more.  Called by evproxy."""
        self._outlets = {}

    def send_upload(self, data: bytes) -> None:
        """Send `data` to the server, as if the client had."""
        self._send("send_upload", Side.DOWNSTREAM, data)

    def send_download(self, data: bytes) -> None:
        """Send `data` to the client, as if the server had."""
        self._send("send_download", Side.UPSTREAM, data)

    def _send(self, method: str, side: Side, data: object) -> None:
        if not isinstance(data, bytes):
            raise _wrong(self._name, f"{method} takes bytes", data)
        if self._outlets:
            self._outlets[side].pass_on(data)

    def recount(self) -> None:
        """
        The filter holds fewer bytes than before: ask `Filter.held` again.

        Needed only where a filter drops bytes, or lowers what it holds behind a send, outside of
        its own methods (in a timer): otherwise evproxy asks itself.
        """
        for outlet in tuple(self._outlets.values()):
            outlet.recount()

    def end(self, side: Side) -> None:
        """End the stream of `side`: its receiver gets the end, and the rest is dropped."""
        if not isinstance(side, Side):
            raise _wrong(self._name, "end takes a Side", side)
        if self._outlets:
            self._outlets[side].end()

    def close(self) -> None:
        """End both connections in order, once the client has what was sent to it."""
        if self._outlets:
            self._outlets[Side.UPSTREAM].close(Ending.REQUESTED, False)

    def reset(self) -> None:
        """Reset both connections, once the client has what was sent to it."""
        if self._outlets:
            self._outlets[Side.UPSTREAM].close(Ending.REQUESTED, True)


class FilterStage:
    """
    A filter as a `Stage`.

    :param given: the filter.
    :param status: what is known of the session.
    """

    room = HELD

    def __init__(self, given: object, status: SessionStatus) -> None:
        self._filter: Any = given
        self._name = name_in_code(given)
        self._status = status
        self._upload = getattr(given, "upload", None)
        self._download = getattr(given, "download", None)
        self._held = getattr(given, "held", None)
        self._outlets: dict[Side, Outlet] = {}
        self._session: FilteredSession | None = None

    def start(self, upload: Outlet, download: Outlet) -> None:
        self._outlets = {Side.DOWNSTREAM: upload, Side.UPSTREAM: download}
        started = getattr(self._filter, "started", None)
        if started is not None:
            self._session = FilteredSession(self._status, upload, download, self._name)
            started(self._session)

    def upload(self, data: bytes) -> None:
        self._pass(Side.DOWNSTREAM, data, self._upload, data)

    def download(self, data: bytes) -> None:
        self._pass(Side.UPSTREAM, data, self._download, data)

    def held(self, side: Side) -> int:
        if self._held is None:
            return 0
        held = self._held(side)
        if not isinstance(held, int):
            raise _wrong(self._name, "held must return an int", held)
        return held

    def ended(self, side: Side) -> None:
        self._pass(side, None, getattr(self._filter, "ended", None), side)
        self._outlets[side].end()

    def flush(self, side: Side) -> None:
        """What a filter holds is not whole, and is dropped."""

    def hides(self, side: Side) -> bool:
        return False

    def closed(self) -> None:
        # The filter may keep its session, which must not keep the relay.
        session, self._session, self._outlets = self._session, None, {}
        if session is not None:
            session.is_over()
        closed = getattr(self._filter, "closed", None)
        if closed is not None:
            closed()

    def _pass(
        self, side: Side, data: bytes | None, method: Callable[..., Any] | None, *given: object
    ) -> None:
        """Pass on what `method` returns; if the filter has none, `data`."""
        if method is not None:
            data = method(*given)
            if data is not None and not isinstance(data, bytes):
                raise _wrong(self._name, f"{method.__name__} must return bytes or None", data)
        if data:
            self._outlets[side].pass_on(data)


def _wrong(name: str, rule: str, got: object) -> StageFailed:
    return StageFailed(f"the filter {name}: {rule}, got {type(got).__name__}")


_METHODS = ("started", "upload", "download", "ended", "held", "closed")
"""What a filter may have."""

FilterMaker = Callable[[SessionStatus], object | None]
"""Makes the filter of one session; ``None``: the session has none."""


def filtered(*makers: FilterMaker) -> Callable[[SessionStatus], Sequence[Stage]]:
    """
    Make what a `ProxyFactory` or a `ProxyService` takes as one of its `stages`.

    :param makers: each is called with the `SessionStatus` of a session that has got its server, and
        returns the filter of the session, or ``None``.  A class of filters is a maker if it takes
        that argument.  The client's bytes pass the filters in this order, the server's in the
        opposite order.  If a maker or a filter raises, evproxy logs the exception and resets that
        session.
    """

    def stages(status: SessionStatus) -> Sequence[Stage]:
        made: list[Stage] = []
        try:
            for maker in makers:
                each = maker(status)
                if each is None:
                    continue
                if not any(hasattr(each, method) for method in _METHODS):
                    got = f"{type(each).__name__}, which has no method of a filter"
                    raise StageFailed(f"{name_in_code(maker)}: expected a filter, got {got}")
                made.append(FilterStage(each, status))
        except Exception:
            close_stages(made)
            raise
        return made

    return stages


def filters_named(names: Sequence[str]) -> Callable[[SessionStatus], Sequence[Stage]]:
    """
    Make stages of the makers with `names`.

    :param names: ``MODULE:NAME``, each of a function or a class.  Imports the modules.
    :raises SettingsError: if there is no such function or class.
    """
    return filtered(*map(filter_maker_named, names))


def filter_maker_named(name: str) -> FilterMaker:
    """
    What ``MODULE:NAME`` names; imports the module.

    :raises SettingsError: if there is no such function or class.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        # The module is the user's: it may raise anything.
        raise SettingsError(f"{name}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise SettingsError(f"{name} is neither a function nor a class")
    maker: FilterMaker = found
    return maker
