"""The status page, in a real browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.admin_process import ADMIN, LISTEN, ask, port_of
from tests.support.blocking_clients import Upstream, rest
from tests.support.browser import DESKTOP, PHONE, Browser
from tests.support.peers import RESET
from tests.support.scene import ESCAPED, NASTY, Scene, scene
from tests.support.supervised import Supervised, owners
from tests.support.twistd import PATIENCE, Running, wait_until

pytestmark = pytest.mark.peers("chromium", "chromedriver")

LINK, SESSIONS = "#link", "#sessions-table tbody tr"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of a module of tests."""
    browser = Browser(tmp_path_factory.mktemp("browser"), shows=".pool .counts")
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A proxy with three pools and servers in every state, and 500 sessions."""
    with scene(tmp_path_factory.mktemp("scene")) as made:
        for _ in range(500 - ask(made.admin, "/status")["sessions"]):
            made.upstream.connect(made.ports[0])
        yield made


def row(name: str, column: int) -> str:
    """A selector for a cell: a server's row has its name in the title of its button."""
    return f'tr:has([aria-label^="Manage {name} "]) > :nth-child({column})'


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_how_it_looks(browser: Browser, stage: Scene, width: int, dark: bool) -> None:
    """Nothing is wider than the screen, axe-core finds no fault, the browser logs no error."""
    browser.open(stage.admin, width, dark)
    browser.until(lambda: len(browser.texts(SESSIONS)) == 100)
    assert browser.faults() == []
    assert browser.script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.complaints() == []
    browser.picture(f"{'phone' if width == PHONE else 'desktop'}-{'dark' if dark else 'light'}")


def test_every_state_and_its_reason(browser: Browser, stage: Scene) -> None:
    """Each server has its state and the reason for it, also a long one."""
    browser.open(stage.admin)
    counts = browser.texts(".pool .counts")
    assert [each.split() for each in counts] == [
        ["1", "up", "1", "ejected", "1", "draining"],
        ["2", "down"],
        ["1", "up", "1", "ejected"],
    ]
    whys = "\n".join(browser.texts(".why"))
    for part in ("connection refused (1 of 1)", "by request", "expected reply 220", "no such file"):
        assert part in whys
    assert browser.script("return document.title").startswith("(4) evproxy · 500")
    assert browser.texts("#listeners tbody th") == ["web", "odd"]


def test_text_from_outside_stays_text(browser: Browser, stage: Scene) -> None:
    """A route and a server that look like HTML are shown as they are, and make no element."""
    browser.open(stage.admin)
    browser.click("#filter")
    browser.type("onerror")
    browser.until(lambda: len(browser.texts(SESSIONS)) == 20)
    assert f"odd: host={NASTY}" in browser.text("#sessions-table tbody")
    assert f"unix:/tmp/{ESCAPED}" in browser.text("#pools")
    browser.click(f'[aria-label="Manage unix:/tmp/{ESCAPED} in pool odd"]'.replace("\\", "\\\\"))
    assert browser.text("#dialog-title") == f"unix:/tmp/{ESCAPED}"
    assert browser.script("return document.querySelectorAll('main img, dialog img').length") == 0
    assert browser.faults() == []
    browser.press("Close")
    assert browser.complaints() == []


