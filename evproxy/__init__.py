"""
evproxy: an event-driven TCP proxy on Twisted.

`ProxyService` is a proxy as a Twisted service.  `ProxyFactory` proxies what any server
endpoint accepts to the servers of a `Pool`.

What these do can be replaced by plain objects: a `Router`, a `Balancer`, a `Probe`, a `Discovery`
and a `PoolObserver` of your own satisfy the protocols of these names, and inherit nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evproxy.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import the public names (PEP 562) when the first is used: commands start faster without."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import evproxy.public

    return getattr(evproxy.public, name)
