"""
Toxics: what a body of the API says of one, and the fault that it is.  Pure.

Source: the directory ``toxics`` of Toxiproxy 2.12, and its README.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from attrs import evolve, frozen

from evproxy.settings.fault import FaultSettings
from evproxy.toxiproxy.errors import bad_body, invalid_stream, invalid_type

MILLISECONDS = 1000
"""Milliseconds in a second: the unit of most attributes."""

MICROSECONDS = 1_000_000
"""Microseconds in a second: the unit of the slicer's delay."""

KILOBYTE = 1000
"""Bytes in a kilobyte, as the bandwidth counts."""

LARGEST = 10**12
"""The largest value of an attribute that has an effect; larger ones have that of this one."""

INT64 = 2**63
"""Attributes are whole numbers of 64 bits with a sign, as in Go."""

LONGEST_TIME = 31_536_000
"""The longest time of a fault, in seconds: a year."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "latency": ("latency", "jitter"),
    "bandwidth": ("rate",),
    "slow_close": ("delay",),
    "timeout": ("timeout",),
    "reset_peer": ("timeout",),
    "slicer": ("average_size", "size_variation", "delay"),
    "limit_data": ("bytes",),
}
"""The attributes of each type; each is a whole number, by default 0."""


def _seconds(value: int, unit: int) -> float:
    return min(LONGEST_TIME, max(0, value) / unit)


def _size(value: int) -> int:
    return min(LARGEST, max(0, value))


def _slicer(given: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": "slicer",
        "average_size": min(2**30, max(1, given["average_size"])),
        "size_variation": min(2**30, _size(given["size_variation"])),
        "delay": _seconds(given["delay"], MICROSECONDS),
    }


_FAULTS: dict[str, Callable[[dict[str, int]], dict[str, Any]]] = {
    "latency": lambda given: {
        "kind": "latency",
        "latency": _seconds(given["latency"], MILLISECONDS),
        "jitter": _seconds(given["jitter"], MILLISECONDS),
    },
    "bandwidth": lambda given: {"kind": "bandwidth", "rate": _size(given["rate"]) * KILOBYTE},
    "slow_close": lambda given: {
        "kind": "slow-close",
        "delay": _seconds(given["delay"], MILLISECONDS),
    },
    "timeout": lambda given: {
        "kind": "timeout",
        "timeout": _seconds(given["timeout"], MILLISECONDS),
    },
    "reset_peer": lambda given: {
        "kind": "reset",
        "delay": _seconds(given["timeout"], MILLISECONDS),
    },
    "slicer": _slicer,
    "limit_data": lambda given: {"kind": "limit", "bytes": _size(given["bytes"])},
}


@frozen
class Toxic:
    """
    One toxic of a proxy.

    `type`: one of `ATTRIBUTES`.  `stream`: ``upstream`` or ``downstream``.  `toxicity`: the
    probability, drawn for each session.
    """

    name: str
    type: str
    stream: str
    toxicity: float
    attributes: dict[str, int]

    @property
    def fault(self) -> FaultSettings:
        """The fault that the toxic is; it has no name."""
        return FaultSettings(
            stream=self.stream,
            probability=min(1.0, max(0.0, self.toxicity)),
            **_FAULTS[self.type](self.attributes),
        )

    @property
    def body(self) -> dict[str, Any]:
        """The toxic as answers have it."""
        return {
            "attributes": dict(self.attributes),
            "name": self.name,
            "type": self.type,
            "stream": self.stream,
            "toxicity": self.toxicity,
        }


def new_toxic(given: dict[str, Any]) -> Toxic:
    """
    The toxic that a body describes.

    :raises ApiError: if it describes none.
    """
    kind = text(given, "type", "")
    stream = text(given, "stream", "downstream").lower()
    if stream not in ("upstream", "downstream"):
        raise invalid_stream()
    if kind not in ATTRIBUTES:
        raise invalid_type()
    name = text(given, "name", "") or f"{kind}_{stream}"
    none = dict.fromkeys(ATTRIBUTES[kind], 0)
    return changed_toxic(Toxic(name, kind, stream, 1.0, none), given)


def changed_toxic(toxic: Toxic, given: dict[str, Any]) -> Toxic:
    """
    `toxic` with the attributes and the toxicity of a body; what is absent or null stays.

    :raises ApiError: if a value has a wrong type.
    """
    toxicity = given.get("toxicity")
    if toxicity is None:
        toxicity = toxic.toxicity
    elif type(toxicity) not in (int, float) or not _is_finite(toxicity):
        raise bad_body("toxicity is not a number")
    attributes = given.get("attributes")
    if attributes is None:
        attributes = {}
    elif not isinstance(attributes, dict):
        raise bad_body("attributes is not an object")
    merged = dict(toxic.attributes)
    for key in merged:
        value = attributes.get(key)
        if value is None:
            continue
        if type(value) is not int or not -INT64 <= value < INT64:
            raise bad_body(f"attributes.{key} is not a whole number")
        merged[key] = value
    return evolve(toxic, toxicity=toxicity, attributes=merged)


def _is_finite(number: float) -> bool:
    try:
        return isfinite(number)
    except OverflowError:
        # A whole number that no floating-point number is close to.
        return False


def text(given: dict[str, Any], key: str, default: str) -> str:
    """
    The string `key` of a body; `default` if it is absent or null.

    :raises ApiError: if it is no string.
    """
    value = given.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise bad_body(f"{key} is not a string")
    return value


def flag(given: dict[str, Any], key: str, default: bool) -> bool:
    """
    The flag `key` of a body; `default` if it is absent or null.

    :raises ApiError: if it is not true or false.
    """
    value = given.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_body(f"{key} is not true or false")
    return value
