"""
The documentation is true, as far as a program can check.

Each check is a function from text to faults, so a test can call it with wrong text.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import evproxy
from evproxy.cli.main import main
from evproxy.cli.tap import Options
from evproxy.model import Ending

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
NOTES = ROOT / "docs" / "notes"
CI = ROOT / ".ci" / "run"

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.cfg").exists(), reason="the tests run without the source tree"
)

UNITS = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024 * 1024}
LONG = {".venv/bin/pip": ".venv/bin/python -m pip", "-q": "--quiet", "-e": "--editable"}
"""Short spellings of parts of a command, and their long forms."""


# Markdown.


def markdown_files() -> list[Path]:
    """Every Markdown file of the project, except those of a virtual environment in it."""
    found = [*ROOT.glob("*.md")]
    for folder in (
        "benchmarks",
        "docs",
        "evproxy",
        "examples",
        "fuzz",
        "newsfragments",
        "study",
        "tests",
    ):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def without_fences(text: str) -> str:
    """`text` without its fenced code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def without_code(text: str) -> str:
    """`text` without its code blocks, fenced and indented."""
    return re.sub(r"^ {4}.*$", "", without_fences(text), flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of the headings in `text`, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", without_code(text), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def section(text: str, heading: str) -> str:
    """The text below `heading`, up to the next heading of the same rank or above."""
    rank, _, _ = heading.partition(" ")
    _, _, after = text.partition(f"\n{heading}\n")
    return re.split(rf"^#{{1,{len(rank)}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def cells(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table in `text`, without those of the headings."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        is_heading = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if line.startswith("| ") and not is_heading:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def dead_links(path: Path, text: str) -> list[str]:
    """The links in `text`, the content of `path`, whose target is missing in this tree."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_code(text))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            dead.append(f"{path.relative_to(ROOT)}: {link}: there is no such file")
        elif anchor and anchor not in anchors(target.read_text() if name else text):
            dead.append(f"{path.relative_to(ROOT)}: {link}: there is no such heading")
    return dead


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links(path: Path) -> None:
    """Every link into this tree leads to a file, and to a heading of it."""
    assert dead_links(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("see [x](missing.md)", "missing.md: there is no such file"),
        ("see [x](docs/README.md#nowhere)", "docs/README.md#nowhere: there is no such heading"),
        ("# Here\n[x](#there)", "#there: there is no such heading"),
        ("    # Not a heading\n\n[x](#not-a-heading)", "#not-a-heading: there is no such heading"),
    ],
)
def test_dead_link(text: str, fault: str) -> None:
    """The check finds a dead link."""
    assert dead_links(README, text) == [f"README.md: {fault}"]


def test_good_links() -> None:
    """Links to a file, a heading or another site are no faults; nor are links within code."""
    text = (
        "# It's `me`: 2 of\n## Again\n## Again\n[a](LICENSE) [b](#its-me-2-of) [c](#again-1)"
        " [d](https://example.org/x) `[e](f.md)`\n\n    [g](h.md)\n"
    )
    assert dead_links(README, text) == []


def unlisted(index: str, names: Iterable[str]) -> list[str]:
    """Return the `names` to which `index` has no link."""
    return [name for name in names if f"]({name})" not in index]


def test_every_page_is_in_the_index() -> None:
    """docs/README.md has a link to every page and to every note."""
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    names = sorted(page.as_posix() for page in pages if page.name != "README.md")
    assert unlisted((ROOT / "docs" / "README.md").read_text(), names) == []
    assert unlisted("[x](a.md)", ["a.md", "b.md"]) == ["b.md"]


def test_notes_are_numbered() -> None:
    """The notes are numbered from 1, and the title of each note has its number."""
    paths = sorted(NOTES.glob("*.md"))
    assert [path.name[:4] for path in paths] == [f"{n:04}" for n in range(1, len(paths) + 1)]
    for path in paths:
        assert path.read_text().startswith(f"# {path.name[:4]}: ")


# The modules.


def missing_sources(text: str) -> list[str]:
    """The paths of Python files in `text` that are not in the tree, nor in the package."""
    paths = re.findall(r"`([\w/]+\.py)`", text)
    return [name for name in paths if not any((top / name).exists() for top in SOURCES)]


SOURCES = (ROOT, ROOT / "evproxy", ROOT / "evproxy" / "upstream" / "discovery")


@pytest.mark.parametrize("path", [ARCHITECTURE, *sorted(NOTES.glob("*.md"))], ids=lambda p: p.stem)
def test_sources(path: Path) -> None:
    """Every source file that a page names exists."""
    assert missing_sources(path.read_text()) == []


def test_missing_source() -> None:
    """The check finds a source file that does not exist."""
    assert missing_sources("`model.py`, `tests/conftest.py`, `relay/gone.py`") == ["relay/gone.py"]


def test_every_ending() -> None:
    """The table of how a session ends has every `Ending`, and no other."""
    rows = list(cells(section(ARCHITECTURE.read_text(), "## How a session ends")))
    assert {row[2].strip("`") for row in rows} - {""} == {ending.value for ending in Ending}


# The bounds.


def value_at(place: str) -> object:
    """The constant, the default of a setting, or the size of a cache, at the dotted `place`."""
    parts = place.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if attrs.has(found):
                found = attrs.fields_dict(found)[part].default
            else:
                found = getattr(found, part)
        return found.cache_parameters()["maxsize"] if callable(found) else found
    raise AttributeError(place)


def value_of(written: str) -> object:
    """The number, or numbers, in ``64 KiB``, ``0.05 s``, ``(1.0, 2.0) s``."""
    match = re.fullmatch(r"(\([^)]*\)|[\d.]+) ?(\w*)", written)
    if match is None:
        raise ValueError(f"{written!r} is not a value")
    value = ast.literal_eval(match[1])
    return value if isinstance(value, tuple) else value * UNITS[match[2]]


def wrong_bounds(text: str) -> list[str]:
    """The rows of the tables in `text` whose value differs from the code."""
    faults = []
    for _, written, place in cells(text):
        try:
            value = value_at(place.strip("`"))
        except (AttributeError, KeyError) as error:
            faults.append(f"{place}: there is no {error}")
            continue
        if value != value_of(written):
            faults.append(f"{place}: {written}, but it is {value}")
    return faults


def test_bounds() -> None:
    """Every bound on the page has the same value as in the code."""
    text = section(ARCHITECTURE.read_text(), "## What is bounded")
    assert len(list(cells(text))) > 50
    assert wrong_bounds(text) == []


@pytest.mark.parametrize(
    ("written", "place", "good"),
    [
        ("64 KiB", "evproxy.engine.loop.CHUNK", True),
        ("65536", "evproxy.engine.loop.CHUNK", True),
        ("64", "evproxy.engine.loop.CHUNK", False),
        ("30 s", "evproxy.settings.Timeouts.drain", True),
        ("31 s", "evproxy.settings.Timeouts.drain", False),
        ("256", "evproxy.model.close_reason", True),
        ("255", "evproxy.model.close_reason", False),
        ("1", "evproxy.settings.Timeouts.missing", False),
        ("1", "evproxy.engine.loop.MISSING", False),
        ("1", "evproxy.missing.CHUNK", False),
    ],
)
def test_wrong_bounds(written: str, place: str, good: bool) -> None:
    """The check finds a wrong value, and a place that does not exist."""
    faults = wrong_bounds(f"| what | bound | place |\n|---|---|---|\n| x | {written} | `{place}` |")
    assert bool(faults) is not good


# The examples in README.md.


def python_blocks(text: str) -> list[str]:
    """The blocks of Python in `text`."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def wrong_names(source: str) -> list[str]:
    """
    Return the imported names that `source` uses, but that do not exist.

    This function checks imported names, their attributes, methods of new objects of imported
    classes, and the arguments of such calls.
    """
    tree = ast.parse(source)
    known: dict[str, Any] = {}
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if hasattr(module, alias.name):
                    known[alias.asname or alias.name] = getattr(module, alias.name)
                else:
                    faults.append(f"{node.module} has no {alias.name}")
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call(ast.Name(called))) if called in known:
                known[name] = known[called]
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name(name), attribute) if name in known:
                if not hasattr(known[name], attribute):
                    faults.append(f"{name} has no {attribute}")
            case ast.Call(ast.Name(name)) if name in known:
                faults += wrong_arguments(name, known[name], node)
    return faults


