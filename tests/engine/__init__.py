"""The event loop within the event loop, and its time."""
