"""
The fields of what the admin interface shows: declared once, for the answer and its schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from evproxy.config.reading import Schema

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
MAYBE_WHOLE: Schema = {"type": ["integer", "null"]}
COUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}
TEXTS: Schema = {"type": "array", "items": TEXT}


@frozen
class Field:
    """
    One field of an object.

    `get` returns the value for the thing that is shown, `schema` describes it, and `meaning` says
    what it is.
    """

    schema: Schema
    get: Callable[[Any], Any]
    meaning: str


Fields = Mapping[str, Field]
"""The fields of one kind of object, by name."""


def shown(fields: Fields, thing: Any) -> dict[str, Any]:
    """The object that shows `thing`."""
    return {name: field.get(thing) for name, field in fields.items()}


def schema_of_fields(fields: Fields) -> Schema:
    """The schema of the object that shows a thing."""
    return of_object(
        {
            name: {**field.schema, "description": field.meaning} if field.meaning else field.schema
            for name, field in fields.items()
        }
    )


def of_object(properties: Mapping[str, Schema]) -> Schema:
    """The schema of an object that has all of `properties`."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def array_of(schema: Schema) -> Schema:
    """The schema of an array of values that `schema` describes."""
    return {"type": "array", "items": schema}