def wrong_arguments(name: str, called: Any, call: ast.Call) -> list[str]:
    """Return why `called` does not accept the arguments of `call`, if it does not."""
    try:
        signature = inspect.signature(called)
    except ValueError:
        return []  # some zope classes have no signature
    keywords: dict[str, Any] = {each.arg: None for each in call.keywords if each.arg}
    try:
        signature.bind(*call.args, **keywords)
    except TypeError as error:
        return [f"{name}: {error}"]
    return []


@pytest.mark.parametrize("source", python_blocks(README.read_text()))
def test_readme_python(source: str) -> None:
    """The Python in README.md compiles, and uses names that exist."""
    compile(source, "README.md", "exec")
    assert wrong_names(source) == []


def test_readme_has_python() -> None:
    """README.md has blocks of Python, and one is a .tac file."""
    blocks = python_blocks(README.read_text())
    assert len(blocks) > 1
    assert any("application = " in block for block in blocks)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from evproxy import Proxy", "evproxy has no Proxy"),
        ("from evproxy import Pool\nPool(1, size=2)", "Pool: got an unexpected keyword"),
        ("from evproxy import Pool\npool = Pool(1)\npool.empty()", "pool has no empty"),
    ],
)
def test_wrong_names(source: str, fault: str) -> None:
    """The check finds a name, an argument or a method that does not exist."""
    [found] = wrong_names(source)
    assert found.startswith(fault)


