"""
The JSON Schema (draft 2020-12) of the configuration file, for editors and linters of TOML.

The schema describes each key by itself, with its meaning.  Only ``evproxy check`` finds a wrong
endpoint description and keys that contradict each other.
"""

from __future__ import annotations

from evproxy.config.reading import Schema
from evproxy.config.tables import schema_of
from evproxy.settings import Settings


def file_schema() -> Schema:
    """The schema of a configuration file."""
    schema = schema_of(Settings)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration file of evproxy",
        **schema,
        # A program may leave them out, a file may not.
        "required": ["listeners", "pools"],
    }
