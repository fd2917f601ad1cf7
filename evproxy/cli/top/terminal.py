"""
A terminal: keys that come one by one, and the screen that they change.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live

from evproxy.cli.ctl.client import AdminClient
from evproxy.cli.top.screen import View, screen
from evproxy.cli.top.watcher import Watcher

SORTS = {"r": "rate", "b": "bytes", "a": "age", "n": "id", "c": "peer", "s": "server"}
"""The keys that sort, and the orders."""

ESCAPE, BACKSPACE, ENTER = "\x1b", ("\x7f", "\x08"), ("\r", "\n")

_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]|.", re.DOTALL)
"""
What one key sends: a control sequence (an arrow, a function key), as ECMA-48 has it, a function
key in application mode, or one character. A terminal may send several keys at once.
"""

SAMPLES = 900
"""The most samples that are kept, as many as a history has."""

MOST_SESSIONS = 500
"""The most sessions that one look may have."""


class Terminal:
    """
    Shows the proxy of `client` until the user quits.

    :param client: asks the proxy.
    :param view: the first question.
    :param console: where to show it.
    :param keyboard: the descriptor of the terminal to read keys from.
    """

    def __init__(self, client: AdminClient, view: View, console: Console, keyboard: int) -> None:
        self._client = client
        self._view = view
        self._console = console
        self._keyboard = keyboard
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._watcher: Watcher | None = None
        self._most = 0

    def run(self) -> None:
        """
        Show looks and obey keys.

        :raises Failed, Unreachable: if the proxy does not show itself the first time.
        """
        self._watcher = Watcher(self._client, self._question())
        try:
            with (
                _keys_one_by_one(self._keyboard),
                Live(console=self._console, screen=True, auto_refresh=False) as live,
            ):
                self._show(live)
                while self._turn():
                    self._show(live)
        except KeyboardInterrupt:
            pass
        finally:
            self._watcher.close()

    def _turn(self) -> bool:
        """Wait for a key or a look; false: the user quits."""
        assert self._watcher is not None
        # The timeout is for a terminal that changes its size.
        ready, _, _ = select.select([self._keyboard, self._watcher.wakes], [], [], 1.0)
        for name, value in self._watcher.taken():
            self._take(name, value)
        if min(MOST_SESSIONS, self._console.height) > self._most and not self._view.paused:
            self._ask_again()
        if self._keyboard not in ready:
            return True
        data = os.read(self._keyboard, 256)
        keys = _KEY.findall(self._decoder.decode(data))
        return bool(data) and all(map(self._key, keys))

    def _take(self, name: str, value: Any) -> None:
        view = self._view
        if name == "trouble":
            view.trouble = value
        elif view.paused:
            return
        elif name == "history":
            view.samples = value["samples"]
        elif name == "look":
            view.look, view.trouble = value, ""
            view.samples.append(value["sample"])
            del view.samples[:-SAMPLES]

    def _key(self, key: str) -> bool:
        view = self._view
        if len(key) > 1:
            # An arrow or a function key, which means nothing here.
            return True
        if view.typed is not None:
            self._type(key)
        elif key in ("q", "Q"):
            return False
        elif key == "/":
            view.typed = view.filter
        elif key in ("p", " "):
            view.paused = not view.paused
        elif key == "R":
            view.reverse = not view.reverse
            self._ask_again()
        elif key in SORTS:
            view.sort, view.reverse = SORTS[key], False
            self._ask_again()
        elif key == ESCAPE and view.filter:
            view.filter = ""
            self._ask_again()
        return True

    def _type(self, key: str) -> None:
        view = self._view
        assert view.typed is not None
        if key in ENTER:
            view.filter, view.typed = view.typed.strip(), None
            self._ask_again()
        elif key == ESCAPE:
            view.typed = None
        elif key in BACKSPACE:
            view.typed = view.typed[:-1]
        elif key.isprintable():
            view.typed += key

    def _question(self) -> dict[str, Any]:
        view = self._view
        order = "reversed" if view.reverse else ""
        self._most = max(1, min(MOST_SESSIONS, self._console.height))
        return {"sort": view.sort, "order": order, "filter": view.filter, "limit": self._most}

    def _ask_again(self) -> None:
        assert self._watcher is not None
        self._view.paused = False
        self._watcher.ask(self._question())

    def _show(self, live: Live) -> None:
        width, height = self._console.size
        live.update(screen(self._view, width, height), refresh=True)


@contextmanager
def _keys_one_by_one(keyboard: int) -> Iterator[None]:
    """Let keys come at once and unseen, and put the terminal back at the end."""
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
