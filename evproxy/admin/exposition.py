"""
The text of metrics for Prometheus and for OpenMetrics, made by prometheus-client in slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from attrs import frozen
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from twisted.internet.task import deferLater

from evproxy.observe.metrics.family import AnyFamily, Sample

SAMPLES = 32
"""How many samples are made into text in one turn of the reactor: less than half a millisecond's
worth."""

_EOF = b"# EOF\n"
"""The last line of OpenMetrics."""


@frozen
class _One:
    """A registry with one metric, for `generate_latest`."""

    metric: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.metric,)


async def text_of(reactor: Any, families: Iterable[AnyFamily], accept: str) -> tuple[bytes, str]:
    """
    Return the text of metrics, and its type.

    :param families: made into text in slices.
    :param accept: the header Accept, which asks for one of the formats.
    """
    encode, content_type = choose_encoder(accept)
    parts: list[bytes] = []
    for family in families:
        for part in _text_in_parts(family, encode):
            parts.append(part)
            await deferLater(reactor, 0)
    if "openmetrics" in content_type:
        parts.append(_EOF)
    return b"".join(parts), content_type


def _text_in_parts(family: AnyFamily, encode: Callable[[Any], bytes]) -> Iterator[bytes]:
    """Yield the text of `family`; only the first part begins with what the family is."""
    samples = iter(family.samples)
    first = True
    while (some := list(islice(samples, SAMPLES))) or first:
        text = encode(_One(_metric(family, some))).removesuffix(_EOF)
        yield text if first else _without_comments(text)
        first = False
        if len(some) < SAMPLES:
            return


def _metric(family: AnyFamily, samples: Iterable[Sample]) -> Metric:
    name = family.name
    metric = Metric(name.removesuffix("_total"), family.help, family.kind)
    for suffix, labels, value in samples:
        metric.add_sample(name + suffix, dict(labels), value)
    return metric


def _without_comments(text: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))
