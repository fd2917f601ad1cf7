"""Endpoint strings: what ``evproxy:`` means wherever Twisted takes an endpoint description."""

from evproxy.endpoints.client import PoolEndpoint, client_endpoint
from evproxy.endpoints.server import GuardedEndpoint, server_endpoint

__all__ = ["GuardedEndpoint", "PoolEndpoint", "client_endpoint", "server_endpoint"]
