"""The entry points: the command `evproxy` and the plugin of `twistd`."""
