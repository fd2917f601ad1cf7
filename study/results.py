"""The results of a run: rows of predicted and measured numbers, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen

from .verdict import verdict


@frozen
class Row:
    """
    One number: what was predicted, and what was measured.

    `scenario`, `model`: names.  `setting`: what was varied, such as 1,000 connections; empty:
    nothing.  `measure`: the key of a measure of the scenario.  `predicted`, `measured`: in the
    unit of the measure; ``None``: not predicted, or not reached.  `note`: why a number is missing.
    """

    scenario: str
    model: str
    setting: str
    measure: str
    predicted: float | None
    measured: float | None
    note: str = ""


@define
class Results:
    """The rows of a run, and the facts about the machine on which it ran."""

    machine: dict[str, str]
    rows: list[Row] = field(factory=list)

    def value(self, scenario: str, model: str, measure: str, setting: str = "") -> float | None:
        """The measured number of one row.

        :raises KeyError: if there is no such row.
        """
        return self.row(scenario, model, measure, setting).measured

    def row(self, scenario: str, model: str, measure: str, setting: str = "") -> Row:
        """One row.

        :raises KeyError: if there is no such row.
        """
        for row in self.rows:
            if (row.scenario, row.model, row.measure, row.setting) == (
                scenario,
                model,
                measure,
                setting,
            ):
                return row
        raise KeyError(f"{scenario}/{model}/{measure}/{setting}")

    def of(self, scenario: str, measure: str) -> Sequence[Row]:
        """The rows of one measure, in the order in which they were measured."""
        return [row for row in self.rows if (row.scenario, row.measure) == (scenario, measure)]

    def to_json(self) -> str:
        """The results as JSON, one row a line."""
        rows = ",\n  ".join(json.dumps(asdict(row)) for row in self.rows)
        machine = json.dumps(self.machine, indent=1)
        return f'{{"machine": {machine},\n "rows": [\n  {rows}\n]}}\n'

    def to_csv(self) -> str:
        """The rows as CSV, with a heading, and what became of each prediction."""
        text = io.StringIO()
        names = [*Row.__annotations__, "verdict"]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({**asdict(row), "verdict": verdict(row.predicted, row.measured)})
        return text.getvalue()


def read(path: Path) -> Results:
    """Read results from the JSON file that `Results.to_json` made."""
    found: dict[str, Any] = json.loads(path.read_text())
    return Results(found["machine"], [Row(**row) for row in found["rows"]])


def rounded(rows: Iterable[Row]) -> list[Row]:
    """The rows with measured numbers of four digits: more would claim more than was measured."""
    return [
        Row(
            **{
                **asdict(row),
                "predicted": None if row.predicted is None else float(f"{row.predicted:.4g}"),
                "measured": None if row.measured is None else float(f"{row.measured:.4g}"),
            }
        )
        for row in rows
    ]