def test_no_script_but_its_own(browser: Browser, stage: Scene) -> None:
    """The policy stops an inline script, text that becomes HTML, and what is not from here."""
    browser.open(stage.admin)
    refused = browser.script(
        """
        const script = document.createElement("script");
        window.ran = false;
        try { script.text = "window.ran = true"; document.body.append(script); } catch {}
        let html = "kept as it was";
        try { document.createElement("p").innerHTML = "<b>x</b>"; html = "made"; } catch {}
        return [window.ran, html];
        """
    )
    assert refused == [False, "kept as it was"]
    answered = browser.driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        fetch("http://localhost:" + location.port + "/status").then(() => done("loaded"),
                                                                    () => done("refused"));
        """
    )
    assert answered == "refused"
    complaints = browser.complaints()
    assert len(complaints) >= 3
    assert all("Content Security Policy" in each or "Trusted" in each for each in complaints)


def test_it_loads_nothing_from_outside(browser: Browser, stage: Scene) -> None:
    """All that the page has loaded came from the admin interface."""
    browser.open(stage.admin)
    loaded = browser.script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert len(loaded) >= 7
    assert all(each.startswith(f"http://127.0.0.1:{stage.admin}/") for each in loaded)


def test_sessions_are_filtered_sorted_and_more(browser: Browser, stage: Scene) -> None:
    """The keyboard reaches the filter; a click on a title sorts, and a second one reverses."""
    browser.open(stage.admin)

    def first() -> str:
        return (browser.texts("#sessions-table tbody th") or [""])[0]

    browser.click("#sessions-table th:first-child button")
    browser.until(lambda: int(first() or 0) >= 500)
    assert browser.script(
        "return document.querySelector('#sessions-table th').getAttribute('aria-sort')"
    ) == ("descending")
    browser.click("#sessions-table th:first-child button")
    browser.until(lambda: first() == "1")
    browser.click("#more")
    browser.until(lambda: len(browser.texts(SESSIONS)) == 500)
    browser.picture("sessions-500")
    browser.type("/")
    browser.type("odd relaying")
    browser.until(lambda: len(browser.texts(SESSIONS)) == 20)
    browser.until(lambda: browser.text("#sessions-count") == "20 of 500")
    browser.type("nothing like this")
    browser.until(lambda: browser.text("#sessions-none") == "No session fits the filter.")
    browser.type("\ue00c")
    browser.until(lambda: len(browser.texts(SESSIONS)) == 500)


def test_it_is_live(browser: Browser, stage: Scene) -> None:
    """The plots and the rates follow the traffic, and stand still while the page is paused."""
    client, server = stage.upstream.connect(stage.ports[0])
    going = threading.Event()

    def talk() -> None:
        while not going.is_set():
            server.sendall(b"x" * 50_000)
            left = 50_000
            while left:
                left -= len(client.recv(left))
            going.wait(0.02)

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        browser.open(stage.admin)
        throughput = ".plot:first-child .value"
        browser.until(lambda: "MiB/s" in browser.text(throughput))
        browser.until(lambda: "MiB/s" in browser.text(f"{SESSIONS} td:nth-child(9)"))
        browser.picture("traffic")
        assert "to clients" in browser.text(".plot:first-child .note")
        assert browser.text(".plot:nth-child(4) .value").endswith(("µs", "ms"))
        browser.type("p")
        browser.until(lambda: browser.text(LINK) == "paused")
        browser.type("p")
        browser.until(lambda: browser.text(LINK) == "live")
    finally:
        going.set()
        talking.join()
        client.close()
        server.close()


def test_a_server_is_drained_weighed_and_resumed(browser: Browser, stage: Scene) -> None:
    """Each change comes after a question, and the page shows it."""
    browser.open(stage.admin)
    browser.until(lambda: any(":" in each for each in browser.texts(".pool .name")))
    name = next(each for each in browser.texts(".pool .name") if each.startswith("127.0.0.1:"))
    server = {"pool": "web", "name": name}

    def state() -> dict[str, object]:
        found: dict[str, object] = stage.server(server["pool"], server["name"])
        return found

    def manage(*labels: str) -> None:
        browser.click(f'[aria-label="Manage {name} in pool web"]')
        for label in labels:
            browser.press(label)

    manage("Drain…", "Cancel")
    assert state()["state"] != "draining"
    manage("Drain…", "Drain")
    browser.until(lambda: browser.text("#done") == f"{name} drains.")
    browser.until(lambda: browser.text(row(name, 2)) == "draining")
    assert state()["state"] == "draining"
    manage("Resume…", "Resume")
    browser.until(lambda: browser.text("#done") == f"{name} is resumed.")
    manage("Set the weight…")
    browser.script("document.querySelector('dialog input').value = ''")
    browser.type("17")
    assert browser.faults() == []
    browser.picture("question")
    browser.press("Set the weight")
    browser.until(lambda: browser.text("#done") == f"{name} has the weight 17.")
    assert state()["weight"] == 17


def test_sessions_are_ended(browser: Browser, stage: Scene) -> None:
    """One session, and all sessions of a server, end after a question."""
    client, server = stage.upstream.connect(stage.ports[0])
    number = ask(stage.admin, f"/sessions?peer=127.0.0.1:{client.getsockname()[1]}")["sessions"][0]
    browser.open(stage.admin)
    browser.type("/")
    browser.type(number["peer"])
    end = f'[aria-label="End session {number["id"]}"]'
    browser.until(lambda: browser.texts(end))
    browser.click(end)
    browser.press("End the session")
    browser.until(lambda: browser.text("#done") == f"Session {number['id']} is ended.")
    assert rest(client) == (b"", RESET)
    client.close()
    server.close()


@pytest.fixture
def small(upstream: Upstream) -> Iterator[Callable[..., Running]]:
    """Starts a proxy with nothing going on."""
    running: list[Running] = []

    def start(*options: str) -> Running:
        running.append(Running("evproxy", LISTEN, upstream.option, *options, patience=60.0))
        return running[-1]

    yield start
    for each in running:
        each.__exit__()


def test_an_empty_proxy(browser: Browser, small: Callable[..., Running]) -> None:
    """A proxy without sessions says so."""
    browser.open(port_of(small(ADMIN, "--watchdog-threshold=0")))
    assert browser.text("#sessions-none") == "There is no session now."
    assert browser.text(".plot:nth-child(4) .value") == "off"
    assert browser.faults() == []
    browser.picture("empty")


def test_the_token_is_asked_for_once(
    browser: Browser, small: Callable[..., Running], tmp_path: Path
) -> None:
    """A wrong token is asked for again; the right one stays for the next change."""
    token = tmp_path / "token"
    token.write_text("a-token-of-26-characters-ok")
    running = small(ADMIN, f"--admin-token-file={token}")
    browser.open(port_of(running))
    manage = ".pool .act button"
    browser.click(manage)
    browser.press("Drain…")
    browser.press("Drain")
    browser.until(lambda: browser.text("#dialog-title") == "Token")
    browser.type("not the token")
    browser.press("Use the token")
    browser.until(lambda: "wrong" in browser.text("#dialog-body"))
    browser.type(token.read_text())
    browser.press("Use the token")
    browser.until(lambda: browser.text("#done").endswith(" drains."))
    browser.until(lambda: browser.text("tbody .pill") == "draining")
    browser.click(manage)
    browser.press("Resume…")
    browser.press("Resume")
    browser.until(lambda: browser.text("#done").endswith(" is resumed."))


def test_workers(browser: Browser, upstream: Upstream) -> None:
    """The page shows the sessions of all workers, and its changes reach every worker."""
    with Supervised(LISTEN, ADMIN, upstream.option) as running:
        port, admin, pids = running.serves(), port_of(running), running.workers()
        pairs = [upstream.connect(port)]
        while len(set(owners([client for client, _ in pairs], pids))) < 2:
            pairs.append(upstream.connect(port))
        browser.open(admin)
        browser.until(lambda: len(browser.texts(SESSIONS)) == len(pairs))
        assert "2 workers" in browser.text("#about")
        browser.click(".pool .act button")
        browser.press("Drain…")
        browser.press("Drain")
        browser.until(lambda: browser.text("tbody .pill") == "draining")
        wait_until(lambda: ask(admin, "/status")["pools"][0]["servers"]["draining"] == 1)
        assert browser.complaints() == []
        for pair in pairs:
            for each in pair:
                each.close()


def test_a_problem_is_shown(browser: Browser, small: Callable[..., Running]) -> None:
    """What evproxy refuses is shown with the reason."""
    browser.open(port_of(small(ADMIN)))
    browser.type("/")
    browser.type("a b c d e f g h i")
    browser.until(lambda: browser.text("#banner") == "filter: expected at most 8 words, got 9")


def test_a_proxy_that_is_gone(browser: Browser, small: Callable[..., Running]) -> None:
    """The page says so, and goes on when a proxy answers again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    admin = f"--admin=tcp:{port}:interface=127.0.0.1"
    first = small(admin)
    browser.open(port_of(first))
    first.__exit__()
    browser.script("const now = Date.now; Date.now = () => now() + 60000")
    browser.until(lambda: browser.text(LINK).startswith("no answer for"))
    browser.picture("gone")
    port_of(small(admin))
    browser.until(lambda: browser.text(LINK) == "live")


def test_many_viewers(browser: Browser, small: Callable[..., Running]) -> None:
    """Viewers beyond the bound are told."""
    port = port_of(small(ADMIN))
    watching = []
    for _ in range(16):
        viewer = socket.create_connection(("127.0.0.1", port), PATIENCE)
        viewer.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert viewer.recv(12) == b"HTTP/1.1 200"
        watching.append(viewer)
    browser.driver.get(f"http://127.0.0.1:{port}/")
    browser.until(lambda: "viewers watch already" in browser.text("#banner"))
    for viewer in watching:
        viewer.close()
    browser.until(lambda: browser.text(LINK) == "live")
