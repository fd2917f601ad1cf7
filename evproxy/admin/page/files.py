"""
Serves the files of the status page.
"""

from __future__ import annotations

from importlib.resources import files

from evproxy.admin.answers import Answer
from evproxy.admin.operations import Operation

TYPES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "tables.js": "text/javascript; charset=utf-8",
    "plots.js": "text/javascript; charset=utf-8",
    "actions.js": "text/javascript; charset=utf-8",
    "text.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files of the page, and their types."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Only the files of the page run and load, no text becomes HTML, and no other page shows this one
(W3C, "Content Security Policy Level 3" and "Trusted Types")."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def page_operations() -> tuple[Operation, ...]:
    """The operations that serve the page.  Reads its files now."""
    return tuple(_serve(name, content_type) for name, content_type in TYPES.items())


def _serve(name: str, content_type: str) -> Operation:
    answer = Answer(
        files("evproxy.admin.page").joinpath(name).read_bytes(),
        content_type=content_type,
        headers=HEADERS,
    )
    return Operation(
        "GET",
        "/" if name == "page.html" else f"/{name}",
        name,
        "A file of the status page.",
        lambda context, asked: answer,
        content_type=content_type,
        described=False,
    )
