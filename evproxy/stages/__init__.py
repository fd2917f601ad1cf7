"""Filters in Python: plain objects that see, change, hold or inject the bytes of sessions."""

from evproxy.stages.filters import Filter, FilteredSession, filtered, filters_named

__all__ = ["Filter", "FilteredSession", "filtered", "filters_named"]
