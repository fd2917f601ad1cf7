"""The OpenAPI document describes what the interface does: schemathesis tries it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.admin_process import ADMIN, LISTEN, ask, port_of
from tests.support.blocking_clients import Upstream
from tests.support.twistd import PATIENCE, Running

CONFIG = """
seed = 1
request-timeout = {patience}
max-failures = 5

[generation]
max-examples = 5

[phases.coverage]
enabled = true

[parameters]
pool = "default"
server = "127.0.0.1:1"
timeout = 0.01

[[operations]]
# A condition of one server needs its pool and its name, and an endpoint is more than a string.
include-name = ["GET /wait", "POST /pools/{{pool}}/servers"]
checks.positive_data_acceptance.enabled = false

[[operations]]
# An answer that does not end; and the words of a filter are counted.
include-name = "GET /live"
enabled = false
"""


def test_the_document_describes_every_operation(upstream: Upstream) -> None:
    """Each operation says what it does, what it takes, and what it answers."""
    with Running("evproxy", LISTEN, upstream.option, ADMIN) as running:
        document = ask(port_of(running), "/openapi.json")
    assert document["openapi"] == "3.1.0"
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names) >= 15
    for each in operations:
        assert each["summary"].endswith(".")
        assert all(parameter.get("schema") for parameter in each["parameters"])
    for path in document["paths"].values():
        if "post" in path:
            assert path["post"]["security"] == [{"token": []}, {}]


@pytest.mark.deadline(100)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Requests made from the document get answers that it describes, and never a traceback."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(patience=PATIENCE))
    proxy = ("evproxy", LISTEN, "--upstream=127.0.0.1:1", ADMIN)
    with Running(*proxy, patience=3 * PATIENCE) as running:
        url = f"http://127.0.0.1:{port_of(running)}/openapi.json"
        program = str(Path(sys.executable).with_name("schemathesis"))
        done = subprocess.run(
            [program, f"--config-file={config}", "run", url, "--no-color"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Tested: 17" in done.stdout
        assert json.dumps(ask(port_of(running), "/status"))
