"""
The configuration file: TOML text in, one `evproxy.settings.Settings` value out.

Pure: reads no file and looks nothing up.  One run finds every problem of a text.
`evproxy.settings` declares the keys and the values that they accept; ``docs/configuration.md``
describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve

from evproxy.config.conflicts import conflicts
from evproxy.config.problems import Problem, in_document_order
from evproxy.config.reading import Reading, Surroundings
from evproxy.config.tables import read_table
from evproxy.config.toml import NotToml, read_toml
from evproxy.errors import SettingsError
from evproxy.escape import printable
from evproxy.model import UpstreamServer
from evproxy.settings import SERVER, ListenerSettings, Settings


class ConfigErrors(SettingsError):
    """
    A configuration file is wrong.

    `problems`: one line for each problem, in the order of the file where possible; each line
    begins with the path of the key, or with the line and column.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(printable, problems))
        first, more = self.problems[0], len(self.problems) - 1
        super().__init__(f"{first} (and {more} more)" if more else first)


def parse(text: str, surroundings: Surroundings) -> Settings:
    """
    The settings in the TOML `text`.

    :param surroundings: the directory of the file, and further checks of its endpoints.
    :raises ConfigErrors: with every problem; no text raises anything else.
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
    """`listener` with the only pool, if there is only one; else the listener names its pool."""
    if len(settings.pools) > 1:
        return listener
    return evolve(listener, pool=settings.pools[0].name)


def read_server(
    value: Any, surroundings: Surroundings
) -> tuple[UpstreamServer | None, Sequence[Problem]]:
    """The upstream server in one entry of ``upstreams``, or ``None`` and the problems."""
    reading = Reading(surroundings)
    server = reading.value(SERVER, value, ())
    return server, reading.problems
