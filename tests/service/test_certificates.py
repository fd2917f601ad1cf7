"""Certificates that change while a service runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from evproxy.hub import Hub
from evproxy.service.certificates import Certificates, read_changed
from evproxy.settings import ListenerTLS
from evproxy.sockets.tls_server import ServerContexts, ServerTLS
from tests.support.certificates import DAY, Authority, names

AUTHORITY = Authority.new()
NOW = 1_000_000.0


class Told:
    """Remembers what it is notified of."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def certificates_loaded(self, listener: str) -> None:
        self.events.append(("loaded", listener))

    def certificates_kept(self, listener: str, why: str) -> None:
        self.events.append(("kept", listener, why))

    def certificate_expires(self, path: str, day: str, days_left: int) -> None:
        self.events.append(("expires", path, days_left))


class Direct(Clock):
    """A clock whose threads have always finished already."""

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.calls_from_threads.append((call, arguments))

    def __init__(self) -> None:
        super().__init__()
        self.calls_from_threads: list[Any] = []


class Kept:
    """The certificate of one listener in a file, and what keeps it current."""

    def __init__(self, directory: Path, days: int) -> None:
        self.path = directory / "site.pem"
        self.write("first.test", days)
        self.told = Told()
        self.clock = Direct()
        self.wall = 0.0
        self.certificates = Certificates(self.clock, Hub((self.told,)), lambda: self.wall)
        self.wall = self.expires() - days * 86400
        self.tls = self.certificates.add("web", ListenerTLS(certificates=(str(self.path),)))

    def write(self, name: str, days: int = 90) -> None:
        new = self.path.with_suffix(".new")
        AUTHORITY.issue(names(name), days * DAY).save(new)
        os.replace(new, self.path)

    def expires(self) -> float:
        contexts = ServerContexts(ListenerTLS(certificates=(str(self.path),)))
        return contexts.certificates[0].expires

    def look(self) -> None:
        """Let the time for the next look come, and its thread finish."""
        self.clock.advance(10)
        self.finish()

    def finish(self) -> None:
        while not self.clock.calls_from_threads:
            """The thread is at work."""
        for call, arguments in self.clock.calls_from_threads:
            call(*arguments)
        self.clock.calls_from_threads.clear()

    def names(self) -> tuple[str, ...]:
        return self.tls.contexts.certificates[0].names


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """One that runs, with a certificate for 90 days."""
    kept = Kept(tmp_path, 90)
    kept.certificates.start()
    yield kept
    kept.certificates.stop()
    assert not kept.clock.getDelayedCalls()


def test_a_changed_file_takes_effect(kept: Kept) -> None:
    """New connections get the new certificate, and the log hears of it once."""
    before = kept.tls.contexts
    kept.look()
    assert kept.tls.contexts is before
    kept.write("second.test")
    kept.look()
    assert kept.names() == ("second.test",)
    kept.look()
    assert kept.told.events == [("loaded", "web")]


def test_a_broken_file_changes_nothing(kept: Kept) -> None:
    """The certificate before stays in use, which is said once, until the file is right again."""
    kept.path.write_text("half of a")
    kept.look()
    kept.look()
    assert kept.names() == ("first.test",)
    [(what, listener, why)] = kept.told.events
    assert (what, listener) == ("kept", "web")
    assert "there is no certificate in it" in why
    kept.write("second.test")
    kept.look()
    assert kept.names() == ("second.test",)
    assert kept.told.events[1:] == [("loaded", "web")]


def test_a_reload_reads_at_once(kept: Kept) -> None:
    """A program or an operator need not wait for the next look."""
    kept.write("second.test")
    kept.certificates.reload()
    kept.finish()
    assert kept.names() == ("second.test",)


def test_tickets_get_another_key_each_day(kept: Kept) -> None:
    """Contexts are made anew after a day, which nobody hears of."""
    before = kept.tls.contexts
    kept.wall += 86401
    kept.look()
    assert kept.tls.contexts is not before
    assert kept.told.events == []


def test_the_end_of_a_certificate_is_said_once_a_day(tmp_path: Path) -> None:
    """From 14 days before."""
    kept = Kept(tmp_path, 20)
    kept.certificates.start()
    kept.wall += 5 * 86400
    kept.look()
    assert kept.told.events == []
    kept.wall += 2 * 86400
    kept.look()
    kept.look()
    assert kept.told.events == [("expires", str(kept.path), 13)]
    kept.wall += 86400
    kept.look()
    assert kept.told.events[1:] == [("expires", str(kept.path), 12)]
    [status] = kept.certificates.status()
    assert (status.path, round(status.days_left)) == (str(kept.path), 12)
    # An hour after its end, no day is left, and less than none.
    kept.wall += 12 * 86400 + 3600
    kept.look()
    assert kept.told.events[2:] == [("expires", str(kept.path), -1)]
    kept.certificates.stop()


def test_files_that_have_not_changed_are_not_read(tmp_path: Path) -> None:
    """Only their times and sizes are looked at."""
    path = AUTHORITY.issue(names("a.test"), DAY).save(tmp_path / "a.pem")
    settings = ListenerTLS(certificates=(path,))
    [changed] = read_changed([(settings, ())])
    assert changed is not None
    assert changed.contexts is not None
    assert ServerTLS(changed.contexts, settings).contexts is changed.contexts
    assert read_changed([(settings, changed.signature)]) == [None]
