"""
Chooses the reactor of the tests: ``EVPROXY_TEST_REACTOR``, by default Twisted's own choice.

pytest-twisted's ``--reactor`` accepts only ``default`` and ``asyncio``, and refuses any other value
before it reads a ``conftest``.  So the choice comes from the environment, and replaces ``default``.
"""

from __future__ import annotations

from importlib import import_module

import pytest
import pytest_twisted

REACTORS = {
    "epoll": ("epollreactor", "EPollReactor"),
    "poll": ("pollreactor", "PollReactor"),
    "select": ("selectreactor", "SelectReactor"),
    "asyncio": ("asyncioreactor", "AsyncioSelectorReactor"),
}


def choose_reactor(name: str) -> None:
    """Let pytest-twisted install the reactor `name`, a key of `REACTORS`, as its default."""
    if name not in REACTORS:
        raise pytest.UsageError(
            f"EVPROXY_TEST_REACTOR: expected one of {', '.join(REACTORS)}, got {name!r}"
        )
    module_name, class_name = REACTORS[name]

    def install() -> None:
        module = import_module(f"twisted.internet.{module_name}")
        pytest_twisted._install_reactor(module.install, getattr(module, class_name))

    pytest_twisted.reactor_installers["default"] = install
