"""
The configuration file: TOML text in, one `evproxy.settings.Settings` value out.

Pure: reads no file and looks nothing up.  Everything that is wrong with a text is found
in one go.  The steps, each a module: `syntax` (text to document), `fields` (which keys
there are, by the `rules` for their values), `structure` (document to settings, through
cattrs), `contradictions` and `pool_tables` (what is wrong between keys), `problems`.

The keys are described in ``docs/configuration.md``.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve

from evproxy.config.contradictions import contradictions
from evproxy.config.fields import Validate, fields
from evproxy.config.problems import in_document_order, printable
from evproxy.config.structure import Structure
from evproxy.config.syntax import NotToml, read_toml
from evproxy.errors import SettingsError
from evproxy.settings import ListenerSettings, Settings

__all__ = ["ConfigErrors", "Validate", "parse"]


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


def parse(
    text: str,
    directory: str,
    validate_endpoint: Validate | None = None,
    validate_listen: Validate | None = None,
) -> Settings:
    """
    The settings that the TOML `text` stands for.

    `directory`: where the file is; paths in it that are not absolute are relative to
    that.  `validate_endpoint`: a closer look at an upstream server's endpoint, which
    tells why it is refused, or ``None``; by default none is taken.  `validate_listen`:
    the same for a listener's.

    Raises `ConfigErrors`, and nothing else whatever the text is.
    """
    try:
        document = read_toml(text)
    except NotToml as error:
        raise ConfigErrors([str(error)]) from None
    structure = Structure(fields(directory, validate_endpoint, validate_listen))
    found = structure.settings(document)
    problems = [
        *contradictions(document, directory),
        *([] if isinstance(found, Settings) else found),
    ]
    if problems or not isinstance(found, Settings):
        raise ConfigErrors(map(str, in_document_order(problems, document)))
    return evolve(found, listeners=tuple(_with_pool(found, each) for each in found.listeners))


def _with_pool(settings: Settings, listener: ListenerSettings) -> ListenerSettings:
    """`listener` with the only pool, if it is the only one; else it had to name its own."""
    if len(settings.pools) > 1:
        return listener
    return evolve(listener, pool=settings.pools[0].name)
