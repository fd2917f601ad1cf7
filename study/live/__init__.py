"""``python -m study live``: a page that shows an event loop turn, from the loop's own events."""
