"""Upstream servers: connects, pools, health checks and discovery."""
