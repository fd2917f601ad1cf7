"""
The proxies of the API, and what their toxics do.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError

from evproxy.config.canonical import host_and_port
from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.faults.faults import MOST_FAULTS, Faults
from evproxy.testing.one_server import OneServerProxy
from evproxy.toxiproxy.errors import (
    ApiError,
    bad_body,
    missing,
    no_proxy,
    no_toxic,
    proxy_exists,
    toxic_exists,
)
from evproxy.toxiproxy.toxics import Toxic, changed_toxic, flag, text
from evproxy.upstream.pool.pool import Pool

MOST_PROXIES = 1000
"""The most proxies at once."""

GRACE = 0.5
"""Seconds within which clients get the end of their connections when a proxy is disabled."""

LOCALHOST = "127.0.0.1"


class ToxicProxy:
    """
    One proxy of the API; it is not enabled yet.

    :param reactor: Twisted's.
    :param name: its name.
    :param listen: ``HOST:PORT``, as the client has given it.
    :param upstream: ``HOST:PORT`` of the server.
    :param seed: of its toxics.
    :raises ApiError: if `listen` is no address, or `upstream` no server.
    """

    def __init__(self, reactor: Any, name: str, listen: str, upstream: str, seed: int) -> None:
        self._reactor = reactor
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self._faults = Faults(reactor, seed=seed, name=f"proxy {escaped(name)}")
        self.toxics: dict[str, Toxic] = {}
        self._running: OneServerProxy | None = None
        self._place = place_of(listen)
        self._check(upstream)

    @property
    def enabled(self) -> bool:
        """Whether it accepts connections."""
        return self._running is not None

    @property
    def sorted_toxics(self) -> list[Toxic]:
        """The toxics, those of ``upstream`` first."""
        return sorted(self.toxics.values(), key=lambda toxic: toxic.stream != "upstream")

    @property
    def body(self) -> dict[str, Any]:
        """The proxy as answers have it."""
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "toxics": [toxic.body for toxic in self.sorted_toxics],
        }

    def is_at(self, listen: str, upstream: str) -> bool:
        """Whether it has these addresses already."""
        same = listen == self.listen or place_of(listen) == self._place
        return same and upstream == self.upstream

    def enable(self) -> None:
        """
        Accept connections, if it does not yet.

        :raises ApiError: if it cannot.
        """
        if self._running is not None:
            return
        host, port = self._place
        try:
            self._running = OneServerProxy(self._reactor, self.upstream, host, port, self._faults)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise ApiError(500, f"listen tcp {self.listen}: bind: {reason}") from None
        self._place = host, self._running.door.port
        self.listen = host_and_port(host, self._place[1])

    def _check(self, upstream: str) -> None:
        try:
            Pool(self._reactor, [upstream])
        except SettingsError as error:
            raise ApiError(500, f"upstream: {error}") from None

    async def disable(self) -> None:
        """
        Close all connections, and accept no more.

        As in Toxiproxy (`stop` in ``proxy.go``), both connections of a session end in order, and
        what toxics hold is dropped.
        """
        running, self._running = self._running, None
        if running is not None:
            refused = running.door.refuse()
            self._faults.close_sessions()
            await refused
            await running.stop(GRACE)

    async def move(self, listen: str, upstream: str) -> None:
        """
        Take other addresses, and close the connections if they differ; it is disabled then.

        :raises ApiError: if `listen` is no address, or `upstream` no server; nothing has changed.
        """
        if self.is_at(listen, upstream):
            return
        place = place_of(listen)
        self._check(upstream)
        await self.disable()
        if place != self._place:
            self.listen, self._place = listen, place
        self.upstream = upstream

    def add(self, toxic: Toxic) -> None:
        """
        Inject a toxic.

        :raises ApiError: if there is one of this name, or if there are too many.
        """
        if toxic.name in self.toxics:
            raise toxic_exists()
        if len(self.toxics) >= MOST_FAULTS:
            raise ApiError(500, f"there are already {MOST_FAULTS} toxics")
        self._faults.add_as(toxic.name, toxic.fault)
        self.toxics[toxic.name] = toxic

    def toxic(self, name: str) -> Toxic:
        """
        The toxic of this name.

        :raises ApiError: if there is none.
        """
        found = self.toxics.get(name)
        if found is None:
            raise no_toxic()
        return found

    def change(self, name: str, given: dict[str, Any]) -> Toxic:
        """Change a toxic as a body says, and return it."""
        toxic = changed_toxic(self.toxic(name), given)
        self.toxics[name] = toxic
        self._faults.replace(name, toxic.fault)
        return toxic

    def remove(self, name: str) -> None:
        """Remove a toxic."""
        del self.toxics[self.toxic(name).name]
        self._faults.remove(name)

    def remove_all(self) -> None:
        """Remove every toxic."""
        self.toxics.clear()
        self._faults.clear()


class Proxies:
    """
    All proxies.

    :param reactor: Twisted's.
    :param seed: the seed of their toxics; ``None``: a new one.

    `stopped` is whether `stop` was called.
    """

    def __init__(self, reactor: Any, seed: int | None = None) -> None:
        self._reactor = reactor
        self._seeds = random.Random(seed)
        self.by_name: dict[str, ToxicProxy] = {}
        self.stopped = False

    def named(self, name: str) -> ToxicProxy:
        """
        The proxy of this name.

        :raises ApiError: if there is none.
        """
        found = self.by_name.get(name)
        if found is None:
            raise no_proxy()
        return found

    def create(self, given: dict[str, Any]) -> ToxicProxy:
        """
        Make the proxy that a body describes.

        :raises ApiError: if that is not possible.
        """
        name, upstream = text(given, "name", ""), text(given, "upstream", "")
        listen, enabled = text(given, "listen", ""), flag(given, "enabled", True)
        if not name:
            raise missing("name")
        if not upstream:
            raise missing("upstream")
        if name in self.by_name:
            raise proxy_exists()
        if len(self.by_name) >= MOST_PROXIES:
            raise ApiError(500, f"there are already {MOST_PROXIES} proxies")
        if self.stopped:
            raise _stopped()
        proxy = ToxicProxy(self._reactor, name, listen, upstream, self._seeds.getrandbits(32))
        if enabled:
            proxy.enable()
        self.by_name[name] = proxy
        return proxy

    async def populate(self, given: object) -> tuple[list[ToxicProxy], ApiError | None]:
        """
        Make the proxies that a body describes; those with the same addresses stay as they are.

        :return: the proxies, up to the first error, and this error.
        :raises ApiError: if a description is incomplete; then nothing has changed.
        """
        if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
            raise bad_body("expected an array of proxies")
        for number, each in enumerate(given, 1):
            for key in ("name", "upstream"):
                if not text(each, key, ""):
                    raise missing(f"{key} at proxy {number}")
        made = []
        for each in given:
            try:
                made.append(await self._populate(each))
            except ApiError as error:
                return made, error
        return made, None

    async def _populate(self, given: dict[str, Any]) -> ToxicProxy:
        existing = self.by_name.get(given["name"])
        if existing is not None:
            if existing.is_at(text(given, "listen", ""), given["upstream"]):
                return existing
            await self.delete(existing.name)
        return self.create(given)

    async def update(self, name: str, given: dict[str, Any]) -> ToxicProxy:
        """Change a proxy as a body says; what is absent or null stays."""
        proxy = self.named(name)
        enabled = flag(given, "enabled", proxy.enabled)
        await proxy.move(
            text(given, "listen", proxy.listen), text(given, "upstream", proxy.upstream)
        )
        if self.stopped:
            raise _stopped()
        if enabled:
            proxy.enable()
        else:
            await proxy.disable()
        return proxy

    async def delete(self, name: str) -> None:
        """Remove a proxy, and close its connections."""
        proxy = self.named(name)
        del self.by_name[name]
        await proxy.disable()

    def reset(self) -> None:
        """Enable every proxy, and remove every toxic."""
        for proxy in self.by_name.values():
            proxy.enable()
            proxy.remove_all()

    async def stop(self) -> None:
        """Close everything, and let no call that still runs make or enable a proxy."""
        self.stopped = True
        proxies, self.by_name = list(self.by_name.values()), {}
        await gatherResults([Deferred.fromCoroutine(each.disable()) for each in proxies])


def _stopped() -> ApiError:
    return ApiError(503, "the service is stopping")


def place_of(listen: str) -> tuple[str, int]:
    """
    The IP address and the port of ``HOST:PORT``; without a host: all addresses of IPv4.

    :raises ApiError: if there is no port, or if the host is neither an IP address nor
        ``localhost``.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        number = int(port or "0")
        if not 0 <= number <= 65535:
            raise ValueError
        if host in ("", "localhost"):
            return (LOCALHOST if host else "0.0.0.0"), number
        return str(ipaddress.ip_address(host)), number
    except ValueError:
        raise ApiError(500, f"listen tcp: address {listen}: expected IP:PORT") from None
