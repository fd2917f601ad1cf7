"""
Amounts as short text: bytes, rates and times.
"""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

BARS = "▁▂▃▄▅▆▇█"


def size(number: float) -> str:
    """A number of bytes, such as ``3.68 MiB``."""
    unit = 0
    while number >= 1000 and unit < len(UNITS) - 1:
        number /= 1024
        unit += 1
    digits = 0 if unit == 0 or number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f} {UNITS[unit]}"


def rate(number: float) -> str:
    """Bytes a second."""
    return f"{size(number)}/s"


def took(seconds: float | None, unknown: str = "-") -> str:
    """A short time that something took; `unknown` for ``None``."""
    if seconds is None:
        return unknown
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else age(seconds)


def age(seconds: float) -> str:
    """How long something has lasted, in two units at most."""
    whole = int(seconds)
    parts = (
        ("d", whole // 86400),
        ("h", whole // 3600 % 24),
        ("m", whole // 60 % 60),
        ("s", whole % 60),
    )
    for place, (unit, number) in enumerate(parts):
        if number:
            rest = parts[place + 1 : place + 2]
            more = "".join(f" {count}{name}" for name, count in rest if count)
            return f"{number}{unit}{more}"
    return "0s"


def bars(values: list[float], width: int) -> str:
    """A plot of `values` in one line of `width` characters: the latest at the right end."""
    shown = values[-width:]
    most = max(shown, default=0.0)
    if not most:
        return (BARS[0] * len(shown)).rjust(width)
    last = len(BARS) - 1
    return "".join(BARS[round(value / most * last)] for value in shown).rjust(width)
