"""The live page, in a real browser and from outside."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.live.page import MOST_VIEWERS
from tests.support.browser import DESKTOP, PHONE, Browser
from tests.support.twistd import PATIENCE, ROOT

pytestmark = pytest.mark.peers("chromium", "chromedriver")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of ``python -m study live``, which ends with Ctrl-C."""
    command = [sys.executable, "-m", "study", "live"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
        assert said.startswith("http://127.0.0.1:")
        yield int(said.split("/")[2].rpartition(":")[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of these tests."""
    browser = Browser(tmp_path_factory.mktemp("browser"), shows="#threads .thread")
    yield browser
    browser.close()


def button(action: str) -> str:
    return f'[data-action="{action}"]'


def number(browser: Browser, selector: str) -> int:
    """The first number in an element; 0 if there is none yet."""
    words = browser.text(selector).replace(",", "").split()
    return int(words[0]) if words and words[0].isdigit() else 0


def pressed(browser: Browser) -> list[str]:
    """The buttons that are pressed; a page that is opened later shows them, too."""
    return browser.texts('[aria-pressed="true"]')


def test_a_loop_turns(browser: Browser, port: int) -> None:
    """Load moves dots into the batch, makes callbacks, and has latencies, for both proxies."""
    browser.open(port)
    browser.click(button("load"))
    browser.until(lambda: pressed(browser) == ["Load: 60 requests a second"])
    browser.until(lambda: number(browser, "#batch-count") > 0)
    browser.until(lambda: number(browser, "#rate") > 50)
    browser.until(lambda: browser.text("#evproxy-p99").endswith("ms"))
    browser.until(lambda: browser.text("#pool-p99").endswith("ms"))
    assert len(browser.texts("#threads .thread")) == 16
    browser.until(lambda: browser.text("#evproxy-lost").startswith("0 of "))


def test_idle_clients_fill_the_pool(browser: Browser, port: int) -> None:
    """30 idle clients are dots that wait, and take every thread of the pool."""
    browser.open(port)
    browser.click(button("idle"))
    browser.until(lambda: number(browser, "#waiting-count") >= 60)
    browser.until(lambda: browser.text("#busy") == "16 of 16")
    browser.until(lambda: number(browser, "#queue") > 0)
    browser.picture("live-full-pool")
    browser.click(button("idle"))
    browser.until(lambda: number(browser, "#queue") == 0)


def test_a_callback_holds_the_loop(browser: Browser, port: int) -> None:
    """A callback that computes turns the loop red, and the watchdog names it."""
    browser.open(port)
    browser.script(
        "window.held = 0;"
        "new MutationObserver(() => { if (document.querySelector('#loop.held')) window.held++; })"
        ".observe(document.getElementById('loop'), {attributes: true});"
    )
    browser.click(button("block"))
    browser.until(lambda: browser.script("return window.held"))
    browser.picture("live-held")
    browser.until(lambda: number(browser, "#longest") >= 400)
    browser.until(
        lambda: any(
            "held for" in each and "route (" in each for each in browser.texts("#reports li")
        )
    )
    browser.until(lambda: browser.texts("#loop.held") == [])


def test_a_slow_reader(browser: Browser, port: int) -> None:
    """A client that reads nothing is one more session, and the loop goes on."""
    browser.open(port)
    browser.click(button("slow"))
    browser.until(lambda: "A slow reader" in pressed(browser))
    browser.until(lambda: number(browser, "#rate") > 50)
    browser.click(button("slow"))
    browser.until(lambda: "A slow reader" not in pressed(browser))


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_how_it_looks(browser: Browser, port: int, width: int, dark: bool) -> None:
    """Nothing is wider than the screen, axe-core finds no fault, the browser logs no error."""
    browser.open(port, width, dark)
    browser.until(lambda: len(browser.texts("#threads .thread")) == 16)
    assert browser.script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.complaints() == []
    browser.picture(
        f"live-{'phone' if width == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    )
    assert browser.faults() == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("POST", "/do/load?on=0", {}, (403, b"only this page may press its buttons\n")),
        ("POST", "/do/explode", {"X-Study": "1"}, (404, b"there is no button 'explode'\n")),
        ("GET", "/../setup.cfg", {}, (404, b"there is no such page\n")),
        ("GET", "/", {"Host": "evil.example:80"}, (403, b"the host of this page is 127.0.0.1\n")),
    ],
)
def test_what_is_refused(
    port: int, method: str, path: str, headers: dict[str, str], expected: tuple[int, bytes]
) -> None:
    """Other pages press no buttons, and no name but the machine's own leads here."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == expected
    connection.close()


def test_viewers_are_bounded(port: int) -> None:
    """One viewer too many is told so."""
    viewers = []
    for _ in range(MOST_VIEWERS + 1):
        viewers.append(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE))
        viewers[-1].request("GET", "/events")
        status = viewers[-1].getresponse().status
    for viewer in viewers:
        viewer.close()
    assert status == 503


def test_a_port_that_is_taken(port: int, tmp_path: Path) -> None:
    """One line says that the port is taken."""
    for wrong, said in ((port, "Address already in use"), (70_000, "there is no port 70000")):
        command = [sys.executable, "-m", "study", "live", "--port", str(wrong)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        assert done.stderr == f"python -m study live: --port: {said}\n"
