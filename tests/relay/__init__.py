"""The relays."""
