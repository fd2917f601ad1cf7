"""Active health checks: one question to one server, one short answer."""
