import pytest
import torch

from botformer.detection.padding import check_images, group_by_padded_size, pad_images, shrink_to_fit
from botformer.errors import InputError

CPU = torch.device("cpu")


def test_padding_is_exactly_what_lies_outside_the_images():
    images = [torch.full((3, 5, 8), 0.5), torch.full((3, 7, 3), 0.5)]
    canvas = pad_images(images, (7, 8))
    padding = canvas.padding_mask()
    assert padding is not None
    assert torch.equal(padding, (canvas.pixels == 0).all(1))
    assert [int((~p).sum()) for p in padding] == [40, 21]


def test_images_that_fill_their_canvas_have_no_padding():
    assert pad_images([torch.rand(3, 7, 8)] * 2, (7, 8)).padding_mask() is None


@pytest.mark.parametrize(("size", "expected"), [((50, 80), (50, 80)), ((128, 64), (64, 32)), ((3, 999), (1, 100))])
def test_only_images_that_are_too_large_are_scaled_with_their_proportions(size, expected):
    image = torch.rand(3, *size)
    fitted = shrink_to_fit(image, (64, 100))
    assert fitted.shape[1:] == expected
    assert fitted is image or size != expected
    assert abs(fitted.mean() - image.mean()) < 0.02


def test_images_of_one_padded_size_go_together():
    images = [torch.zeros(3, *size) for size in ((10, 30), (16, 32), (17, 32), (1, 17))]
    assert group_by_padded_size(images, 16) == {(16, 32): [0, 1, 3], (32, 32): [2]}


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "divide bytes by 255"),
        (torch.full((3, 4, 4), 255.0), "divide bytes by 255"),
        (torch.full((3, 4, 4), -2.0), "do not normalise"),
        (torch.full((3, 4, 4), float("nan")), "got nan"),
        (torch.zeros(4, 4), r"\(4, 4\)"),
        (torch.zeros(1, 4, 4), r"\(1, 4, 4\)"),
        (torch.zeros(3, 0, 4), r"\(3, 0, 4\)"),
        ([[0.0]], "list"),
    ],
)
def test_what_is_no_image_is_named(image, words):
    with pytest.raises(InputError, match=words) as error:
        check_images([torch.zeros(3, 4, 4), image], 3, CPU, torch.float32)
    assert "image 1" in str(error.value)
