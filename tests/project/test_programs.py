"""A missing program or module skips a test on a developer's machine and fails it in CI."""

from __future__ import annotations

import pytest

from tests.support.programs import requires_module, requires_program


def test_present() -> None:
    """A program on the PATH is found with its path."""
    assert requires_program("sh").endswith("/sh")


def test_missing_at_a_desk() -> None:
    """Without CI the test is skipped, and the reason names the program."""
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        requires_program("no-such-program", {"PATH": "/usr/bin"})


def test_missing_in_ci() -> None:
    """With CI the test fails."""
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        requires_program("no-such-program", {"PATH": "/usr/bin", "CI": "true"})


def test_module() -> None:
    """A module that is there is fine; a missing one is treated like a program."""
    requires_module("json", {"CI": "true"})
    with pytest.raises(pytest.skip.Exception, match="no_such_module is not installed"):
        requires_module("no_such_module", {})
    with pytest.raises(pytest.fail.Exception, match="no_such_module is not installed"):
        requires_module("no_such_module", {"CI": "true"})
