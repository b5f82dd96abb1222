import numpy as np
import pytest
import torch
from torch.nn import functional as F

from botformer.backbone.variants import Row
from botformer.create import create_model
from botformer.errors import InputError
from botformer.explain import grad_cam, grad_cam_of_detection
from botformer.explain.forward_pass import feature_maps, padded

from .tiny_networks import CONVOLUTIONS, ROWS, classifier, detector, image

EVERY_ROW = ROWS | {"convolutions": CONVOLUTIONS, "SE, SiLU": Row((1, 1, 1, 1), squeeze_excite=True, activation="silu")}


def cam_by_hooks(model, pixels, chosen):
    """The usual script: map and gradient by a hook on the last block, in the whole network's backward pass."""
    kept = []
    hook = model.layer4[-1].register_forward_hook(lambda _, __, out: kept.append(out) or out.retain_grad())
    model(model.preprocess(pixels[None].double() / 255))[0, chosen].backward()
    hook.remove()
    model.zero_grad()
    weights = kept[0].grad.mean((2, 3))[0]
    return torch.einsum("c,chw->hw", weights, kept[0][0]).clamp(min=0).detach().numpy()


@pytest.mark.parametrize("row", EVERY_ROW)
@pytest.mark.parametrize("size", [(48, 48), (31, 90)])
def test_it_is_what_hooks_on_the_last_stage_give(row, size):
    model, pixels = classifier(EVERY_ROW[row]), image(*size)
    for chosen in range(3):
        found = grad_cam(model, pixels.double() / 255, chosen)
        np.testing.assert_allclose(found.values, cam_by_hooks(model, pixels, chosen), atol=1e-12)
        assert found.stride_px == model.strides["c5"]
        assert found.values.shape == tuple(-(-side // found.stride_px) for side in size)


def test_the_maps_of_all_classes_are_where_the_logits_come_from():
    """Behind the average pool Grad-CAM is CAM (Zhou et al. 2016): before the ReLU its mean is the logit over the cells,
    without the bias."""
    model, pixels = classifier(), image(48, 48).double() / 255
    with torch.no_grad():
        model.fc.weight.abs_()  # then the ReLU changes nothing: c5 ends in one
        logits = model(model.preprocess(pixels[None]))[0] - model.fc.bias
    for chosen, logit in enumerate(logits):
        np.testing.assert_allclose(grad_cam(model, pixels, chosen).values.sum(), float(logit), atol=1e-12)


@pytest.mark.parametrize("chosen", [-1, 3])
def test_a_class_that_does_not_exist(chosen):
    with pytest.raises(InputError, match=f"class {chosen} does not exist; the network has 3 classes"):
        grad_cam(classifier(), image(48, 48), chosen)


def noise_with_patch(count, generator, side=48, patch=12):
    """Grey noise with one bright patch; red is class 0, green 1, blue 2. Pixels, classes, corners."""
    pixels = 0.4 + 0.05 * torch.randn(count, 3, side, side, generator=generator)
    classes = torch.randint(0, 3, (count,), generator=generator)
    corners = torch.randint(0, side - patch + 1, (count, 2), generator=generator)
    for one, label, (y, x) in zip(pixels, classes, corners.tolist(), strict=True):
        one[label, y : y + patch, x : x + patch] += 0.5
    return pixels.clamp(0, 1), classes, corners


@pytest.fixture(scope="module")
def patch_classifier():
    """Learnt in a few seconds."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = create_model("botnet_nano", 3, 48)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):
        pixels, classes, _ = noise_with_patch(16, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(model.preprocess(pixels)), classes).backward()
        optimizer.step()
    return model.eval()


def centre(values):
    """Of the mass of a map, in cells."""
    weights = values / values.sum()
    return [float((weights.sum(1 - axis) * (np.arange(weights.shape[axis]) + 0.5)).sum()) for axis in (0, 1)]


def test_it_lies_on_the_patch_that_decides(patch_classifier):
    generator = torch.Generator().manual_seed(2)
    hits, right = 0, 0
    for one, label, (y, x) in zip(*noise_with_patch(40, generator), strict=True):
        right += int(patch_classifier(patch_classifier.preprocess(one[None])).argmax()) == label
        cam = grad_cam(patch_classifier, one, int(label))
        row, column = np.unravel_index(cam.values.argmax(), cam.values.shape)
        cell = (row + 0.5) * cam.stride_px, (column + 0.5) * cam.stride_px
        # The brightest cell touches the patch of 12 px.
        hits += abs(cell[0] - float(y) - 6) <= 6 + 4 and abs(cell[1] - float(x) - 6) <= 6 + 4
    assert right >= 38
    assert hits >= 36


def test_it_moves_with_the_patch_and_flips_with_the_image(patch_classifier):
    pixels = torch.full((3, 48, 48), 0.4)
    pixels[1, 8:20, 0:12] = 0.9
    here = centre(grad_cam(patch_classifier, pixels, 1).values)
    moved = centre(grad_cam(patch_classifier, pixels.roll((16, 24), (1, 2)), 1).values)
    np.testing.assert_allclose([moved[0] - here[0], moved[1] - here[1]], [2, 3], atol=0.7)
    flipped = centre(grad_cam(patch_classifier, pixels.flip(2), 1).values)
    np.testing.assert_allclose([flipped[0], 6 - flipped[1]], here, atol=0.7)


@pytest.fixture(scope="module")
def found():
    """A detector, an oblong image, and what it finds there."""
    model, pixels = detector(), image(64, 45)
    (result,) = model.padded_detections(padded(model, pixels), [(64, 45)])
    assert len(result["scores"]) > 5
    return model, pixels, result


def test_a_detection_is_traced_back_to_the_box_it_was_read_from(found):
    """The box head gives for that box alone the detection's score and its box."""
    model, pixels, result = found
    with torch.no_grad():
        pyramid = model.fpn(feature_maps(model, pixels))
    for box, label, score in zip(result["boxes"], result["labels"].tolist(), result["scores"], strict=True):
        cam = grad_cam_of_detection(model, pixels, box.tolist(), label)
        proposal = torch.tensor([cam.proposal_xyxy], dtype=torch.float64)
        with torch.no_grad():
            logits, deltas = model.box_head(pyramid, [proposal])
        np.testing.assert_allclose(float(logits.softmax(1)[0, label]), float(score), atol=1e-9)
        decoded = model.box_head.coder.decode(deltas[:, label], proposal)[0]
        decoded = decoded.clamp(min=0).minimum(torch.tensor([45.0, 64.0, 45.0, 64.0], dtype=torch.float64))
        np.testing.assert_allclose(decoded.numpy(), box.numpy(), atol=1e-5)
        assert cam.level in pyramid
        assert cam.cam.values.shape == tuple(-(-side // cam.cam.stride_px) for side in (64, 45))


def test_a_detection_is_explained_by_what_differences_of_its_score_say():
    """Cell by cell and channel by channel, without autograd: what moves the score, and by how much."""
    model, pixels = detector(fpn_channels=3, box_channels=8), image(64, 45)
    (result,) = model.padded_detections(padded(model, pixels), [(64, 45)])
    box, label = result["boxes"][0].tolist(), int(result["labels"][0])
    found_cam = grad_cam_of_detection(model, pixels, box, label)
    level, proposal = found_cam.level, torch.tensor([found_cam.proposal_xyxy], dtype=torch.float64)
    with torch.no_grad():
        pyramid = model.fpn(feature_maps(model, pixels))

        def log_odds(x):
            probability = model.box_head(pyramid | {level: x}, [proposal])[0].softmax(1)[0, label]
            return float(torch.log(probability / (1 - probability)))

        x, step = pyramid[level], 1e-5
        _, channels, height, width = x.shape
        gradient = np.zeros((channels, height, width))
        stride = found_cam.cam.stride_px
        x1, y1, x2, y2 = (side / stride for side in found_cam.proposal_xyxy)
        for row in range(height):
            for column in range(width):
                if not (y1 - 2 <= row <= y2 + 2 and x1 - 2 <= column <= x2 + 2):
                    continue  # two cells beside the box nothing is read
                for channel in range(channels):
                    there = torch.zeros_like(x)
                    there[0, channel, row, column] = step
                    gradient[channel, row, column] = (log_odds(x + there) - log_odds(x - there)) / (2 * step)
    read = (np.abs(gradient) > 1e-7).any(0)
    weights = gradient.sum((1, 2)) / read.sum()
    expected = np.maximum(np.einsum("c,chw->hw", weights, x[0].numpy()), 0) * read
    shown = found_cam.cam.values
    assert shown.max() > 0
    assert shown.size > read.sum()
    np.testing.assert_allclose(shown, expected[: shown.shape[0], : shown.shape[1]], atol=1e-6 * expected.max() + 1e-9)


def test_a_box_that_is_no_detection(found):
    model, pixels, result = found
    with pytest.raises(InputError, match="finds no object of label 1 at"):
        grad_cam_of_detection(model, pixels, (-500, -500, -400, -400), 1)
    with pytest.raises(InputError, match="label 3 does not exist"):
        grad_cam_of_detection(model, pixels, result["boxes"][0].tolist(), 3)


@pytest.mark.parametrize("kind", ["faster_rcnn", "keypoint_rcnn"])
@pytest.mark.parametrize("backbone", ["botnet_nano", "resnet_nano"])
def test_every_kind_of_detector(kind, backbone):
    model, pixels = detector(backbone, kind).float(), image(50, 64)
    (result,) = model.padded_detections(padded(model, pixels), [(50, 64)])
    for box, label in zip(result["boxes"][:3], result["labels"][:3].tolist(), strict=True):
        assert np.isfinite(grad_cam_of_detection(model, pixels, box.tolist(), label).cam.values).all()
