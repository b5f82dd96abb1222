"""/networks, /docs and the page: what they say is so."""

import hashlib
import html
import io
import json
import re
import shlex
import shutil
import subprocess
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

import botformer
from botformer.explain import attention_heads, see
from botformer.serve.api_page import CurlLines

from .running_server import CLASSIFIER, DETECTOR, KEYPOINTS


def test_the_networks_are_described(server):
    answer = server.get("/networks").json
    assert answer["version"] == botformer.__version__
    assert answer["limits"] == {"queue": 128, "megabytes": 20, "megapixels": 100, "seconds": 60, "bytes": 20_000_000}
    assert [each["name"] for each in answer["networks"]] == ["photos", "scenes", "poses", "nuclei"]
    sources = (CLASSIFIER, DETECTOR, KEYPOINTS, "nuclei")
    shown = ("classifier_run", "detector_run", "keypoint_rcnn.safetensors", "comes with botformer")
    kinds = ("classifier", "mask_rcnn", "keypoint_rcnn", "mask_rcnn")
    for each, source, public, kind in zip(answer["networks"], sources, shown, kinds, strict=True):
        model, config = botformer.load(source)
        assert (each["source"], each["kind"], each["row"]) == (public, kind, config["model"])
        assert each["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        seen = see(config, Image.new("RGB", (64, 64)))
        own = attention_heads(model, seen.pixels, (5.0, 5.0))
        assert each["attention"] == [
            {"name": layer.name, "heads": layer.heads, "stride_px": layer.stride_px} for layer in own
        ]
        if kind == "classifier":
            assert each["classes"] == config["class_names"]
        else:
            assert [[number, name] for number, name in zip(each["category_ids"], each["classes"], strict=True)] == [
                list(pair) for pair in config["categories"]
            ]
            assert each["keypoints"] == list(config.get("keypoint_names", []))
            assert each["skeleton"] == [list(pair) for pair in config.get("skeleton", [])]


def test_the_examples_are_images_that_their_network_knows(server):
    examples = server.get("/networks").json["examples"]
    assert len(examples) >= 2
    for each in examples:
        reply = server.get(each["url"])
        assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(reply.body)).height == 512
    strip = next(each for each in examples if each["name"] == "nuclei-strip")
    found = server.post(f"/predict?network={strip['for'][0]}&threshold=0.5", server.get(strip["url"]).body).json
    assert len(found["detections"]) > 10


def test_the_page_of_the_api_fetches_nothing_and_lists_every_route(server):
    reply = server.get("/docs")
    text = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", text) == [
        *("/page/icon.svg", "/docs/style.css", "/openapi.json", "/"),
    ]
    assert "<script" not in text
    assert "<style" not in text
    style = server.get("/docs/style.css")
    assert (style.headers["content-type"], b"url(" in style.body) == ("text/css; charset=utf-8", False)
    described = server.get("/openapi.json").json["paths"]
    assert set(described) == {"/health", "/metrics", "/networks", "/predict", "/attention", "/corrections"}
    for path, methods in described.items():
        ((method, route),) = methods.items()
        assert f"<span>{method.upper()}</span> {path}" in text
        for parameter in route.get("parameters", []):
            assert f"<td>{parameter['name']}</td>" in text
    assert server.get("/redoc").status == 404


def lines(server):
    text = server.get("/docs", {"Host": f"127.0.0.1:{server.port}"}).body.decode()
    blocks = [html.unescape(block) for block in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)]
    return [block for block in blocks if block.startswith("curl")]


def test_every_line_works_when_it_is_pasted(server, tmp_path):
    """On the first network, a classifier here."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("needs curl")
    assert len(lines(server)) == 6
    for line in lines(server):
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=tmp_path, capture_output=True, timeout=60)
        assert done.returncode == 0
        assert b'"detail"' not in done.stdout
        assert done.stdout or "-o corrections.zip" in line
    assert (tmp_path / "corrections.zip").read_bytes().startswith(b"PK")
    example = server.get("/examples/nuclei.png").body
    assert any(hashlib.sha256(example).hexdigest() in line for line in lines(server))


def test_lines_can_be_pasted_whatever_a_network_is_called():
    name = "it's $(touch here) & my run"
    curl = CurlLines("http://127.0.0.1:1", {"name": name, "task": "detection"}, with_token=False)
    predict = shlex.split(curl.line("/predict"))
    assert parse_qs(urlsplit(predict[-1]).query)["network"] == [name]
    assert not set(" '$&") & set(urlsplit(predict[-1]).query.partition("&")[0])
    click = shlex.split(curl.line("/attention"))
    assert json.loads(click[click.index("-d") + 1])["network"] == name
