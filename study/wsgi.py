"""The program that gunicorn runs in the study: it asks the upstream server, and passes that on."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterable
from typing import Any

from .computing import compute
from .worker import LOOPBACK


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application; the hook computes for clients from its address."""
    compute(environ["REMOTE_ADDR"])
    connection = http.client.HTTPConnection(LOOPBACK, int(os.environ["STUDY_UPSTREAM"]), timeout=5)
    connection.request("GET", f"/?{environ['QUERY_STRING']}", headers={"Connection": "close"})
    answer = connection.getresponse()
    start_response("200 OK", [("Content-Length", str(answer.length))])
    return _parts(answer, connection)


def _parts(
    answer: http.client.HTTPResponse, connection: http.client.HTTPConnection
) -> Iterable[bytes]:
    try:
        while part := answer.read1(65536):
            yield part
    finally:
        connection.close()
