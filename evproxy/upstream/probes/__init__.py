"""The kinds of active health checks: each check asks one server and gets a verdict."""
