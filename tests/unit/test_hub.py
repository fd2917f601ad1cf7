"""The hub: which observers it calls for which event, and how it handles their exceptions."""

from __future__ import annotations

from typing import Any

import pytest

from evproxy import (
    CertificateObserver,
    DiscoveryObserver,
    LogWriterObserver,
    LoopObserver,
    MirrorObserver,
    Observer,
    PoolObserver,
    PressureObserver,
    RefusalObserver,
    ReloadObserver,
    SessionConnectedObserver,
    SessionObserver,
    SessionStartObserver,
    SettingsError,
    TroubleObserver,
)
from evproxy.hub import EVENTS, Hub, hub_of
from tests.support.leaks import LoggedErrors

CONTRACTS = (
    SessionObserver,
    SessionStartObserver,
    MirrorObserver,
    SessionConnectedObserver,
    TroubleObserver,
    PressureObserver,
    RefusalObserver,
    PoolObserver,
    DiscoveryObserver,
    LogWriterObserver,
    CertificateObserver,
    ReloadObserver,
    LoopObserver,
)


class Everything:
    """An observer of every event."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        if name not in EVENTS:
            raise AttributeError(name)
        return lambda *facts: self.heard.append((name, facts))


class Sessions:
    """A `SessionObserver`, and nothing else."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def session_ended(self, record: Any) -> None:
        self.records.append(record)


class Old:
    """A `PoolObserver` that does not distinguish a failed look-up from an incomplete one."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None: ...

    def pool_exhausted(self, pool: str, why: str) -> None: ...

    def discovery_failed(self, pool: str, why: str) -> None:
        self.failures.append(why)

    def discovery_recovered(self, pool: str) -> None: ...


def methods_of(contract: type) -> set[str]:
    return {
        name
        for base in contract.__mro__
        for name, value in vars(base).items()
        if callable(value) and not name.startswith("_")
    }


def test_the_events_are_the_methods_of_the_contracts() -> None:
    """Each method of a contract is an event, and each event is a method of a contract."""
    assert set().union(*map(methods_of, CONTRACTS)) == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_arrives(event: str) -> None:
    """The hub passes on each event once, with its arguments."""
    observer = Everything()
    hub = Hub((observer,))
    method = getattr(hub, event)
    facts = tuple(range(method.__code__.co_argcount - 1))
    method(*facts)
    assert observer.heard == [(event, facts)]


def test_an_observer_of_some_events() -> None:
    """An observer is notified only of the events that it has methods for."""
    observer = Sessions()
    hub = Hub((observer,))
    hub.connect_failed("a", "b")
    record: Any = object()
    hub.session_ended(record)
    assert observer.records == [record]


def test_an_observer_that_is_added_twice() -> None:
    """An observer that is added twice is called once for each event."""
    observer = Sessions()
    hub = Hub((observer, observer))
    hub.add(observer)
    hub.session_ended(None)  # type: ignore[arg-type]
    assert observer.records == [None]


def test_an_observer_without_the_method_for_an_incomplete_discovery() -> None:
    """An observer without `discovery_incomplete` is notified of a failure instead."""
    observer = Old()
    Hub((observer,)).discovery_incomplete("web", "one is missing")
    assert observer.failures == ["one is missing"]


def test_an_object_that_observes_nothing() -> None:
    """An object whose methods are all misspelt is refused when it is added."""

    class Misspelt:
        def session_end(self, record: Any) -> None: ...

    misspelt: Any = Misspelt()
    with pytest.raises(SettingsError, match=r"^observers: expected an object with a method such"):
        Hub((misspelt,))


def test_an_observer_that_breaks(logged_errors: LoggedErrors) -> None:
    """If an observer raises, the next observers are still called, and the log names the event."""

    class Broken(Sessions):
        def session_ended(self, record: Any) -> None:
            raise ValueError("on purpose")

    after = Sessions()
    Hub((Broken(), after)).session_ended(None)  # type: ignore[arg-type]
    assert after.records == [None]
    assert len(logged_errors.flush(ValueError)) == 1


def test_an_observer_that_adds_another() -> None:
    """The new observer is called from the next event on."""
    late = Sessions()

    class Adding(Sessions):
        def session_ended(self, record: Any) -> None:
            hub.add(late)

    hub = Hub((Adding(),))
    hub.session_ended(1)  # type: ignore[arg-type]
    hub.session_ended(2)  # type: ignore[arg-type]
    assert late.records == [2]


def test_the_hub_of_an_observer() -> None:
    """`hub_of` returns a hub unchanged, and an empty hub for ``None``."""
    hub = Hub((Sessions(),))
    observer: Observer = hub
    assert hub_of(observer) is hub
    assert not hub_of(None)
    assert hub_of(Sessions())
