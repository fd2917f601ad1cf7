"""
A client of the admin interface: blocking, one request on each connection.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlencode

from attrs import frozen

from evproxy.config.canonical import host_and_port, is_address
from evproxy.config.rules import HIGHEST_PORT

LONGEST_ANSWER = 256 * 1024 * 1024
"""The most bytes of an answer."""

LONGEST_EVENT = 16 * 1024 * 1024
"""The most bytes of a line of a stream."""

SILENCE = 60.0
"""Seconds without an event after which a stream counts as broken."""

LONGEST_TOKEN = 4096
"""The most bytes of a token file."""

_HOST_AND_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:/?#@]+))(?::(\d{1,5}))?/?")


class Failed(Exception):
    """
    A request has failed: evproxy refuses it.  The message is one line.

    `problems`: a line for each problem, if there may be several.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class Unreachable(Exception):
    """The admin interface cannot be reached, or is none.  The message is one line."""


class WrongPlace(ValueError):
    """A text does not say where an admin interface is.  The message says what is expected."""


@frozen
class Place:
    """
    Where an admin interface is.

    `path`: that of a UNIX socket; empty: it is at `host` and `port`.  `tls`: begin TLS.
    """

    path: str = ""
    host: str = "localhost"
    port: int = 80
    tls: bool = False

    @classmethod
    def of(cls, text: str) -> Place:
        """
        Return the place that `text` says: ``HOST:PORT``, a URL, or ``unix:PATH``.

        :raises WrongPlace: if it is none of these.
        """
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(text.removeprefix("unix:"))
        secure, plain = text.startswith("https://"), text.startswith("http://")
        found = _HOST_AND_PORT.fullmatch(text.partition("://")[2] if secure or plain else text)
        if found is None or not (secure or plain or found[3]):
            raise WrongPlace("expected HOST:PORT, [v6]:PORT, a URL without a path, or unix:PATH")
        if found[1] and not is_address(found[1]):
            raise WrongPlace("there is no IPv6 address in the brackets")
        port = int(found[3] or (443 if secure else 80))
        if not 1 <= port <= HIGHEST_PORT:
            raise WrongPlace(f"a port is a number from 1 to {HIGHEST_PORT}")
        return cls("", found[1] or found[2], port, secure)

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else host_and_port(self.host, self.port)


