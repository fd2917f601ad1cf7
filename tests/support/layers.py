"""The layers of ``docs/architecture.md``: the map from modules of evproxy to layers."""

from __future__ import annotations

LAYERS = [
    {
        "model",
        "records",
        "causes",
        "errors",
        "escape",
        "loop_report",
        "settings",
        "config",
        "policy",
        "wire",
    },
    {"interfaces", "observers", "hub", "pressure"},
    {"engine"},
    {"relay"},
    {"sockets", "stages", "faults", "recording"},
    {"upstream"},
    {"session", "mirror"},
    {"observe", "service", "admin"},
    {"workers", "testing", "toxiproxy", "endpoints", "replay"},
    {"cli", "__main__"},
]
ENTRY = len(LAYERS) - 1
FACE = ("evproxy", "evproxy.public")
"""The public names, in the layer below the entry points."""


def layer_of(module: str) -> float | None:
    """The layer of a module of evproxy by its dotted name, ``None`` if the map lacks it."""
    if module in FACE:
        return ENTRY - 0.5
    if module.startswith("twisted.plugins."):
        return ENTRY
    part = module.split(".")[1]
    return next((number for number, parts in enumerate(LAYERS) if part in parts), None)
