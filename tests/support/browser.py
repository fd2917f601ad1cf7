"""A headless browser for the status page and the live page, one for a whole module of tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.programs import requires_program
from tests.support.twistd import PATIENCE, ROOT

SCREENSHOTS = ROOT / "screenshots"
"""Where the tests leave pictures of the page."""

DESKTOP = 1360
PHONE = 390


class Browser:
    """
    A browser that looks at the pages of one proxy after the other.

    :param home: Its profile lives here.
    :param shows: A selector for what the first look puts on such a page.
    """

    def __init__(self, home: Path, shows: str) -> None:
        self._shows = shows
        options = ChromeOptions()
        options.binary_location = requires_program("chromium")
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--force-color-profile=srgb",
            f"--user-data-dir={home / 'profile'}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        environment = {**os.environ, "HOME": str(home), "SE_AVOID_STATS": "true"}
        service = ChromeService(requires_program("chromedriver"), env=environment)
        self.driver = Chrome(options, service)
        self.driver.set_page_load_timeout(PATIENCE)
        self.driver.set_script_timeout(PATIENCE)

    def open(self, port: int, width: int = DESKTOP, dark: bool = False) -> None:
        """Open the page at `port` of 127.0.0.1, and wait for its first look."""
        self.look_like(width, dark)
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(f"http://127.0.0.1:{port}/")
        # The stream is open before its first look has come.
        self.until(lambda: self.text("#link") == "live" and self.texts(self._shows))

    def look_like(self, width: int, dark: bool = False) -> None:
        """Take this width in pixels, and the light or the dark scheme."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until `holds` returns something true, and return it."""
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: holds())

    def script(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function, and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """The text of the first element that fits, as far as it is shown; empty: there is none."""
        found = self.script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
        return str(found)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that fit."""
        found: list[str] = self.script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)",
            selector,
        )
        return found

    def click(self, selector: str) -> None:
        """Click on the first element that fits."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def press(self, label: str) -> None:
        """Click on the button of the open dialog with this label."""

        def button() -> Any:
            buttons = self.driver.find_elements(By.CSS_SELECTOR, "dialog[open] button")
            return next((each for each in buttons if each.text == label), None)

        self.until(button).click()

    def type(self, text: str) -> None:
        """Type `text` where the focus is."""
        self.driver.switch_to.active_element.send_keys(text)

    def picture(self, name: str) -> None:
        """Leave a picture of the page, as high as it is up to 1600 pixels."""
        SCREENSHOTS.mkdir(exist_ok=True)
        height = self.script("return Math.min(1600, document.documentElement.scrollHeight)")
        width = self.script("return window.innerWidth")
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the browser has logged since the page was opened, such as errors of scripts."""
        return [each["message"] for each in self.driver.get_log("browser")]

    def faults(self) -> list[str]:
        """
        What axe-core finds: one line for each fault of accessibility.

        Looks at the first rows of each table only: the others are made in the same way.
        """
        axe = files("axe_core_python").joinpath("axe.min.js").read_text()
        # The debugger may run scripts that the page may not.
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run({exclude: ['tbody tr:nth-child(n + 4)']})"
            ".then((found) => done(JSON.stringify(found.violations)));"
        )
        return [
            f"{each['id']}: {node['html']}: {node['failureSummary']}"
            for each in json.loads(found)
            for node in each["nodes"]
        ]
