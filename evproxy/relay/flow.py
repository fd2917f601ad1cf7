"""
Flow control, counted: how often a slow reader made its peer wait.
"""

from __future__ import annotations


class FlowCount:
    """
    Counts the pauses of the stream relays of one service.

    `pauses`: how often a sink took no more bytes, so that its source was not read.
    """

    __slots__ = ("pauses",)

    def __init__(self) -> None:
        self.pauses = 0
