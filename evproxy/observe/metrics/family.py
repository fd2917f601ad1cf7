"""
A metric family: a name, what it means, and its samples, as plain values.

No library is needed for them, so any part of evproxy can make some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Protocol

from attrs import frozen

from evproxy.observe.metrics.tally import Histogram

Labels = tuple[tuple[str, str], ...]
"""The names of labels, each with its value."""

Sample = tuple[str, Labels, float]
"""The suffix that follows the name of the family, the labels, and the value."""


class AnyFamily(Protocol):
    """
    What a family looks like, whoever has made it.

    `kind` is ``counter``, ``gauge`` or ``histogram``.  The name of a counter ends in ``_total``.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def help(self) -> str: ...

    @property
    def samples(self) -> Iterable[Sample]: ...


@frozen
class Family:
    """A metric family; see `AnyFamily`."""

    name: str
    kind: str
    help: str
    samples: Iterable[Sample]


MetricSource = tuple[str, Callable[[], Iterable[AnyFamily]]]
"""A scope, and a function that returns the families of this scope as they are now."""

Values = Iterable[tuple[tuple[str, ...], float]]
"""The values of the labels of a sample, and the value of the sample."""


def of_processes(parts: Iterable[tuple[str, Iterable[AnyFamily]]]) -> Iterator[Family]:
    """
    The families of several processes: each sample gets the label ``worker``.

    :param parts: the value of the label for each process, and its families.
    """
    found: dict[str, tuple[AnyFamily, list[Sample]]] = {}
    for worker, families in parts:
        for family in families:
            _, samples = found.setdefault(family.name, (family, []))
            samples.extend(
                (suffix, (("worker", worker), *labels), value)
                for suffix, labels, value in family.samples
            )
    for family, samples in found.values():
        yield Family(family.name, family.kind, family.help, samples)


@frozen
class Declared:
    """
    The declaration of a family.

    `scope`: the part of the metrics to which it belongs.  `labels`: the names of its labels.
    """

    name: str
    kind: str
    scope: str
    labels: tuple[str, ...]
    help: str

    def of(self, value: float) -> Family:
        """The family with the only sample that it has, without labels."""
        return Family(self.name, self.kind, self.help, [("", (), value)])

    def of_each(self, values: Values) -> Family:
        """The family with a sample for each of `values`, made as it is asked for."""
        names = self.labels
        samples = (("", tuple(zip(names, labels, strict=True)), value) for labels, value in values)
        return Family(self.name, self.kind, self.help, samples)

    def of_histograms(self, values: Iterable[tuple[tuple[str, ...], Histogram]]) -> Family:
        """The family with the buckets, the count and the sum of each histogram."""
        samples = (
            sample
            for labels, histogram in values
            for sample in _of_histogram(tuple(zip(self.labels, labels, strict=True)), histogram)
        )
        return Family(self.name, self.kind, self.help, samples)


def _of_histogram(labels: Labels, histogram: Histogram) -> Iterator[Sample]:
    numbers = (histogram.counts[index] for index in range(len(histogram.bounds) + 1))
    bounds = (*map(str, histogram.bounds), "+Inf")
    total = 0
    for bound, total in zip(bounds, accumulate(numbers), strict=True):
        yield "_bucket", (*labels, ("le", bound)), total
    yield "_count", labels, total
    yield "_sum", labels, histogram.sum
