"""The models: each the smallest honest TCP proxy, and all with the one function ``serve``."""
