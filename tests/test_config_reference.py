"""
``docs/configuration.md`` is true: every key, value and default in its tables is the code's.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from evproxy import config
from evproxy.config.fields import fields
from evproxy.config.pool_tables import DISCOVER_KEYS, DISCOVER_REQUIRED, HEALTH_CHECK_KEYS
from evproxy.model import UpstreamServer
from evproxy.settings import (
    Discover,
    Ejection,
    HealthCheck,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
)

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "configuration.md"

SECTIONS: dict[str, type] = {
    "The top level": Settings,
    "`[[listeners]]`": ListenerSettings,
    "`[timeouts]`": Timeouts,
    "`[pools.NAME]`": PoolSettings,
    "Upstream servers": UpstreamServer,
    "Health checks": HealthCheck,
    "Ejection": Ejection,
    "Discovery": Discover,
}
KINDS = {HealthCheck: HEALTH_CHECK_KEYS, Discover: DISCOVER_KEYS}
DEFAULTS_IN_WORDS = {
    (Settings, "listeners"): "required",
    (Settings, "pools"): "required",
    (Settings, "timeouts"): "its defaults",
    (ListenerSettings, "pool"): "the only pool",
}
NOT_IN_THE_FILE = {
    (Settings, "keepalive"),
    (Settings, "access_log"),
    (PoolSettings, "name"),
}

Row = dict[str, str]


def rows(text: str) -> Iterator[tuple[type, str, Row]]:
    """The table, the key and the cells by their heading, of every row of every table in `text`."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        lines = [line.strip("| ") for line in body.splitlines() if line.startswith("|")]
        if not lines:
            continue
        headings, _, *entries = [re.split(r" \| |\|(?=-)", line) for line in lines]
        for entry in entries:
            row = dict(zip(headings, entry, strict=True))
            yield SECTIONS[title], row["Key"].strip("`"), row


ROWS = list(rows(REFERENCE.read_text()))


def row_id(part: object) -> str:
    """How a test of a row is called: by its table and key."""
    return part.__name__ if isinstance(part, type) else part if isinstance(part, str) else ""


every_row = pytest.mark.parametrize(("table", "key", "row"), ROWS, ids=row_id)


def test_every_key() -> None:
    """Each key that a file may have is in the reference once, and so is each setting."""
    documented = [(table, key) for table, key, _ in ROWS]
    accepted = {(table, key) for table, keys in fields("").items() for key in keys}
    assert sorted(documented, key=str) == sorted(accepted, key=str)
    settings = {(table, key) for table in SECTIONS.values() for key in attrs.fields_dict(table)}
    assert settings - NOT_IN_THE_FILE == accepted


@every_row
def test_value(table: type, key: str, row: Row) -> None:
    """What the reference says of a value is what an error message says of a wrong one."""
    assert row["Value"] == fields("")[table][key].expected


@every_row
def test_default(table: Any, key: str, row: Row) -> None:
    """The default in the reference is the code's."""
    required = any(key in keys for keys in DISCOVER_REQUIRED.values()) and table is Discover
    default = getattr(attrs.fields(table), key).default
    if (table, key) in DEFAULTS_IN_WORDS:
        assert row["Default"] == DEFAULTS_IN_WORDS[table, key]
    elif required or default is attrs.NOTHING:
        assert row["Default"] == "required"
    elif default is None:
        assert row["Default"] == "none"
    else:
        written = tomllib.loads(f"default = {row['Default'].strip('`')}")["default"]
        assert written == (list(default) if isinstance(default, tuple) else default)
        assert type(written) is type(default) or isinstance(default, tuple)


@pytest.mark.parametrize(
    ("table", "key", "row"), [row for row in ROWS if row[2]["Default"].startswith("`")], ids=row_id
)
def test_default_is_accepted(table: type, key: str, row: Row) -> None:
    """A file may say the default, and that changes nothing."""
    written = tomllib.loads(f"default = {row['Default'].strip('`')}")["default"]
    accepted = fields("/etc")[table][key](written)
    assert json.dumps(accepted) == json.dumps(written)


@pytest.mark.parametrize(
    ("table", "key", "row"), [row for row in ROWS if "Kinds" in row[2]], ids=row_id
)
def test_kinds(table: type, key: str, row: Row) -> None:
    """The kinds that the reference gives a key to are those that may have it."""
    owners = [kind for kind, keys in KINDS[table].items() if key in keys]
    assert row["Kinds"] == (", ".join(f"`{kind}`" for kind in owners) or "all")


def test_example_file() -> None:
    """The example is a good file."""
    text = (ROOT / "examples" / "evproxy.toml").read_text()
    settings = config.parse(text, "")
    assert [listener.name for listener in settings.listeners] == ["web", "cache"]


def test_smallest_file() -> None:
    """The smallest file in the reference is a good one."""
    found = re.search(r"smallest one is\n\n((?:    .*\n|\n)+)", REFERENCE.read_text())
    assert found is not None
    assert config.parse(re.sub("^    ", "", found[1], flags=re.MULTILINE), "").pools
