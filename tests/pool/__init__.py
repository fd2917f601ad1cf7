"""Pools of servers: picking, waiting, health, changes; with doubles and with real servers."""
