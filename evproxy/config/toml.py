"""
Text in, TOML document out, or one error.

Turns every exception of the standard library's parser into one line, with the line and column
if the parser gives them.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TABLE_TWICE = re.compile(r"Cannot declare \(.*\) twice", re.DOTALL)
_KEY_TWICE = "Cannot overwrite a value"


class NotToml(ValueError):
    """The text is not TOML.  The message is one line, and says where."""


def read_toml(text: str) -> dict[str, Any]:
    """
    The document in `text`.

    Raises `NotToml` if `text` is not TOML, has a number that is too long to read, or nests
    arrays too deeply for the parser.
    """
    text = text.removeprefix("\ufeff")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotToml(_at(text, error.start, "a character that cannot be UTF-8")) from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise NotToml("arrays or tables are nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise NotToml(_placed(text, str(error))) from None
    except ValueError:
        raise NotToml("a number has too many digits") from None


def _placed(text: str, message: str) -> str:
    found = _PLACE.fullmatch(message)
    if found is None:
        return message
    what, line, column = found.groups()
    what = _TABLE_TWICE.sub("this table is declared twice", what)
    what = what.replace(_KEY_TWICE, "this key is given twice")
    if line is None:
        return _at(text, len(text), what)
    return f"line {line}, column {column}: {what}"


def _at(text: str, offset: int, what: str) -> str:
    """`what` with the line and column (both from 1) of `offset` in `text`."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"line {line}, column {column}: {what}"
