"""Rules for tables: attrs classes declare the keys, see `evproxy.config.declare`."""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from evproxy.config.declare import Declared, keys_of
from evproxy.config.foreign import ours_for
from evproxy.config.problems import Path, did_you_mean, instance_of, shown
from evproxy.config.reading import Reading, Refused, Rule, Schema, Unfit


def read_table(table: type, values: dict[str, Any], path: Path, reading: Reading) -> Any:
    """
    An instance of `table` with `values`; ``None`` after adding problems to `reading`.

    A class may have `contradictions`, which gets the valid values by their keys, and returns pairs
    of a key and what is wrong with it beside the others.
    """
    keys = keys_of(table)
    before = len(reading.problems)
    for key in values:
        if key not in keys:
            reading.problem((*path, key), f"unknown key{_hint(key, keys)}")
    given, valid = {}, {}
    for key, each in keys.items():
        if key in values:
            found = len(reading.problems)
            given[key] = reading.value(each.setting.rule, values[key], (*path, key))
            if len(reading.problems) == found:
                valid[key] = given[key]
        elif each.required:
            reading.problem((*path, key), "required, but missing")
    if hasattr(table, "contradictions"):
        for key, why in table.contradictions(valid):
            reading.problem((*path, key), why)
    return table(**given) if len(reading.problems) == before else None


def _hint(key: str, keys: dict[str, Any]) -> str:
    # A typo such as "listener" is more likely than a key of another proxy.
    return did_you_mean(key, keys, least=0.9) or ours_for(key) or did_you_mean(key, keys)


def schema_of(table: type) -> Schema:
    """The JSON Schema of a table with the keys of `table`."""
    keys = keys_of(table)
    schema: Schema = {
        "type": "object",
        "properties": {key: _property(each) for key, each in keys.items()},
        "required": [key for key, each in keys.items() if each.required],
        "additionalProperties": False,
    }
    kind = keys.get("kind")
    if kind is not None:
        schema["allOf"] = [
            {
                "if": {"properties": {"kind": {"const": name}}},
                "then": {
                    "required": [
                        key for key, each in keys.items() if name in each.setting.required_for
                    ],
                    "properties": {
                        key: False
                        for key, each in keys.items()
                        if each.setting.kinds and name not in each.setting.kinds
                    },
                },
            }
            for name in kind.setting.rule.schema["enum"]
        ]
    return schema


def _property(each: Declared) -> Schema:
    schema = {**each.setting.rule.schema, "description": each.setting.meaning}
    shown = each.required or each.setting.default_shown or each.setting.required_for
    if not shown and each.default is not None:
        schema["default"] = each.default
    return schema


@frozen
class Table(Rule):
    """A table with the keys of the attrs class `table`."""

    table: type

    @property
    def expected(self) -> str:
        return "a table"

    @property
    def schema(self) -> Schema:
        return schema_of(self.table)

    def accept(self, value: Any, path: Path, reading: Reading) -> Any:
        if isinstance(value, self.table):
            return value
        if reading.of_program:
            raise Refused(f"expected {instance_of(self.table)}, got {value!r}")
        if not isinstance(value, dict):
            raise Unfit
        return read_table(self.table, value, path, reading)


@frozen
class TableOrKey(Table):
    """A table, or only the value of its required key `key`."""

    key: str

    @property
    def _rule(self) -> Rule:
        return keys_of(self.table)[self.key].setting.rule

    @property
    def expected(self) -> str:
        return f"{self._rule.expected}, or a table"

    @property
    def schema(self) -> Schema:
        return {"anyOf": [self._rule.schema, schema_of(self.table)]}

    def accept(self, value: Any, path: Path, reading: Reading) -> Any:
        if reading.of_program:
            return super().accept(value, path, reading)
        if not isinstance(value, str):
            if not isinstance(value, dict | self.table):
                raise Refused(f"expected {self.expected}, got {shown(value)}")
            return super().accept(value, path, reading)
        before = len(reading.problems)
        accepted = reading.value(self._rule, value, path)
        return self.table(**{self.key: accepted}) if len(reading.problems) == before else None


@frozen
class NamedTables(Table):
    """A table of tables; the key of each becomes the attribute `name` of its value."""

    name: Rule

    @property
    def expected(self) -> str:
        return "a table of tables"

    @property
    def schema(self) -> Schema:
        return {
            "type": "object",
            "minProperties": 1,
            "propertyNames": self.name.schema,
            "additionalProperties": schema_of(self.table),
        }

    def accept(self, value: Any, path: Path, reading: Reading) -> tuple[Any, ...]:
        if reading.of_program:
            return self._of_program(value, path, reading)
        if not isinstance(value, dict):
            raise Unfit
        found = []
        for name, table in value.items():
            before = len(reading.problems)
            inside = reading.value(Table(self.table), table, (*path, name))
            if len(reading.problems) == before:
                found.append(evolve(inside, name=name))
        return tuple(found)

    def _of_program(self, value: Any, path: Path, reading: Reading) -> tuple[Any, ...]:
        """A program gives a sequence of objects that have their names."""
        if not isinstance(value, list | tuple):
            raise Refused(f"expected a sequence of {self.table.__name__}, got {value!r}")
        rule = Table(self.table)
        return tuple(reading.value(rule, each, (*path, index)) for index, each in enumerate(value))
