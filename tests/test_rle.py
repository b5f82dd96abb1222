import pytest
import torch
from pycocotools import mask as coco

from botformer.rle import decode, decode_window, encode, encode_window


def reference(mask):
    encoded = coco.encode(mask.numpy().astype("uint8", order="F"))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def cases():
    torch.manual_seed(0)
    yield torch.zeros(5, 7, dtype=torch.bool)
    yield torch.ones(5, 7, dtype=torch.bool)
    yield torch.ones(1, 1, dtype=torch.bool)
    for fraction in (0.02, 0.3, 0.9):
        yield torch.rand(40, 33) < fraction
    columns = torch.zeros(6, 9, dtype=torch.bool)
    columns[:, 3:6] = True  # runs that continue from column to column
    columns[4:, 2] = True
    yield columns
    corner = torch.zeros(300, 500, dtype=torch.bool)
    corner[-1, -1] = corner[0, 0] = True  # large counts, negative differences
    yield corner
    yield torch.nn.functional.avg_pool2d(torch.rand(1, 400, 400), 31, 1)[0] > 0.5  # blobs


@pytest.mark.parametrize("mask", list(cases()))
def test_encoding_equals_pycocotools_and_decodes_to_the_mask(mask):
    encoded = encode(mask.numpy())
    assert encoded == reference(mask)
    assert (decode(encoded) == mask.numpy()).all()


def test_a_window_is_encoded_as_the_whole_image_would_be():
    torch.manual_seed(0)
    for top, left, rows, columns in [(0, 0, 20, 30), (3, 5, 10, 8), (19, 29, 1, 1), (0, 7, 20, 4), (5, 5, 0, 0)]:
        image = torch.zeros(20, 30, dtype=torch.bool)
        window = torch.rand(rows, columns) > 0.3
        image[top : top + rows, left : left + columns] = window
        assert encode_window(window.numpy(), (top, left), (20, 30)) == reference(image)


@pytest.mark.parametrize("mask", list(cases()))
def test_the_window_of_a_mask_is_what_is_around_its_pixels(mask):
    window, (top, left) = decode_window(encode(mask.numpy()))
    again = torch.zeros_like(mask)
    again[top : top + window.shape[0], left : left + window.shape[1]] = torch.from_numpy(window)
    assert torch.equal(again, mask)
    if mask.any():
        assert window.any(0)[[0, -1]].all()
        assert window.any(1)[[0, -1]].all()
    else:
        assert window.shape == (0, 0)
