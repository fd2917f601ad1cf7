"""The JSON Schema of the configuration file: what it accepts, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from evproxy.config.schema import file_schema
from tests.support.configs import EVERYTHING, LISTENERS, SOUND

VALIDATOR = jsonschema.Draft202012Validator(file_schema())
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "evproxy.toml"


def faults(text: str) -> list[str]:
    """What the schema finds wrong with `text`: the paths of the keys."""
    return sorted({error.json_path for error in VALIDATOR.iter_errors(tomllib.loads(text))})


def test_it_is_a_schema() -> None:
    """The schema is valid for its draft."""
    jsonschema.Draft202012Validator.check_schema(file_schema())


@pytest.mark.parametrize("text", [SOUND, EVERYTHING, EXAMPLE.read_text()])
def test_good_files(text: str) -> None:
    """The schema accepts a good file."""
    assert faults(text) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (LISTENERS, "$"),
        ("[pools.web]\nupstreams = ['a:1']\n", "$"),
        (f"{SOUND}wieght = 1\n", "$.pools.web"),
        (f"{SOUND}balance = 'fair'\n", "$.pools.web.balance"),
        (f"{SOUND}connect_timeout = 0\n", "$.pools.web.connect_timeout"),
        (f"{SOUND}connect_timeout = true\n", "$.pools.web.connect_timeout"),
        (f"{LISTENERS}[pools.web]\nupstreams = [{{weight = 1}}]\n", "$.pools.web.upstreams[0]"),
        (f"{LISTENERS}[pools.'a b']\nupstreams = ['a:1']\n", "$.pools"),
        (f"{SOUND}health_check = {{kind = 'https'}}\n", "$.pools.web.health_check.kind"),
        (f"{SOUND}health_check = {{kind = 'tcp', path = '/'}}\n", "$.pools.web.health_check"),
        (f"{SOUND}health_check = {{path = '/'}}\n", "$.pools.web.health_check"),
        (f"{SOUND}discover = {{kind = 'dns', name = 'a'}}\n", "$.pools.web.discover"),
        (f"{SOUND}[timeouts]\nidle = -1\n", "$.timeouts.idle"),
    ],
)
def test_bad_files(text: str, path: str) -> None:
    """The schema refuses a wrong value, and names its key."""
    assert path in faults(text)


@pytest.mark.parametrize(("text", "status"), [(EVERYTHING, 0), (f"{SOUND}wieght = 1\n", 1)])
def test_a_toml_tool_takes_it(tmp_path: Path, text: str, status: int) -> None:
    """taplo, which editors use, checks a file with the schema."""
    schema, file = tmp_path / "schema.json", tmp_path / "evproxy.toml"
    schema.write_text(json.dumps(file_schema()))
    file.write_text(text)
    taplo = Path(sys.executable).with_name("taplo")
    done = subprocess.run(
        [taplo, "check", "--schema", schema.as_uri(), str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr


def test_an_editor_can_explain_each_key() -> None:
    """Each key has a description, and its default where it has a plain one."""
    pool = file_schema()["properties"]["pools"]["additionalProperties"]["properties"]
    assert pool["connect_timeout"] == {
        "type": "number",
        "minimum": 0.001,
        "maximum": 31536000,
        "description": "The timeout of one attempt to connect to one server.",
        "default": 5.0,
    }
    assert all(each["description"] for each in pool.values())


def test_it_is_printed() -> None:
    """``evproxy schema`` prints the schema, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "evproxy", "schema"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(file_schema()))
