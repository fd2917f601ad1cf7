"""Upstream servers: connecting to them, pools of them, their health and their discovery."""
