"""
The packages: a wheel, an sdist and an editable install each make ``twistd`` list evproxy.

The tests build from a copy of the tree, and run in an empty directory, so neither an earlier build
nor the source tree can hide a fault of the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from evproxy.admin.page.files import TYPES

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.cfg").exists(), reason="the tests run without the source tree"
)

LISTED = re.compile(r"\bevproxy +An event-driven TCP proxy\.")

NOT_COPIED = shutil.ignore_patterns(
    *(".*", "*.egg-info", "__pycache__", "build", "dist", "dropin.cache", "venv")
)


def run(*command: str | Path, cwd: Path) -> str:
    """Run `command`, which must succeed, and return its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree without anything built or hidden."""
    directory = tmp_path_factory.mktemp("source") / "evproxy"
    shutil.copytree(ROOT, directory, ignore=NOT_COPIED)
    return directory


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist, and a wheel that was built from that sdist."""
    directory = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, cwd=source)
    return directory


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A directory with all installed packages of this environment, except evproxy.

    Downloading them again for each environment would take minutes and prove nothing more.
    """
    directory = tmp_path_factory.mktemp("dependencies")
    installed = Path(sysconfig.get_path("purelib"))
    for path in installed.iterdir():
        if path.name != "twisted" and "evproxy" not in path.name and path.suffix != ".pth":
            (directory / path.name).symlink_to(path)
    shutil.copytree(
        installed / "twisted",
        directory / "twisted",
        ignore=shutil.ignore_patterns("evproxy_*", "dropin.cache", "__pycache__", "test"),
    )
    return directory


class Environment:
    """A fresh virtual environment in `directory`, with the `dependencies` of evproxy."""

    def __init__(self, directory: Path, dependencies: Path) -> None:
        self.empty = directory / "empty"
        self.empty.mkdir()
        base = directory / "venv"
        venv.create(base, symlinks=True)
        self.python = base / "bin" / "python"
        self.site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(base)}))
        (self.site_packages / "dependencies.pth").write_text(f"{dependencies}\n")

    def install(self, *arguments: str | Path) -> None:
        """Install with the pip of the dependencies, and without a registry."""
        run(
            *(self.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", *arguments),
            cwd=self.empty,
        )

    def origin(self, module: str) -> Path:
        """Return the file of `module`."""
        program = f"import importlib.util as u; print(u.find_spec({module!r}).origin)"
        return Path(run(self.python, "-c", program, cwd=self.empty).strip())

    def lists_evproxy(self) -> bool:
        """Whether ``twistd --help`` and ``twist --help`` list evproxy; check that both agree."""
        scripts = Path(sysconfig.get_path("scripts"))
        answers = {
            LISTED.search(run(self.python, scripts / name, "--help", cwd=self.empty)) is not None
            for name in ["twistd", "twist"]
        }
        assert len(answers) == 1
        return answers.pop()


@pytest.fixture
def environment(tmp_path: Path, dependencies: Path) -> Environment:
    return Environment(tmp_path, dependencies)


def test_not_installed(environment: Environment) -> None:
    """Without an installed evproxy, nothing lists it, so the tests below can fail."""
    assert not environment.lists_evproxy()


def test_wheel(environment: Environment, built: Path) -> None:
    """With the installed wheel, evproxy is listed, and nothing comes from the source tree."""
    [wheel] = built.glob("*.whl")
    environment.install(wheel)
    assert environment.lists_evproxy()
    assert environment.origin("evproxy").is_relative_to(environment.site_packages)
    assert environment.origin("twisted.plugins.evproxy_service").is_relative_to(
        environment.site_packages
    )


def test_sdist(environment: Environment, built: Path) -> None:
    """With the installed sdist, evproxy is listed."""
    [sdist] = built.glob("*.tar.gz")
    environment.install(sdist)
    assert environment.lists_evproxy()
    assert environment.origin("evproxy").is_relative_to(environment.site_packages)


def test_editable(environment: Environment, source: Path) -> None:
    """With an editable install, evproxy is listed, and comes from its source tree."""
    environment.install("--editable", source)
    assert environment.lists_evproxy()
    assert environment.origin("evproxy").is_relative_to(source)


def test_wheel_contents(built: Path) -> None:
    """The wheel has evproxy with the type marker, the plugins, and nothing else."""
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    plugins = {f"twisted/plugins/evproxy_{name}.py" for name in ("service", "endpoints")}
    assert {"evproxy/py.typed", *plugins} <= names
    assert {f"evproxy/admin/page/{name}" for name in TYPES} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "evproxy",
        "pytest_evproxy.py",
        "twisted",
    }
    assert not [name for name in names if name.endswith("/__init__.py") and "twisted" in name]


def test_sdist_contents(built: Path) -> None:
    """The sdist has the files for building and testing, and the licence."""
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        *("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg", "tox.ini"),
        *("evproxy/py.typed", "tests/conftest.py", "tests/project/test_packaging.py"),
        "twisted/plugins/evproxy_service.py",
    } <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
