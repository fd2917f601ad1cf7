"""
The links of one stream of one session, in a chain that can change while the session runs.
"""

from __future__ import annotations

from evproxy.faults.link import Link, Taker
from evproxy.model import Ending
from evproxy.relay.stages import Outlet


class Chain:
    """
    The links of one stream.

    :param outlet: is behind the last link.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._tail = _Tail(outlet)
        self._links: dict[str, Link] = {}
        self._over = False

    @property
    def held(self) -> int:
        """How many bytes the links hold."""
        return sum(link.held for link in self._links.values())

    @property
    def first(self) -> Taker:
        """What takes the bytes of the stream."""
        return next(iter(self._links.values()), self._tail)

    @property
    def begun(self) -> bool:
        """Whether bytes of the stream have come behind the last link."""
        return self._tail.begun

    def hides(self) -> bool:
        """The connection of the source is lost: return whether the links hold that back."""
        self._tail.noticed = False
        self._tail.asked = True
        self.first.lost()
        self._tail.asked = False
        return not self._tail.noticed

    def answer(self, data: bytes) -> None:
        """Send `data` past all links."""
        self._outlet.pass_on(data)

    def freed(self) -> None:
        """The links hold fewer bytes than before."""
        self._outlet.recount()

    def end_session(self, reset: bool) -> None:
        """End the session, once the receiver has what was passed on; see `Outlet.close`."""
        self._outlet.close(Ending.FAULT, reset)

    def add(self, name: str, link: Link) -> None:
        """Add `link` behind the others."""
        if self._over:
            return
        self._links[name] = link
        self._connect()
        link.start()

    def replace(self, name: str, link: Link) -> None:
        """Put `link` in the place of the link `name`, if there is one; what it holds goes on."""
        before = self._links.get(name)
        if before is None:
            self.add(name, link)
            return
        before.replaced(link)
        if self._over or self._links.get(name) is not before:
            # What `before` passed on has ended the session, or made its program remove the fault.
            return
        link.follow(before)
        self._links[name] = link
        self._connect()
        before.close()
        link.start()

    def remove(self, name: str) -> None:
        """Remove the link `name`, if there is one."""
        link = self._links.get(name)
        if link is not None:
            link.removed()
            # The end of the session may have removed it.
            self._links.pop(name, None)
            link.close()
            self._connect()

    def close(self) -> None:
        """The session is over."""
        self._over = True
        links, self._links = self._links, {}
        for link in links.values():
            link.close()

    def flush(self) -> None:
        """Pass on everything that the links hold, if they ever will."""
        for link in tuple(self._links.values()):
            link.release()

    def _connect(self) -> None:
        links = list(self._links.values())
        followers: list[Taker] = [*links[1:], self._tail]
        for link, follower in zip(links, followers, strict=False):
            link.to = follower


class _Tail:
    """What is behind the last link."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        # Whether the relay asks about the loss now, and whether the loss has come through.
        self.asked = self.noticed = False
        self.begun = False

    def feed(self, data: bytes) -> None:
        self.begun = True
        self._outlet.pass_on(data)

    def end(self) -> None:
        self._outlet.end()

    def lost(self) -> None:
        self.noticed = True
        if not self.asked:
            self._outlet.reveal()

    def close_session(self, reset: bool) -> None:
        self._outlet.close(Ending.FAULT, reset)
