"""
The pages of the reference are made of the declarations of settings.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from evproxy.config.declare import declared, keys_of, setting
from evproxy.config.document import parse
from evproxy.config.reading import Reading, Surroundings
from evproxy.config.reference import as_toml, table_of
from evproxy.config.rules import Choice, Whole
from evproxy.model import UpstreamServer
from evproxy.settings import (
    AdminSettings,
    Discover,
    Ejection,
    HealthCheck,
    Keepalive,
    ListenerSettings,
    ListenerTLS,
    PoolSettings,
    PoolTLS,
    RouteSettings,
    Settings,
    Timeouts,
)

ROOT = Path(__file__).resolve().parents[2]
TABLES: list[Any] = [
    Settings,
    ListenerSettings,
    ListenerTLS,
    Timeouts,
    AdminSettings,
    PoolSettings,
    PoolTLS,
    RouteSettings,
    UpstreamServer,
    HealthCheck,
    Ejection,
    Discover,
    Keepalive,
]
KEYS = [
    pytest.param(table, each, id=f"{table.__name__}.{each.name}")
    for table in TABLES
    for each in keys_of(table).values()
]


def generator() -> Any:
    """The program that writes the tables of the pages."""
    path = ROOT / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["architecture.md", "configuration.md", "reference.md"])
def test_the_pages_are_up_to_date(page: str) -> None:
    """Each table is up to date.  If this fails, run ``docs/generate.py``."""
    text = (ROOT / "docs" / page).read_text()
    assert generator().generated(text) == text


def test_every_table_is_on_a_page() -> None:
    """No declared table is left out of the pages."""
    text = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert set(re.findall(r"<!-- table: (.+?) -->", text)) == set(generator().tables())


def test_a_page_is_written_anew() -> None:
    """Only the text between the comments is replaced."""
    page = "a\n<!-- table: Timeouts -->\n| old |\n<!-- end -->\nb\n"
    made = generator().generated(page)
    assert made.startswith("a\n<!-- table: Timeouts -->\n\n| Key |")
    assert made.endswith("|\n\n<!-- end -->\nb\n")
    assert "old" not in made


@attrs.frozen
class Example:
    """A table with a setting of each kind."""

    kind: str = setting(Choice(("a", "b")), "Which.", default="a")
    size: int = setting(Whole(1, 9), "How large.", kinds=("b",), default=2)
    must: int = setting(Whole(1, 9), "Needed.", default=0, kinds=("a",), required_for=("a",))
    hidden: int = setting(Whole(1, 9), "Not for files.", default=2, in_file=False)
    odd: str = setting(Choice(("x",)), "Odd.", default="x", default_shown="the only one")


def test_a_table_of_the_reference() -> None:
    """A row has the key, its kinds, what it may be, its default and its meaning."""
    assert table_of(Example) == (
        "| Key | Kinds | Value | Default | Meaning |\n"
        "|---|---|---|---|---|\n"
        '| `kind` | all | one of "a" or "b" | `"a"` | Which. |\n'
        "| `size` | `b` | a whole number from 1 to 9 | `2` | How large. |\n"
        "| `must` | `a` | a whole number from 1 to 9 | required | Needed. |\n"
        '| `odd` | all | one of "x" | the only one | Odd. |\n'
    )


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_default_is_accepted(table: Any, key: Any) -> None:
    """A file may set a key to its default, and that changes nothing."""
    setting = key.setting
    if key.required or setting.required_for or setting.default_shown or key.default is None:
        return
    written = tomllib.loads(f"default = {as_toml(key.default)}")["default"]
    reading = Reading()
    accepted = reading.value(setting.rule, written, ())
    assert reading.problems == []
    assert accepted == key.default
    assert type(accepted) is type(key.default)


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_is_declared(table: Any) -> None:
    """Every field of a table is a declared setting, except the tables that no file has."""
    names = {each.name for each in attrs.fields(table)}
    assert names - {each.name for each in declared(table)} <= {
        "keepalive",
        "name",
        "client_endpoint",
    }


def test_example_file() -> None:
    """The example is a good file."""
    text = (ROOT / "examples" / "evproxy.toml").read_text()
    settings = parse(text, Surroundings())
    assert [listener.name for listener in settings.listeners] == ["web", "cache"]


def test_smallest_file() -> None:
    """The smallest file in the reference is a good one."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    found = re.search(r"smallest one is\n\n((?:    .*\n|\n)+)", text)
    assert found is not None
    assert parse(re.sub("^    ", "", found[1], flags=re.MULTILINE), Surroundings()).pools
