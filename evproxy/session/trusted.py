"""
Decides which clients are proxies, and must send a PROXY header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evproxy.policy.address_number import address_number
from evproxy.policy.networks import Networks
from evproxy.settings import UNIX_CLIENTS


def proxies_in(networks: Sequence[str]) -> Callable[[str, int], bool] | None:
    """
    Return a check whether the client at a host and a port must send a header.

    ``None`` if no client must.

    :param networks: see `evproxy.settings.ListenerSettings.accept_proxy_protocol_from`.
    :raises ValueError: if a network has a fault.
    """
    if not networks:
        return None
    unix = UNIX_CLIENTS in networks
    known = Networks(each for each in networks if each != UNIX_CLIENTS)

    def is_proxy(host: str, port: int) -> bool:
        number = address_number(host)
        return unix and not port if number is None else number in known

    return is_proxy
