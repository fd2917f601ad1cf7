"""What the reports call those who take part in a scenario."""

from __future__ import annotations

from . import servers
from .catalogue import models
from .scenarios.contract import Scenario


def titles_of(scenario: Scenario) -> dict[str, str]:
    """The title of each participant, by its name."""
    taking_part = scenario.participants or (*models(), *servers.ALL)
    return {model.name: model.title for model in taking_part}
