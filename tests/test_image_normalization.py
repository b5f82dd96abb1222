"""RGB images -> what a network takes: the constants, the two dtypes, and one call for every model."""

import pytest
import torch
from torchvision.transforms import functional

import botformer
from botformer.errors import InputError
from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD, as_float_images, normalize, normalize_bytes

BYTES = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FLOATS = BYTES / 255


def by_torchvision(images):
    """The usual constants, written out."""
    return functional.normalize(functional.convert_image_dtype(images), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_the_constants_are_those_of_torchvisions_weights():
    from torchvision.models import ResNet50_Weights

    preset = ResNet50_Weights.DEFAULT.transforms()
    assert (preset.mean, preset.std) == (list(IMAGENET_MEAN), list(IMAGENET_STD))


def test_normalisation_of_floats_and_of_bytes_equals_torchvisions():
    assert torch.equal(normalize(FLOATS), by_torchvision(FLOATS))
    torch.testing.assert_close(normalize_bytes(BYTES), by_torchvision(BYTES))
    assert normalize_bytes(BYTES).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_normalisation_keeps_the_dtype(dtype):
    assert normalize(FLOATS.to(dtype)).dtype == dtype


def test_images_become_floats_one_by_one():
    images = [BYTES[0], FLOATS[1, :, :20], FLOATS[0].half()]
    first, second, third = as_float_images(images)
    assert torch.equal(first, FLOATS[0])
    assert second is images[1]
    assert third.dtype == torch.float16
    assert torch.equal(torch.stack(list(as_float_images(BYTES))), FLOATS)
    assert as_float_images([]) == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (FLOATS[0], r"a batch \(B, 3, h, w\) or a list, got one image \(3, 48, 48\)"),
        ([FLOATS[0], FLOATS], r"image 1 must be a tensor \(3, height, width\).*got \(2, 3, 48, 48\)"),
        ([FLOATS[0].permute(1, 2, 0)], r"image 0 must be a tensor.*got \(48, 48, 3\)"),
        ([BYTES[0].numpy()], "got ndarray"),
        ([BYTES[0].int()], "image 0 must be uint8 or floats in 0..1, got torch.int32"),
        ([BYTES[0].float()], "image 0 must lie in 0..1, got 0 to 255; divide bytes by 255"),
        ([normalize(FLOATS)[0]], "do not normalise"),
        ([torch.full((3, 4, 4), torch.nan)], "image 0 must lie in 0..1, got nan"),
    ],
)
def test_what_is_not_an_rgb_image_is_named(images, words):
    with pytest.raises(InputError, match=words):
        as_float_images(images)


@pytest.mark.parametrize("create", [botformer.create_model, botformer.create_backbone])
@pytest.mark.parametrize(
    "images", [BYTES, FLOATS, list(BYTES), [BYTES[0], FLOATS[1]]], ids=["bytes", "floats", "list", "mixed"]
)
def test_a_network_preprocesses_as_torchvision_does(create, images):
    ready = create("botnet_nano").preprocess(images)
    assert torch.equal(ready, by_torchvision(FLOATS))


def test_the_same_call_is_right_for_a_classifier_a_backbone_and_a_detector():
    """What a classifier and a detector compute from RGB images is what their backbones make of normalised ones."""
    torch.manual_seed(0)
    classifier = botformer.create_model("botnet_nano", 5).eval()
    backbone = botformer.create_backbone("botnet_nano").eval()
    detector = botformer.create_detector("faster_rcnn", "botnet_nano", 2, image_size=48).eval()
    seen = []
    hook = detector.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for images in (BYTES, list(FLOATS)):
            logits = classifier(classifier.preprocess(images))
            assert torch.equal(logits, classifier(by_torchvision(FLOATS)))
            maps, expected = backbone(backbone.preprocess(images)), backbone(by_torchvision(FLOATS))
            assert all(torch.equal(maps[name], expected[name]) for name in expected)
            detections = detector(detector.preprocess(images))
            assert len(detections) == 2
            torch.testing.assert_close(seen.pop(), by_torchvision(FLOATS))
    hook.remove()


@pytest.mark.parametrize(
    ("images", "words"),
    [([], "got none"), ([BYTES[0], BYTES[1, :, :20]], "got 20x48, 48x48; resize or crop"), (BYTES[0], "got one image")],
)
def test_a_network_cannot_take_images_of_several_sizes_or_none(images, words):
    with pytest.raises(InputError, match=words):
        botformer.create_model("botnet_nano").preprocess(images)
