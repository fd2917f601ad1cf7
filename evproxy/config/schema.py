"""
The JSON Schema (draft 2020-12) of the configuration file, for editors and linters of TOML.

It says what a file may be key by key, with the meaning of each key.  What is wrong between keys,
and in an endpoint description, only ``evproxy check`` finds.
"""

from __future__ import annotations

from evproxy.config.rules import Schema
from evproxy.config.tables import schema_of
from evproxy.settings import Settings


def file_schema() -> Schema:
    """The schema of a configuration file."""
    schema = schema_of(Settings)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration file of evproxy",
        **schema,
        # Their defaults are for programs: a file has to have both.
        "required": ["listeners", "pools"],
    }
