"""The numbers of a run, and what is computed from them. Pure: values in, values out.

A sample is what one measure gave for one peer in one round, or nothing where it failed.
Ratios are taken within a round, between two peers that were measured seconds apart, and
only then summed up: what disturbs the machine for a minute disturbs both alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from attrs import Factory, define, frozen

Values = Mapping[str, float]


@frozen
class Spread:
    """The median of several values, and the least and the greatest of them."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of these values, or nothing if there are none."""
        known = list(values)
        if not known:
            return None
        return cls(statistics.median(known), min(known), max(known))


@define
class Results:
    """Every sample of a run, by measure, peer and round."""

    samples: dict[str, dict[str, list[Values | None]]] = Factory(dict)

    def add(self, measure: str, peer: str, values: Values | None) -> None:
        """Record the next round's sample."""
        self.samples.setdefault(measure, {}).setdefault(peer, []).append(values)

    def rounds(self, measure: str, peer: str, metric: str) -> Sequence[float | None]:
        """The value of a metric in each round, nothing where it is not known."""
        samples = self.samples.get(measure, {}).get(peer, ())
        return [None if values is None else values.get(metric) for values in samples]

    def spread(self, measure: str, peer: str, metric: str) -> Spread | None:
        """The spread of a metric over the rounds."""
        values = self.rounds(measure, peer, metric)
        return Spread.of(value for value in values if value is not None)

    def ratios(
        self, measure: str, metric: str, peer: str, reference: str
    ) -> Sequence[float | None]:
        """One peer's value divided by another's in each round, nothing where one is not known."""
        pairs = zip(
            self.rounds(measure, peer, metric),
            self.rounds(measure, reference, metric),
            strict=False,
        )
        return [value / base if value is not None and base else None for value, base in pairs]

    def ratio(self, measure: str, metric: str, peer: str, reference: str) -> Spread | None:
        """The spread over the rounds of one peer's value divided by another's."""
        values = self.ratios(measure, metric, peer, reference)
        return Spread.of(value for value in values if value is not None)

    def failures(self) -> list[tuple[str, str, int]]:
        """(measure, peer, rounds) for every peer that failed a measure in some rounds."""
        return [
            (measure, peer, samples.count(None))
            for measure, peers in self.samples.items()
            for peer, samples in peers.items()
            if None in samples
        ]

    def errors(self) -> list[tuple[str, str, int]]:
        """(measure, peer, count) wherever the load tool saw requests fail."""
        totals = (
            (measure, peer, sum(int((values or {}).get("errors", 0)) for values in samples))
            for measure, peers in self.samples.items()
            for peer, samples in peers.items()
        )
        return [total for total in totals if total[2]]