def commands(text: str) -> list[str]:
    """The commands in the indented code blocks of `text`, one for each line."""
    return re.findall(r"^ {4}(\S.*)$", without_fences(text), flags=re.MULTILINE)


def in_full(command: str) -> str:
    """Return `command` with the long forms of its parts."""
    return shlex.join(
        word for part in shlex.split(command) for word in shlex.split(LONG.get(part, part))
    )


def not_in_ci(readme: str, ci: str) -> list[str]:
    """Return the steps of the two commands of `readme` that are not in `ci`, except the demo."""
    script = [in_full(line) for line in ci.splitlines() if line.startswith((".venv", "python3"))]
    [show, *show_setup], [test, *test_setup] = [
        list(reversed([in_full(step) for step in line.split(" && ")]))
        for line in commands(readme)
        if " && " in line
    ]
    faults = [step for step in reversed([test, *test_setup]) if step not in script]
    faults += [step for step in reversed(show_setup) if step not in script]
    if script[-1:] != [test]:
        faults.append(f"{test} is not the last")
    if show != ".venv/bin/twistd -n evproxy --demo":
        faults.append(f"{show} is not the demo")
    return faults


@pytest.mark.skipif(not CI.exists(), reason="an sdist has no .ci")
def test_readme_commands() -> None:
    """The commands in README.md are the same as in .ci/run."""
    assert not_in_ci(README.read_text(), CI.read_text()) == []


SETUP = "python3 -m venv .venv && .venv/bin/pip install -q -e ."
SHOW = f"    {SETUP} && .venv/bin/twistd -n evproxy --demo\n"
TEST = f"    {SETUP} && .venv/bin/python -m pytest\n"
SCRIPT = (
    "python3 -m venv .venv\n.venv/bin/python -m pip install --quiet --editable .\n"
    ".venv/bin/python -m pytest\n"
)


