"""The observers that evproxy brings: its logs."""
