"""Access lists in files: read at the start, and again when they change."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from evproxy import ListenerSettings, SettingsError
from evproxy.policy.access import Access
from evproxy.policy.address_number import address_number
from evproxy.policy.refusal import Refusal
from evproxy.service import network_files
from evproxy.service.network_files import AccessOfListener
from tests.support.services import until


def refusal(access: Access, host: str) -> Refusal | None:
    return access.refusal(address_number(host))


def replace(file: Path, text: str) -> None:
    """Put `text` into `file` at once, as an editor does."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


async def test_a_file_that_changes(
    reactor: Any, tmp_path: Path, warnings_logged: list[str]
) -> None:
    """The new networks count once the file is read again; a broken file keeps those before."""
    file = tmp_path / "denied"
    file.write_text("192.0.2.0/24  # bad\n")
    changes: list[Access] = []
    settings = ListenerSettings(deny=("198.51.100.1",), deny_files=(str(file),))
    lists = AccessOfListener(reactor, settings, changes.append)
    access = lists.access()
    assert refusal(access, "192.0.2.7") is Refusal.DENIED
    assert refusal(access, "198.51.100.1") is Refusal.DENIED
    assert refusal(access, "203.0.113.1") is None
    replace(file, "203.0.113.0/24\n")
    lists.look()
    await until(reactor, lambda: len(changes) == 1)
    assert refusal(changes[0], "192.0.2.7") is None
    assert refusal(changes[0], "203.0.113.1") is Refusal.DENIED
    assert refusal(changes[0], "198.51.100.1") is Refusal.DENIED
    replace(file, "203.0.113.0/24\nnonsense\n")
    lists.look()
    await until(reactor, lambda: bool(warnings_logged))
    assert len(changes) == 1
    # Time for further looks, which say nothing new; a look is skipped while one is not over.
    looks = 0

    def looked_again() -> bool:
        nonlocal looks
        looks += 1
        lists.look()
        return looks > 20

    await until(reactor, looked_again)
    [line] = warnings_logged
    assert line.startswith(f"the networks before stay: {file}: line 2: ")
    replace(file, "192.0.2.0/24\n")

    def changed_again() -> bool:
        lists.look()
        return len(changes) == 2

    await until(reactor, changed_again)
    assert refusal(changes[1], "192.0.2.7") is Refusal.DENIED
    lists.close()


def test_an_empty_list_of_those_who_may(reactor: Any, tmp_path: Path) -> None:
    """A file that lost its lines does not open the listener."""
    file = tmp_path / "allowed"
    file.write_text("")
    lists = AccessOfListener(reactor, ListenerSettings(allow_files=(str(file),)), print)
    assert refusal(lists.access(), "192.0.2.7") is Refusal.NOT_ALLOWED


async def test_a_look_that_is_not_over(
    reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file hangs, no further look begins, and after the end nothing changes any more."""
    file = tmp_path / "denied"
    file.write_text("192.0.2.0/24\n")
    begun: list[str] = []
    go_on = threading.Event()
    ended = threading.Event()
    look_at = network_files.look_at

    def look_or_hang(settings: ListenerSettings, known: Any) -> network_files.Look:
        begun.append("a look")
        go_on.wait()
        try:
            return look_at(settings, known)
        finally:
            ended.set()

    monkeypatch.setattr(network_files, "look_at", look_or_hang)
    changes: list[Access] = []
    lists = AccessOfListener(reactor, ListenerSettings(deny_files=(str(file),)), changes.append)
    try:
        for _ in range(3):
            lists.look()
        await until(reactor, lambda: bool(begun))
        replace(file, "203.0.113.0/24\n")
        lists.close()
    finally:
        go_on.set()
    await until(reactor, ended.is_set)
    await deferToThread(ended.wait)
    assert begun == ["a look"]
    assert changes == []


def test_a_fifo_is_refused(reactor: Any, tmp_path: Path) -> None:
    """Nothing waits for a writer."""
    file = tmp_path / "denied"
    os.mkfifo(file)
    with pytest.raises(SettingsError) as raised:
        AccessOfListener(reactor, ListenerSettings(deny_files=(str(file),)), print)
    assert str(raised.value) == f"deny_files[0]: {file}: cannot be read: it is not a regular file"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "cannot be read: No such file or directory"),
        ("10.0.0.1/8\n", 'line 1: "10.0.0.1/8": did you mean 10.0.0.0/8?'),
    ],
)
def test_a_file_that_is_wrong_at_the_start(
    reactor: Any, tmp_path: Path, text: str | None, fault: str
) -> None:
    """The error names the file and what is wrong."""
    file = tmp_path / "denied"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        AccessOfListener(reactor, ListenerSettings(deny_files=(str(file),)), print)
    assert str(raised.value) == f"deny_files[0]: {file}: {fault}"
