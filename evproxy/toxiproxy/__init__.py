"""Toxiproxy's HTTP API: clients of Toxiproxy drive proxies of evproxy."""

from evproxy.toxiproxy.service import ToxiproxyService

__all__ = ["ToxiproxyService"]