class _UNIXConnection(http.client.HTTPConnection):
    """HTTP on a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AdminClient:
    """
    Asks an admin interface.

    :param place: where it is.
    :param token: what it wants for a change; empty: nothing.
    :param timeout: seconds that it may take to answer.
    """

    def __init__(self, place: Place, token: str = "", timeout: float = 10.0) -> None:
        self._place = place
        self._token = token
        self._timeout = timeout

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """
        Turn what goes wrong with an answer that evproxy does not give into `Unreachable`.

        Such an answer is no JSON, is cut short, or lacks a key.
        """
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            place = self._place
            raise Unreachable(f"{place} answers, but not as evproxy's admin interface") from None

    def get(self, *parts: str, longer: float = 0.0, **query: Any) -> Any:
        """
        Return the answer for the path of `parts` and the `query`.

        Leaves out what is empty or ``None`` in `query`.

        :param longer: seconds that the answer may take longer than others.
        """
        return json.loads(self.get_bytes(*parts, longer=longer, **query))

    def get_bytes(self, *parts: str, longer: float = 0.0, **query: Any) -> bytes:
        """Return the answer as it came."""
        given = {key: value for key, value in query.items() if value not in ("", None, [])}
        text = urlencode(given, doseq=True)
        return self._ask("GET", _path(parts) + (f"?{text}" if text else ""), None, longer)

    def post(self, *parts: str, longer: float = 0.0, **body: Any) -> Any:
        """Return the answer to a change; `longer` is as in `get`."""
        return json.loads(self._ask("POST", _path(parts), body, longer))

    def pages(self, part: str, key: str, cursor: str, most: int, **query: Any) -> Iterator[Any]:
        """Yield the entries of a list, page by page: at most `most`, 0: all."""
        following: Any = None
        left = most or float("inf")
        while left > 0:
            page = self.get(part, limit=int(min(left, 500)), **{cursor: following}, **query)
            yield from page[key]
            left -= len(page[key])
            following = page["next"]
            if following is None:
                return

    def watch(self, **question: Any) -> LiveView:
        """Return the stream of events of ``/live`` for `question`."""
        path = f"/live?{urlencode(question)}"
        connection, sock, answer = self._answer("GET", path, None, 0.0)
        kind = answer.headers.get("Content-Type") or ""
        if answer.status == 200 and kind.startswith("text/event-stream"):
            return LiveView(self._place, sock, answer)
        try:
            received = answer.read(LONGEST_ANSWER)
        except (OSError, http.client.HTTPException):
            received = b""
        finally:
            connection.close()
        raise _problem(self._place, answer.status, received)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, longer: float) -> bytes:
        connection, _, answer = self._answer(method, path, body, longer)
        try:
            with self._reaching(longer):
                received = answer.read(LONGEST_ANSWER)
        finally:
            connection.close()
        if answer.status == 200:
            return received
        raise _problem(self._place, answer.status, received)

    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, longer: float
    ) -> tuple[http.client.HTTPConnection, socket.socket, http.client.HTTPResponse]:
        """The answer, whose body is still to be read, its connection, and their socket."""
        connection = self._connection(self._timeout + longer)
        headers = {"Connection": "close"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            with self._reaching(longer):
                connection.request(method, path, data, headers)
                # `getresponse` takes the socket away from the connection.
                sock = connection.sock
                return connection, sock, connection.getresponse()
        except Unreachable:
            connection.close()
            raise

    @contextmanager
    def _reaching(self, longer: float) -> Iterator[None]:
        """Turn what goes wrong on the way into `Unreachable`."""
        place = self._place
        try:
            yield
        except TimeoutError:
            patience = self._timeout + longer
            raise Unreachable(f"no answer from {place} within {patience:g} s") from None
        except http.client.HTTPException:
            raise Unreachable(f"no admin interface is at {place}: it speaks no HTTP") from None
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise Unreachable(f"cannot reach the admin interface at {place}: {why}") from None

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        place = self._place
        if place.path:
            return _UNIXConnection(place.path, timeout)
        if place.tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                place.host, place.port, timeout=timeout, context=context
            )
        return http.client.HTTPConnection(place.host, place.port, timeout=timeout)


class LiveView:
    """
    The events of one stream.

    :param place: who sends them, for errors.
    :param sock: the socket on which they come.
    :param answer: the answer whose body they are.
    """

    def __init__(self, place: Place, sock: socket.socket, answer: http.client.HTTPResponse) -> None:
        self._place = place
        self._answer = answer
        self._socket = sock
        sock.settimeout(SILENCE)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """
        Yield the name and the JSON of each event, until the stream ends.

        :raises Unreachable: if the stream breaks.
        """
        name = ""
        try:
            while line := self._answer.readline(LONGEST_EVENT):
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = getattr(error, "strerror", None) or "the stream broke"
            raise Unreachable(f"{self._place} does not go on: {why}") from None
        finally:
            self._answer.close()

    def close(self) -> None:
        """End the stream, also while another thread waits for an event."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def token_in(path: str) -> str:
    """
    Return the token in the file at `path`.

    :raises OSError: if it cannot be read.
    :raises ValueError: if it has no token.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        token = file.read(LONGEST_TOKEN).strip()
    if not token or not token.isascii() or not token.decode().isprintable():
        raise ValueError("it has no token")
    return token.decode()


def _path(parts: tuple[str, ...]) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _problem(place: Place, status: int, received: bytes) -> Exception:
    try:
        found = json.loads(received)
        return Failed(str(found["error"]), tuple(map(str, found.get("problems", ()))))
    except (ValueError, KeyError, TypeError, AttributeError):
        said = f"{place} answered with status {status}, and is no admin interface of evproxy"
        return Unreachable(said)
