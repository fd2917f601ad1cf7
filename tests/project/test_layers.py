"""
The layers of ``docs/architecture.md``, read from the source.

A module imports only from its own layer and from the layers below, and never in a circle.  Imports
inside functions and under ``TYPE_CHECKING`` count too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import twisted.plugins
from attrs import frozen

import evproxy
from tests.support.layers import ENTRY, layer_of

IMPURE = {
    *("asyncio", "os", "select", "selectors", "signal", "socket", "ssl", "subprocess"),
    *("threading", "time", "twisted"),
}
"""The modules that layer 0 may not import: I/O, the clock, and parts of a reactor."""

REACTOR = "twisted.internet.reactor"


@frozen
class Import:
    """One imported name, dotted as in the source, and whether the import is in a function."""

    name: str
    in_function: bool


def imports(tree: ast.AST, package: str, in_function: bool = False) -> Iterator[Import]:
    """Every import in `tree`, relative ones resolved in `package`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, in_function)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", in_function)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, package, in_function or function)


def module_imported(name: str, modules: Mapping[str, object]) -> str | None:
    """The module in `modules` that an import of `name` reaches; ``None`` if there is none."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in modules:
            return prefix
    return None


def is_from(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def violations(sources: Mapping[str, str], packages: set[str]) -> list[str]:
    """
    One line for each broken rule in `sources`, which maps dotted module names to their text.

    `packages`: those of the names that are packages.
    """
    found = []
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        layer = layer_of(module)
        if layer is None:
            found.append(f"{module}: no layer is known for it")
            continue
        package = module if module in packages else module.rpartition(".")[0]
        graph[module] = set()
        for imported in imports(ast.parse(source), package):
            name = imported.name
            if layer == 0 and name.split(".")[0] in IMPURE:
                found.append(f"{module}: layer 0 is pure, and imports {name}")
            if is_from(name, REACTOR) and not imported.in_function:
                found.append(f"{module}: imports the reactor at module level")
            if is_from(name, REACTOR) and layer != ENTRY:
                found.append(
                    f"{module}: imports the reactor, which is passed in below the entry points"
                )
            target = module_imported(name, sources)
            if target is None or target == module:
                continue
            graph[module].add(target)
            below = layer_of(target)
            if below is not None and below > layer:
                found.append(f"{module}: layer {layer:g} imports {target} of layer {below:g}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        *circle, _ = error.args[1]
        start = circle.index(min(circle))
        found.append("a circle of imports: " + " <- ".join(circle[start:] + circle[:start]))
    return found


def read_modules(directory: Path, package: str) -> tuple[dict[str, str], set[str]]:
    """The sources under `directory` by dotted name, and which of them are packages."""
    sources, packages = {}, set()
    for path in sorted(directory.rglob("*.py")):
        parts = [package, *path.relative_to(directory).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
            packages.add(".".join(parts))
        sources[".".join(parts)] = path.read_text()
    return sources, packages


def test_layers() -> None:
    """The source of evproxy and of its plugins follows the rules."""
    [directory] = evproxy.__path__
    sources, packages = read_modules(Path(directory), "evproxy")
    plugins = {
        f"twisted.plugins.{path.stem}": path.read_text()
        for directory in twisted.plugins.__path__
        for path in Path(directory).glob("evproxy_*.py")
    }
    assert len(sources) > 10
    assert plugins
    assert violations(sources | plugins, packages) == []


def test_every_module_without_a_reactor() -> None:
    """Importing every module installs no reactor, so the program can choose its reactor."""
    [directory] = evproxy.__path__
    modules, _ = read_modules(Path(directory), "evproxy")
    program = "import importlib, sys\n"
    program += f"for name in {sorted(modules)!r}: importlib.import_module(name)\n"
    program += f"sys.exit({REACTOR!r} in sys.modules)\n"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


SOUND = {
    "evproxy": "from evproxy.service import ProxyService",
    "evproxy.model": "import enum",
    "evproxy.interfaces": "from evproxy.model import Phase\nfrom twisted.internet import defer",
    "evproxy.relay": "from .socket_relay import join",
    "evproxy.relay.socket_relay": "from evproxy import model\nimport socket",
    "evproxy.relay.stream_relay": "from .socket_relay import join\nfrom .. import model",
    "evproxy.service": "import evproxy.relay.stream_relay\nimport twisted.internet.task",
    "evproxy.cli": (
        "from evproxy import ProxyService\ndef run():\n    from twisted.internet import reactor"
    ),
}


def test_sound_modules() -> None:
    """Modules that follow the rules pass."""
    assert violations(SOUND, {"evproxy", "evproxy.relay"}) == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        pytest.param(
            "evproxy.model",
            "from evproxy.interfaces import Dialer",
            "evproxy.model: layer 0 imports evproxy.interfaces of layer 1",
            id="upwards",
        ),
        pytest.param(
            "evproxy.relay.socket_relay",
            "def late():\n    from .. import service",
            "evproxy.relay.socket_relay: layer 3 imports evproxy.service of layer 7",
            id="upwards in a function, relative",
        ),
        pytest.param(
            "evproxy.session",
            "from evproxy import ProxyService",
            "evproxy.session: layer 6 imports evproxy of layer 8.5",
            id="the public face",
        ),
        pytest.param(
            "evproxy",
            "import evproxy.cli",
            "evproxy: layer 8.5 imports evproxy.cli of layer 9",
            id="the public face to an entry point",
        ),
        pytest.param(
            "evproxy.relay.socket_relay",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import stream_relay",
            "a circle of imports: evproxy.relay.socket_relay <- evproxy.relay.stream_relay",
            id="circle",
        ),
        pytest.param(
            "evproxy.errors",
            "from time import monotonic",
            "evproxy.errors: layer 0 is pure, and imports time.monotonic",
            id="clock in layer 0",
        ),
        pytest.param(
            "evproxy.policy.health",
            "from twisted.python.failure import Failure",
            "evproxy.policy.health: layer 0 is pure, and imports twisted.python.failure.Failure",
            id="Twisted in layer 0",
        ),
        pytest.param(
            "evproxy.cli",
            "if True:\n    from twisted.internet import reactor",
            "evproxy.cli: imports the reactor at module level",
            id="reactor at module level",
        ),
        pytest.param(
            "evproxy.service",
            "def run():\n    import twisted.internet.reactor",
            "evproxy.service: imports the reactor, which is passed in below the entry points",
            id="reactor below the entry points",
        ),
        pytest.param(
            "evproxy.misc",
            "",
            "evproxy.misc: no layer is known for it",
            id="unknown module",
        ),
    ],
)
def test_unsound_module(module: str, source: str, expected: str) -> None:
    """The check finds each broken rule, and names it."""
    assert expected in violations({**SOUND, module: source}, {"evproxy", "evproxy.relay"})


def test_a_package_has_no_code_in_its_init() -> None:
    """
    An ``__init__`` says in one line what its package holds, and at most exports names.

    That of `evproxy` itself exports them when they are used, which another test is about.
    """
    [directory] = evproxy.__path__
    for path in Path(directory).rglob("*/__init__.py"):
        tree = ast.parse(path.read_text())
        docstring = ast.get_docstring(tree)
        assert docstring, path
        for node in tree.body[1:]:
            exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            assert isinstance(node, ast.ImportFrom) or exports, f"{path}: {ast.unparse(node)}"


def test_public_names_are_imported_when_they_are_used() -> None:
    """A module of evproxy brings nothing of Twisted with it; a public name brings what it needs."""
    probe = """
import sys, evproxy.cli.main
assert not [name for name in sys.modules if name.split(".")[0] == "twisted"]
import evproxy
assert not hasattr(evproxy, "Missing") and not hasattr(evproxy, "__missing__")
from evproxy import *
assert ProxyService is evproxy.ProxyService and "ProxyService" in evproxy.__all__
"""
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)
