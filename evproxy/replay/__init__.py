"""Replay: plays the server or the client of a recording, and compares what its peer sends."""

from evproxy.replay.dialogue import Dialogue
from evproxy.replay.player import Player, Result
from evproxy.replay.reader import recorded_events

__all__ = ["Dialogue", "Player", "Result", "recorded_events"]
