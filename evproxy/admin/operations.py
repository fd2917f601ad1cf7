"""
An operation of the admin interface: its method and path, what it takes, and what it answers.

An operation is declared once.  The interface finds and runs operations, and the OpenAPI document
describes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from evproxy.admin.answers import JSON, Answer, Problem, Streamed
from evproxy.admin.contract import Administered
from evproxy.config.problems import quoted
from evproxy.config.reading import Reading, Rule, Schema, Unfit
from evproxy.config.rules import Text, Whole

MOST_ID = 2**53 - 1
"""The highest number of a session that JSON can carry exactly (RFC 8259, section 6)."""

PLACES: Mapping[str, Rule] = {"pool": Text(), "server": Text(), "id": Whole(1, MOST_ID)}
"""The parts of a path that stand for something, and the values that they accept."""


@frozen
class Asked:
    """
    What a request asks.

    `places`: the parts of the path that stand for something.  `query` and `body`: an instance of
    the operation's class for each, or ``None``.  `accept`: the header Accept.
    """

    places: Mapping[str, Any]
    query: Any = None
    body: Any = None
    accept: str = ""


@frozen
class Context:
    """What an operation works on: the reactor, and the proxy; and the version of evproxy."""

    reactor: Any
    proxy: Administered
    version: str


Run = Callable[[Context, Asked], Answer | Streamed | Awaitable[Answer]]


@frozen
class Operation:
    """
    One operation.

    :param method: ``GET``, or ``POST`` if it changes the proxy.
    :param path: the path, with parts such as ``{pool}``.
    :param name: a short name, for programs that read the OpenAPI document.
    :param summary: what it does, in a sentence.
    :param run: does it; may be a coroutine.  It raises `Problem`.
    :param answer: the schema of the answer.
    :param query, body: classes whose fields `evproxy.config.declare.setting` has made.
    :param problems: which statuses it answers besides those that every operation may answer.
    :param content_type: the type of the answer.
    :param described: whether the OpenAPI document has it.
    """

    method: str
    path: str
    name: str
    summary: str
    run: Run
    answer: Schema = field(factory=dict)
    query: type | None = None
    body: type | None = None
    problems: tuple[int, ...] = ()
    content_type: str = JSON
    described: bool = True

    @property
    def changes(self) -> bool:
        """Whether it changes the proxy."""
        return self.method == "POST"

    def matches(self, parts: list[str]) -> dict[str, str] | None:
        """The parts of the path that stand for something; ``None`` if `parts` do not match."""
        wanted = self.path[1:].split("/")
        if len(wanted) != len(parts):
            return None
        found = {}
        for here, given in zip(wanted, parts, strict=True):
            if here.startswith("{"):
                found[here[1:-1]] = given
            elif here != given:
                return None
        return found


def find(
    operations: Iterable[Operation], method: str, parts: list[str]
) -> tuple[Operation, Mapping[str, Any]]:
    """
    Return the operation for `method` and the parts of a path, and what the parts stand for.

    :raises Problem: if there is none.
    """
    allowed: list[str] = []
    for each in operations:
        found = each.matches(parts)
        if found is None:
            continue
        accepted = ("GET", "HEAD") if each.method == "GET" else (each.method,)
        if method in accepted:
            return each, {name: _place(name, text) for name, text in found.items()}
        allowed += accepted
    if allowed:
        methods = ", ".join(allowed)
        raise Problem(405, f"{method} is not possible here, only {methods}", {"Allow": methods})
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    raise Problem(404, f"there is nothing at {path}: /openapi.json says what there is")


def _place(name: str, text: str) -> Any:
    rule = PLACES[name]
    try:
        return rule.accept(text, (), Reading()) if isinstance(rule, Text) else rule.read(text)
    except Unfit:
        raise Problem(400, f"{name}: expected {rule.expected}, got {quoted(text)}") from None
