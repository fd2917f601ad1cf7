"""
One reload in a worker: prepared, then applied or discarded, as the supervisor decides for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from evproxy.config.changes import Changes
from evproxy.errors import SettingsError
from evproxy.service.reload import Agreed
from evproxy.settings import Settings
from evproxy.workers.messages import Prepare, Prepared


class Reloadable(Protocol):
    """What has a reload; `ProxyService` is one."""

    def reload(self, settings: Settings, agreed: Agreed) -> Deferred[Changes]: ...


class WorkerReload:
    """
    One reload of the service of a worker.

    `prepared` fires with `Prepared`, or fails with a `SettingsError`: the answer to `Prepare`.

    :param prepare: the settings and the places of new sockets.
    :param descriptors: these sockets, which now belong to this object.
    """

    def __init__(self, prepare: Prepare, descriptors: Sequence[int]) -> None:
        self.prepared: Deferred[Prepared] = Deferred()
        self._prepare = prepare
        self._descriptors = descriptors
        self._discarded = False
        self._agreed: Deferred[None] | None = None
        self._applied: Deferred[None] = Deferred()

    def begin(self, service: Reloadable) -> Deferred[Prepared]:
        """Prepare the reload of `service`; return `prepared`."""
        service.reload(self._prepare.settings, self._agree).addCallbacks(
            lambda _: self._applied.callback(None), self._failed
        )
        return self.prepared

    def apply(self, offer: Callable[[Any, int], None]) -> Deferred[None]:
        """
        Apply what is prepared.

        :param offer: gets the place and the descriptor of each new socket.
        :return: fires once all of it is in use.
        """
        agreed, self._agreed = self._agreed, None
        if agreed is None:
            return fail(SettingsError("no reload is prepared"))
        descriptors, self._descriptors = self._descriptors, ()
        for place, descriptor in zip(self._prepare.places, descriptors, strict=True):
            offer(place, descriptor)
        agreed.callback(None)
        return self._applied

    def discard(self) -> None:
        """Change nothing, even if the preparation is not over yet.  Too late once it applies."""
        self._discarded = True
        self._close()
        agreed, self._agreed = self._agreed, None
        if agreed is not None:
            agreed.errback(_discarded())

    def _agree(self, changes: Changes) -> Deferred[None]:
        if self._discarded:
            return fail(_discarded())
        self._agreed = Deferred()
        agreed = self._agreed
        self.prepared.callback(Prepared(changes))
        return agreed

    def _failed(self, failure: Failure) -> None:
        self._close()
        if not self.prepared.called:
            self.prepared.errback(failure)
        elif not self._discarded:
            self._applied.errback(failure)

    def _close(self) -> None:
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def _discarded() -> SettingsError:
    return SettingsError("another worker refuses the reload")
