"""The page in a real browser that can reach the server and nothing else."""

import json
import math
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from botformer.plots.attention_overlay import HEATMAP

from .running_server import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")


@contextmanager
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class OpenedPage:
    """The page of a server in a window of its own. `close` fails if it asked for anything else, or a script failed."""

    def __init__(
        self, browser: Any, server: Server, width: int = 1280, theme: str = "light", fragment: str = ""
    ) -> None:
        self.address = f"http://127.0.0.1:{server.port}/"
        self.server = server
        self.elsewhere: list[str] = []
        self.failures: list[str] = []
        self.asked: list[Any] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=theme, reduced_motion="reduce", accept_downloads=True
        )
        self.context.set_default_timeout(15_000)
        self.context.route("**/*", self._only_the_server)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request))  # playwright marks handlers: no builtins
        self.page.goto(self.address + fragment)

    def _only_the_server(self, route: Any) -> None:
        if route.request.url.startswith(self.address):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def close(self) -> None:
        self.context.close()
        assert self.elsewhere == []
        assert self.failures == []

    def open(self, data: bytes, name: str = "image.png", network: str | None = None) -> None:
        """A file by the button, on a network; waits until it has answered."""
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})
        self.page.wait_for_selector(".pane")
        if network is not None and self.page.input_value("[data-part=network]") != network:
            self.page.select_option("[data-part=network]", network)
        self.wait_for_answer()

    def wait_for_answer(self, pane: int = 0) -> None:
        self.page.wait_for_function(
            """(pane) => {
                const root = document.querySelectorAll(".pane")[pane];
                return root && !root.querySelector("[data-part=correct]").disabled;
            }""",
            arg=pane,
        )

    def set_threshold(self, percent: int) -> None:
        self.page.locator("#threshold").fill(str(percent))

    def count(self, path: str) -> int:
        """Requests to a path of the server."""
        return sum(path == request.url.removeprefix(self.address).partition("?")[0] for request in self.asked)

    def count_words(self, pane: int = 0) -> str:
        return self.page.locator(".pane").nth(pane).locator("[data-part=count]").inner_text()

    def click_image(self, x: float, y: float, pane: int = 0) -> Any:
        """At px of the image; the server's answer of /attention to it."""
        with self.page.expect_response("**/attention") as response:
            self.page.mouse.click(*self.on_screen(x, y, pane))
        answer = response.value.json()
        self.page.wait_for_selector(".tile canvas")
        return answer

    def on_screen(self, x: float, y: float, pane: int = 0) -> tuple[float, float]:
        """Where a px of the image is in the window. Scrolls the image into view."""
        stage = self.page.locator(".stage").nth(pane)
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        size = "({ viewBox: { baseVal } }) => [baseVal.width, baseVal.height]"
        width, height = self.page.eval_on_selector(".stage svg", size)
        return box["x"] + box["width"] * x / width, box["y"] + box["height"] * y / height

    def drag(self, *places: tuple[float, float]) -> None:
        """The pointer, in px of the window, pressed at the first place and released at the last."""
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()

    def middle_of(self, selector: str, number: int = 0) -> tuple[float, float]:
        """In px of the window."""
        box = self.page.locator(selector).nth(number).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def heat(self) -> np.ndarray:
        """(h, w, 4) uint8: the cells of the map over the image."""
        width, height, pixels = self.page.evaluate(
            """() => {
                const canvas = document.querySelector(".stage > canvas");
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return [canvas.width, canvas.height, [...data]];
            }"""
        )
        return np.array(pixels, np.uint8).reshape(height, width, 4)

    def export(self, label: str) -> Path:
        self.page.select_option("[data-part=format]", label=label)
        with self.page.expect_download() as download:
            self.page.click("[data-part=export]")
        return Path(download.value.path())


def attention_map(answer: Any, layer: int, head: int, term: str = "attention") -> np.ndarray:
    """(h, w) of the server's answer in times the mean; head 0 is the mean of the heads."""
    one = answer["layers"][layer]
    said = one["mean"] if head == 0 else one["heads"][head - 1]
    most = said["max" if term == "attention" else "content_max"]
    values = np.frombuffer(b64decode(said[term]), np.uint8).reshape(one["height"], one["width"])
    return (values / 255) ** 4 * most * values.size


def brightest(answer: Any, term: str = "attention") -> float:
    layers = answer["layers"]
    return max(attention_map(answer, layer, head, term).max() for layer in range(len(layers)) for head in range(5))


def heat_colours(times_mean: np.ndarray, limit: float) -> np.ndarray:
    """(h, w, 4) from 0 to 1, the colours of the figures: logarithmic from the mean to the limit."""
    return HEATMAP(np.log(np.clip(times_mean, 1, None)) / math.log(limit))


def posted_json(request: Any) -> Any:
    return json.loads(request.post_data)


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
