"""
The configuration file: TOML text in, one `evproxy.settings.Settings` value out.

Pure: reads no file and looks nothing up.  Everything that is wrong with a text is found in one
go.  The keys, and what their values may be, are those that `evproxy.settings` declares;
``docs/configuration.md`` describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve

from evproxy.config.conflicts import conflicts
from evproxy.config.problems import Problem, in_document_order
from evproxy.config.rules import Reading, Surroundings
from evproxy.config.tables import read_table
from evproxy.config.toml import NotToml, read_toml
from evproxy.errors import SettingsError
from evproxy.escape import printable
from evproxy.model import UpstreamServer
from evproxy.settings import SERVER, ListenerSettings, Settings


class ConfigErrors(SettingsError):
    """
    A configuration file is wrong.

    `problems`: everything that is, one line each, in the order of the file as far as it
    can be told; each line begins with the key's path, or with the line and column.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(printable, problems))
        first, more = self.problems[0], len(self.problems) - 1
        super().__init__(f"{first} (and {more} more)" if more else first)


def parse(text: str, surroundings: Surroundings) -> Settings:
    """
    The settings that the TOML `text` stands for.

    :param surroundings: where the file is, and closer looks at its endpoints.
    :raises ConfigErrors: with every problem; nothing else, whatever the text is.
    """
    try:
        document = read_toml(text)
    except NotToml as error:
        raise ConfigErrors([str(error)]) from None
    reading = Reading(surroundings)
    settings = read_table(Settings, document, (), reading)
    problems = [*conflicts(document, surroundings.directory), *reading.problems]
    if problems:
        raise ConfigErrors(map(str, in_document_order(problems, document)))
    assert isinstance(settings, Settings)
    return evolve(
        settings, listeners=tuple(_with_pool(settings, each) for each in settings.listeners)
    )


def _with_pool(settings: Settings, listener: ListenerSettings) -> ListenerSettings:
    """`listener` with the only pool, if it is the only one; else it had to name its own."""
    if len(settings.pools) > 1:
        return listener
    return evolve(listener, pool=settings.pools[0].name)


def read_server(
    value: Any, surroundings: Surroundings
) -> tuple[UpstreamServer | None, Sequence[Problem]]:
    """The upstream server that one entry of ``upstreams`` stands for, or what is wrong with it."""
    reading = Reading(surroundings)
    server = reading.value(SERVER, value, ())
    return server, reading.problems