@pytest.mark.parametrize(
    ("readme", "script", "good"),
    [
        (SHOW + TEST, SCRIPT, True),
        (SHOW + TEST.replace("-m pytest", "-m pytest -x"), SCRIPT, False),
        (SHOW + TEST.replace("-e .", "-e .[dev]"), SCRIPT, False),
        (SHOW.replace("-e .", "-e .[dev]") + TEST, SCRIPT, False),
        (SHOW.replace("--demo", "--upstream=:1") + TEST, SCRIPT, False),
        (SHOW + TEST, SCRIPT + ".venv/bin/python -m tox\n", False),
    ],
)
def test_other_commands(readme: str, script: str, good: bool) -> None:
    """The check finds commands that differ."""
    assert bool(not_in_ci(readme, script)) is not good


@pytest.mark.parametrize("command", commands(README.read_text()))
def test_readme_command_lines(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """evproxy understands every command line in README.md."""
    monkeypatch.chdir(ROOT)
    assert_understood(command.split(" && ")[-1])


def assert_understood(command: str) -> None:
    """Check that `command` is one of evproxy's, or of the tests, and has correct arguments."""
    match shlex.split(command):
        case ["twistd" | ".venv/bin/twistd", "-n", "evproxy", *arguments]:
            Options().parseOptions(arguments)
        case ["python", "-m", "evproxy", *arguments]:
            assert main(arguments) == 0
        case other:
            assert other == [".venv/bin/python", "-m", "pytest"]


@pytest.mark.parametrize(
    "command",
    [
        "twistd -n evproxy --nonsense",
        "twistd -n evproxy --upstream=nowhere",
        "python -m evproxy check missing.toml",
        "evproxy",
    ],
)
def test_wrong_command_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The check finds a command line with a mistake."""
    with pytest.raises((SystemExit, AssertionError)):
        assert_understood(command)


# README.md about the library.

ENTRY_ONLY = {"gc", "signal", "setrlimit", "callWhenRunning", "globalLogBeginner", "startLogging"}
"""The names of functions and modules that only the process of evproxy may use, not the library."""


def changes_to_the_process(source: str) -> set[str]:
    """The names of `ENTRY_ONLY` that `source` uses."""
    used = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names) | ast.ImportFrom(_, names):
                used |= {alias.name for alias in names}
            case ast.Attribute(_, name):
                used.add(name)
    return used & ENTRY_ONLY


def test_a_library_leaves_the_process_alone() -> None:
    """
    Only `process` changes limits, logging and the garbage collector; only `signals` has handlers.

    `toxiproxy` is a process of its own, which begins its log.
    `threads` uses `signal` only for the mask of evproxy's own threads.  A watchdog, for a program
    that asks for one, is notified of collections, and begins once the reactor runs.  A worker is a
    process of its own, and the supervisor starts workers once the reactor runs; `workers/process`
    uses `signal` for names.  `evproxy.testing` waits until a reactor of its own runs.
    """
    [directory] = map(Path, evproxy.__path__)
    changing = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*.py")
        if changes_to_the_process(path.read_text())
    }
    watchdog = {"observe/watchdog/garbage.py", "observe/watchdog/watchdog.py"}
    process = {"cli/process.py", "cli/replay.py", "cli/toxiproxy.py"}
    process |= {"engine/threads.py", "service/signals.py"}
    workers = {"cli/worker.py", "workers/process.py", "workers/supervisor.py"}
    assert changing == process | watchdog | workers | {"testing/thread.py"}


@pytest.mark.parametrize(
    "source",
    ["import gc", "import resource\nresource.setrlimit(1, 2)", "from signal import signal"],
)
def test_a_library_that_changes_the_process(source: str) -> None:
    """The check finds each such use."""
    assert changes_to_the_process(source)
