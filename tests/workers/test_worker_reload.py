"""A reload in a worker: applied or discarded, also while it is prepared."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from evproxy.config.changes import Changes
from evproxy.errors import SettingsError
from evproxy.settings import Settings
from evproxy.workers.messages import Prepare, Prepared
from evproxy.workers.worker_reload import WorkerReload

CHANGES = Changes(())


class Service:
    """A service whose reload goes on as the test says."""

    def __init__(self) -> None:
        self.done: Deferred[Changes] = Deferred()
        self.agreed: Any = None

    def reload(self, settings: Settings, agreed: Any) -> Deferred[Changes]:
        self.agreed = agreed
        return self.done

    def prepared(self) -> None:
        """The files are read: ask, and go on as `evproxy.service.reload` does."""
        self.agreed(CHANGES).addCallback(lambda _: CHANGES).chainDeferred(self.done)


class Scene:
    def __init__(self) -> None:
        self.service = Service()
        self.reading, self._writing = os.pipe()
        self.offered: list[tuple[Any, int]] = []
        self.reload = WorkerReload(Prepare(Settings((), ()), ("place",)), [self.reading])  # type: ignore[arg-type]
        self.answer = self.reload.begin(self.service)

    def apply(self) -> Deferred[None]:
        return self.reload.apply(lambda *each: self.offered.append(each))

    def close(self) -> bool:
        """Whether the new socket was closed; close what is left."""
        os.close(self._writing)
        try:
            os.close(self.reading)
        except OSError:
            return True
        return False


def test_applied() -> None:
    """What is prepared is applied, with the new sockets."""
    scene = Scene()
    scene.service.prepared()
    assert scene.answer.result == Prepared(CHANGES)
    assert scene.apply().called
    assert scene.offered == [("place", scene.reading)]
    # Too late: the sockets are in use.
    scene.reload.discard()
    assert not scene.close()


def test_discarded() -> None:
    """A discarded reload ends, and closes the new sockets."""
    scene = Scene()
    scene.service.prepared()
    scene.reload.discard()
    assert scene.service.done.called
    assert scene.offered == []
    assert scene.close()


async def test_discarded_while_it_is_prepared() -> None:
    """The service does not wait for an answer that has come already: it can reload again."""
    scene = Scene()
    scene.reload.discard()
    scene.service.prepared()
    assert scene.service.done.called
    with pytest.raises(SettingsError, match="another worker"):
        await scene.answer
    with pytest.raises(SettingsError, match="no reload is prepared"):
        await scene.apply()
    assert scene.close()


async def test_refused() -> None:
    """A refused reload is the answer, and closes the new sockets."""
    scene = Scene()
    scene.service.done.errback(Failure(SettingsError("wrong")))
    with pytest.raises(SettingsError, match="wrong"):
        await scene.answer
    assert scene.close()


async def test_cannot_be_applied() -> None:
    """An error after the answer is that of `apply`."""
    scene = Scene()
    scene.service.agreed(CHANGES)
    applied = scene.apply()
    scene.service.done.errback(Failure(SettingsError("it stops")))
    with pytest.raises(SettingsError, match="it stops"):
        await applied
    assert not scene.close()
