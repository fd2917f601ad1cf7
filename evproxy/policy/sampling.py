"""
Which of many things belong to a sample: a hash decides, and so the same thing always does or never.

A thing belongs to the sample of a fraction if the hash of its name (BLAKE2b, RFC 7693), as a number
from 0 to 1, is less than the fraction.  So a larger fraction only adds to the sample.

Source: N. G. Duffield and M. Grossglauser, "Trajectory Sampling for Direct Traffic Observation",
SIGCOMM 2000, which samples packets by a hash.
"""

from __future__ import annotations

from evproxy.policy.balance.maglev import stable_hash

_VALUES = float(1 << 128)


def is_sampled(name: str, fraction: float, key: bytes) -> bool:
    """
    Whether `name` belongs to the sample.

    :param fraction: from 0, nothing, to 1, everything.
    :param key: the key of the hash, at most 64 bytes; each key has a sample of its own.
    """
    return fraction >= 1 or stable_hash(name, key) < fraction * _VALUES
