"""/attention against botformer.explain, from the values as they are."""

import base64

import numpy as np
import pytest

import botformer
from botformer.explain import attention_heads, see

from .running_server import CLASSIFIER, DETECTOR


def values(layer, maps, what="attention", most="max"):
    """(height, width) as the contract says: (byte / 255)^4 * max."""
    raw = np.frombuffer(base64.b64decode(maps[what]), np.uint8).reshape(layer["height"], layer["width"])
    return (raw / 255) ** 4 * maps[most]


def assert_close(got, expected):
    """Half a step of the bytes, and what a batch on a canvas changes by rounding."""
    roots = [(values / expected.max()) ** 0.25 for values in (got, expected)]
    np.testing.assert_allclose(*roots, atol=0.5 / 255 + 1e-3)


@pytest.mark.parametrize(
    ("network", "source", "place"),
    [("photos", CLASSIFIER, (31.0, 20.5)), ("scenes", DETECTOR, (199.9, 3.0)), ("nuclei", "nuclei", (120.0, 149.0))],
)
def test_heads_are_those_of_explain(server, cells, network, source, place):
    x, y = place
    key = server.post(f"/predict?network={network}", cells).json["image"]
    answer = server.post_json("/attention", {"image": key, "network": network, "x": x, "y": y}).json
    model, config = botformer.load(source)
    seen = see(config, cells)
    own = attention_heads(model, seen.pixels, seen.seen(y, x))
    assert answer["seen_box_xyxy"] == list(seen.box_xyxy)
    assert answer["seen_px"] == list(seen.pixels.shape[1:])
    assert len(answer["layers"]) == len(own) > 0
    for layer, heads in zip(answer["layers"], own, strict=True):
        assert layer["name"] == heads.name
        assert (layer["stride_px"], tuple(layer["query_cell"])) == (heads.stride_px, heads.query_cell)
        assert len(layer["heads"]) == heads.heads
        for head, maps in enumerate(layer["heads"]):
            for what, most, expected in (
                ("attention", "max", heads.attention[head]), ("content", "content_max", heads.content_alone[head]),
            ):  # fmt: skip
                assert_close(values(layer, maps, what, most), expected)
        assert_close(values(layer, layer["mean"]), heads.attention.mean(0))


def test_another_network_that_did_not_predict_the_image_is_asked(server, photo):
    key = server.post("/predict?network=photos", photo).json["image"]
    forward_passes = server.serving.networks["scenes"].predictor.model
    click = {"image": key, "network": "scenes", "x": 5, "y": 5}
    assert server.serving.seen.get((key, "scenes")) is None
    first = server.post_json("/attention", click).json
    assert server.serving.seen.get((key, "scenes")) is not None
    # What is kept is all that the next click needs.
    handle = forward_passes.register_forward_pre_hook(lambda *_: pytest.fail("a second forward pass"))
    body = forward_passes.backbone.register_forward_pre_hook(lambda *_: pytest.fail("a second forward pass"))
    try:
        assert server.post_json("/attention", click).json == first
    finally:
        handle.remove()
        body.remove()


def test_a_click_after_a_prediction_costs_no_forward_pass(server, photo):
    key = server.post("/predict?network=scenes", photo).json["image"]
    backbone = server.serving.networks["scenes"].predictor.model.backbone
    handle = backbone.register_forward_pre_hook(lambda *_: pytest.fail("a forward pass"))
    try:
        assert server.post_json("/attention", {"image": key, "network": "scenes", "x": 5, "y": 5}).status == 200
    finally:
        handle.remove()


def test_what_is_wrong_with_a_click(server, photo):
    key = server.post("/predict?network=photos", photo).json["image"]
    good = {"image": key, "network": "photos", "x": 35, "y": 25}
    for change, status, words in (
        ({"image": "0" * 64}, 404, "/predict again"),
        ({"network": "other"}, 404, "there are"),
        ({"x": 71}, 422, "outside the image, which is 70x50"),
        ({"x": 2}, 422, "border that the network does not see; it sees x from 10 to 60"),
        ({"x": None}, 422, "x: "),
    ):
        reply = server.post_json("/attention", good | change)
        assert reply.status == status
        assert words in reply.detail
    assert server.post("/attention", b"{").status == 422
    assert server.post("/attention", b" " * 10_000).status == 413
    assert server.post_json("/attention", good).status == 200
