"""
The OpenAPI 3.1 document of the admin interface, from the declarations of its operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from evproxy.admin.operations import PLACES, Operation
from evproxy.config.declare import keys_of
from evproxy.config.reading import Schema
from evproxy.config.tables import schema_of

EVERYWHERE = (400, 403)
"""The problems that every operation may answer with: wrong parameters, and a wrong Host."""

CHANGING = (401, 413, 415)
"""The problems that every operation that changes the proxy may answer with, too."""

MEANINGS = {
    409: "It is not possible in this state.",
    413: "The body is too long.",
}


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document that describes `operations` of evproxy in this `version`."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The admin interface of evproxy",
            "version": version,
            "description": "Times are in seconds, sizes in bytes.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Problem": {
                    "type": "object",
                    "properties": {
                        "error": {"type": "string", "description": "What is wrong, in one line."},
                        "problems": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Every problem, where there may be several.",
                        },
                    },
                    "required": ["error"],
                }
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    problems = {*EVERYWHERE, *operation.problems, *(CHANGING if operation.changes else ())}
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_places(operation), *_query(operation)],
        "responses": {
            "200": {
                "description": "Done.",
                "content": {operation.content_type.partition(";")[0]: {"schema": operation.answer}},
            },
            **{str(code): _problem(code) for code in sorted(problems)},
        },
    }
    if operation.body is not None:
        schema = schema_of(operation.body)
        found["requestBody"] = {
            "required": bool(schema["required"]),
            "content": {"application/json": {"schema": schema}},
        }
    if operation.changes:
        # The token is not required everywhere: the empty alternative says so.
        found["security"] = [{"token": []}, {}]
    return found


def _problem(code: int) -> dict[str, Any]:
    return {
        "description": MEANINGS.get(code, f"{HTTPStatus(code).phrase}."),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _places(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, rule in PLACES.items():
        if f"{{{name}}}" in operation.path:
            schema: Schema = rule.schema
            if schema["type"] == "string":
                schema = {**schema, "minLength": 1}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, each in (keys_of(operation.query) if operation.query else {}).items():
        yield {
            "name": name,
            "in": "query",
            "required": each.required,
            "description": each.setting.meaning,
            "schema": each.setting.rule.schema,
        }
