"""
The requests to etcd, its answers, and the servers in its keys.

Pure.  etcd's HTTP gateway has the gRPC messages of the v3 API as JSON, with bytes in base64 and
64-bit numbers as strings.  A watch answers with one JSON text for each line
(etcd manual, "gRPC gateway"; ``api/etcdserverpb/rpc.proto``).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from evproxy.errors import EvproxyError
from evproxy.escape import escaped
from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.server_list import (
    ItemReader,
    Unreadable,
    ValidateEndpoint,
    read_json,
    shown_fault,
)
from evproxy.upstream.reasons import from_outside, one_line

SIZE_LIMIT = 4 * 1024 * 1024
"""The limit in bytes for one answer, for one line of a watch, and for all keys and values."""


class EtcdError(EvproxyError):
    """A request to etcd failed.  The message is a short reason."""


@frozen
class Snapshot:
    """All keys under a prefix, with their values, at one `revision`."""

    revision: int
    values: Mapping[bytes, bytes]


@frozen
class Update:
    """
    One line of a watch.

    `changes` has the new value of each changed key; ``None`` if the key was deleted.
    `ended` is why the watch has ended; empty if it continues.
    """

    changes: tuple[tuple[bytes, bytes | None], ...] = ()
    ended: str = ""


def range_request(prefix: str) -> bytes:
    """The body of a request for every key that begins with `prefix`."""
    return json.dumps(_keys(prefix)).encode()


def watch_request(prefix: str, revision: int) -> bytes:
    """The body of a request for every change under `prefix` from `revision` on."""
    create = {**_keys(prefix), "start_revision": str(revision)}
    return json.dumps({"create_request": create}).encode()


def _keys(prefix: str) -> dict[str, str]:
    key = prefix.encode()
    return {"key": _base64(key), "range_end": _base64(end_of_range(key))}


def end_of_range(prefix: bytes) -> bytes:
    """The first key after the keys with `prefix`; NUL means "to the end" (`RangeRequest`)."""
    shortened = prefix.rstrip(b"\xff")
    return shortened[:-1] + bytes([shortened[-1] + 1]) if shortened else b"\0"


def read_snapshot(body: bytes) -> Snapshot:
    """Parse the answer to a `range_request`."""
    try:
        answer = read_json(body)
        values = dict(_key_and_value(entry) for entry in answer.get("kvs", ()))
        return Snapshot(int(answer["header"]["revision"]), values)
    except (Unreadable, *NOT_AS_DOCUMENTED):
        raise EtcdError("the answer is not an etcd answer") from None


def read_update(line: bytes) -> Update:
    """Parse one line of the answer to a `watch_request`."""
    try:
        message = read_json(line)
        if "error" in message:
            return Update(ended=f"the watch failed: {error_in(message)}")
        result = message["result"]
        changes = tuple(_change(event) for event in result.get("events", ()))
        if int(result.get("compact_revision", 0)):
            return Update(changes, "the revision has been compacted")
        if result.get("canceled"):
            return Update(changes, f"the watch was canceled: {_text(result, 'cancel_reason')}")
        return Update(changes)
    except (Unreadable, *NOT_AS_DOCUMENTED):
        raise EtcdError("a line of the watch is not an etcd answer") from None


NOT_AS_DOCUMENTED = (
    AttributeError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
    binascii.Error,
)
"""The exceptions while reading JSON that does not have the documented structure."""


def error_in(message: Mapping[str, Any]) -> str:
    """The reason in an error message; the gateway has several forms of it."""
    error = message.get("error", "")
    return _text(error, "message") if isinstance(error, dict) else _text(message, "error")


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key, "")
    return from_outside(value) if isinstance(value, str) else "not a string"


def refusal(status: int, body: bytes) -> str:
    """The reason in an answer whose HTTP status is not 200."""
    try:
        return one_line(f"status {status}: {error_in(read_json(body))}")
    except (Unreadable, AttributeError):
        return f"status {status}"


def _change(event: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
    key, value = _key_and_value(event["kv"])
    return key, None if event.get("type") == "DELETE" else value


def _key_and_value(entry: Mapping[str, str]) -> tuple[bytes, bytes]:
    # etcd does not send empty values.
    key = base64.b64decode(entry.get("key", ""), validate=True)
    return key, base64.b64decode(entry.get("value", ""), validate=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class Lines:
    """Splits a stream of bytes into lines.  `EtcdError` for a line longer than `limit` bytes."""

    def __init__(self, limit: int = SIZE_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes, without empty lines."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            complete = bytes(self._rest) + line
            self._rest.clear()
            if complete.strip():
                yield complete
        self._rest += rest
        if len(self._rest) > self._limit:
            raise EtcdError(f"a line of the watch is longer than {self._limit} bytes")


@frozen
class _Value:
    data: bytes
    item: object = None
    fault: str = ""


class Registry:
    """The keys under a prefix, and the servers in their values."""

    def __init__(self, validate: ValidateEndpoint | None = None, limit: int = SIZE_LIMIT) -> None:
        self._read = ItemReader(validate).items
        self._limit = limit
        self._values: dict[bytes, _Value] = {}
        self._size = 0

    def replace(self, values: Mapping[bytes, bytes]) -> None:
        """Replace all keys and values."""
        self._values = {key: known for key, known in self._values.items() if key in values}
        self._size = sum(len(key) + len(known.data) for key, known in self._values.items())
        self.apply(values.items())

    def apply(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Set these values; ``None`` deletes the key.  `EtcdError` beyond the limit."""
        for key, data in changes:
            known = self._values.get(key)
            if known is not None:
                if known.data == data:
                    continue
                self._size -= len(key) + len(known.data)
                del self._values[key]
            if data is not None:
                self._size += len(key) + len(data)
                self._values[key] = _read_value(data)
        if self._size > self._limit:
            raise EtcdError(f"the keys and values are longer than {self._limit} bytes")

    def servers(self) -> tuple[tuple[UpstreamServer, ...], tuple[str, ...]]:
        """The servers in the order of their keys, and the faults of all other values."""
        keys = sorted(self._values)
        readable = [key for key in keys if not self._values[key].fault]
        items = self._read([self._values[key].item for key in readable])
        faults = {key: self._values[key].fault for key in keys if self._values[key].fault}
        for index, fault in items.faults.items():
            faults[readable[index]] = shown_fault((), fault) if fault.path else fault.message
        servers = tuple(server for server in items.servers if server is not None)
        lines = (
            f"{escaped(key.decode('utf-8', 'surrogateescape'))}: {faults[key]}"
            for key in sorted(faults)
        )
        return servers, tuple(map(one_line, lines))


def _read_value(data: bytes) -> _Value:
    try:
        return _Value(data, read_json(data))
    except Unreadable as error:
        return _Value(data, fault=str(error))
