"""Recordings: each session of a listener in a file of its own."""

from evproxy.recording.recordings import Recordings

__all__ = ["Recordings"]
