"""
Messages between two processes of evproxy, with descriptors: SCM_RIGHTS of unix(7).

A message is one packet of a SOCK_SEQPACKET socket: a JSON object.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from evproxy.errors import EvproxyError

LONGEST = 4096
"""The most bytes of a message."""

MOST_DESCRIPTORS = 128
"""The most descriptors that go along with one message; the kernel allows 253 (SCM_MAX_FD)."""

Message = dict[str, Any]


class NotUnderstood(EvproxyError):
    """What came is no message of evproxy."""


class Ended(EvproxyError):
    """The other process has closed the connection."""


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """
    Send `message`, and duplicates of `descriptors` along with it.

    :raises OSError: if it cannot be sent now.
    """
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
    sock.sendmsg([json.dumps(message).encode()], passed if descriptors else [])


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """
    Return the next message, and the descriptors that came along; the caller closes them.

    :raises OSError: if there is none now.
    :raises Ended: if the other process has closed the connection.
    :raises NotUnderstood: if what came is no message.
    """
    space = socket.CMSG_LEN(MOST_DESCRIPTORS * array("i").itemsize)
    data, along, flags, _ = sock.recvmsg(LONGEST, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, content in along:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    try:
        if not data:
            raise Ended("the other process has closed the connection")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise NotUnderstood("a message is too long")
        try:
            message = json.loads(data)
        except ValueError:
            raise NotUnderstood("a message is not JSON") from None
        if not isinstance(message, dict):
            raise NotUnderstood("a message is no object")
    except EvproxyError:
        close_all(descriptors)
        raise
    return message, list(descriptors)


def close_all(descriptors: Iterable[int]) -> None:
    """Close `descriptors` that came along with a message."""
    for descriptor in descriptors:
        os.close(descriptor)


def user_of(sock: socket.socket) -> int:
    """The user of the process at the other end (SO_PEERCRED of unix(7))."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user: int = struct.unpack("3i", credentials)[1]
    return user
