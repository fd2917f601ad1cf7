"""
The calls of the API: from a method, a path and a body to a status and a body.

Source: ``api.go`` of Toxiproxy 2.12.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

from attrs import frozen

from evproxy.toxiproxy.errors import ApiError, bad_body
from evproxy.toxiproxy.proxies import Proxies
from evproxy.toxiproxy.toxics import new_toxic

VERSION = "2.12.0"
"""The version of Toxiproxy whose API this is: clients ask for it."""

BROWSER = "Mozilla/"
"""The beginning of the User-Agent of browsers, which are refused: a page could call the API."""


@frozen
class Answer:
    """
    The answer to a call.

    `body` is sent as JSON; ``None``: no body.  `text` is sent as it is, in place of `body`.
    """

    status: int
    body: Any = None
    text: str = ""


Call = Callable[[Proxies, Sequence[str], bytes], Awaitable[Answer]]


async def answer(
    proxies: Proxies, method: str, path: str, user_agent: str, content: bytes
) -> Answer:
    """
    Run a call, and return its answer; never raises an `ApiError`.

    :param path: the path of the URL, still quoted, without the query.
    :param user_agent: the header of this name; empty: none.
    :param content: the body of the request.
    """
    if user_agent.startswith(BROWSER):
        return Answer(403, text="User agent not allowed\n")
    parts = [unquote(part) for part in path.strip("/").split("/")]
    shape = tuple(part if number in (0, 2) else "*" for number, part in enumerate(parts))
    calls = CALLS.get(shape)
    if calls is None:
        return Answer(404, text="404 page not found\n")
    call = calls.get(method)
    if call is None:
        return Answer(405)
    try:
        return await call(proxies, parts[1::2], content)
    except ApiError as error:
        return Answer(error.status, error.body)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise bad_body(str(error) if content else "EOF") from None


def _object(content: bytes) -> dict[str, Any]:
    given = _json(content)
    if not isinstance(given, dict):
        raise bad_body("expected an object")
    return given


async def _index(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    return Answer(200, {name: proxy.body for name, proxy in proxies.by_name.items()})


async def _create(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    return Answer(201, proxies.create(_object(content)).body)


async def _populate(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    made, error = await proxies.populate(_json(content))
    body: dict[str, Any] = {"proxies": [proxy.body for proxy in made]}
    return Answer(201, body) if error is None else Answer(error.status, error.body | body)


async def _show(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    return Answer(200, proxies.named(names[0]).body)


async def _update(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    proxies.named(names[0])
    return Answer(200, (await proxies.update(names[0], _object(content))).body)


async def _delete(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    await proxies.delete(names[0])
    return Answer(204)


async def _toxics(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    return Answer(200, [toxic.body for toxic in proxies.named(names[0]).sorted_toxics])


async def _add_toxic(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    proxy = proxies.named(names[0])
    toxic = new_toxic(_object(content))
    proxy.add(toxic)
    return Answer(200, toxic.body)


async def _toxic(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    return Answer(200, proxies.named(names[0]).toxic(names[1]).body)


async def _change_toxic(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    proxy = proxies.named(names[0])
    proxy.toxic(names[1])
    return Answer(200, proxy.change(names[1], _object(content)).body)


async def _remove_toxic(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    proxies.named(names[0]).remove(names[1])
    return Answer(204)


async def _reset(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    proxies.reset()
    return Answer(204)


async def _version(proxies: Proxies, names: Sequence[str], content: bytes) -> Answer:
    return Answer(200, {"version": VERSION})


CALLS: dict[tuple[str, ...], dict[str, Call]] = {
    ("proxies",): {"GET": _index, "POST": _create},
    ("populate",): {"POST": _populate},
    ("proxies", "*"): {"GET": _show, "POST": _update, "PATCH": _update, "DELETE": _delete},
    ("proxies", "*", "toxics"): {"GET": _toxics, "POST": _add_toxic},
    ("proxies", "*", "toxics", "*"): {
        "GET": _toxic,
        "POST": _change_toxic,
        "PATCH": _change_toxic,
        "DELETE": _remove_toxic,
    },
    ("reset",): {"POST": _reset},
    ("version",): {"GET": _version},
}
"""The calls, by the shape of their path and by their method; ``*`` is a name."""
