"""
What the admin interface answers: a body with its status, or one line about a problem.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from evproxy.escape import printable

JSON = "application/json"


@frozen
class Answer:
    """
    The answer to a request.

    `body` has the type `content_type`.  `code` is the status of HTTP, and `headers` are further
    headers.
    """

    body: bytes
    code: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Streamed:
    """
    An answer that goes on: `start` is called with the request, and writes and ends the body.

    The body has the type `content_type`.
    """

    start: Callable[[Any], None]
    content_type: str


class Problem(Exception):
    """
    A request cannot be answered.  The message is one line for the user.

    :param code: the status of HTTP.
    :param message: what is wrong, and where.
    :param headers: further headers of the answer.
    :param problems: one line for each problem, where one request may have several.
    """

    def __init__(
        self,
        code: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__(printable(message))
        self.code = code
        self.headers = headers or {}
        self.problems = tuple(problems)

    @property
    def answer(self) -> Answer:
        """The problem as an answer: an object with the key ``error``, perhaps ``problems``."""
        found: dict[str, Any] = {"error": str(self)}
        if self.problems:
            found["problems"] = self.problems
        return Answer(encoded(found) + b"\n", self.code, headers=self.headers)


def encoded(value: Any) -> bytes:
    """`value` as JSON, in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode()


def as_json(value: Any) -> Answer:
    """The answer with `value` as JSON, in one line."""
    return Answer(encoded(value) + b"\n")
