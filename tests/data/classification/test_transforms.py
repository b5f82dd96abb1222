import math
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, RandomResizedCrop, Resize

from botformer.data.classification.transforms import evaluation_transform, random_box, training_transform
from botformer.errors import InputError
from botformer.recipes.schema import Images
from botformer.seeding import seed_host


def photograph(width: int, height: int) -> Image.Image:
    """Smooth and noisy, so that both antialiasing and position are tested."""
    rng = np.random.default_rng(width * 1000 + height)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + c) + np.cos(y / 5 - c) for c in range(3)], axis=2) * 50 + 128
    return Image.fromarray(np.clip(waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (97, 193), (33, 20), (256, 256), (500, 40)])
@pytest.mark.parametrize("crop", [0.875, 1.0, 0.9])
def test_evaluation_is_resize_and_centre_crop(size: tuple[int, int], crop: float) -> None:
    image = photograph(*size)
    got = evaluation_transform(Images(size=64, evaluation_crop=crop))(image)
    expected = CenterCrop(64)(Resize(int(64 / crop), InterpolationMode.BICUBIC)(image))
    assert got.shape == (3, 64, 64)
    assert got.dtype == torch.uint8
    # Pillow may filter rows before columns for the one and columns before rows for the other, rounding in between.
    # A box a quarter of a pixel off gives a mean difference of 2.8.
    difference = (got.int() - as_tensor(expected).int()).abs().float()
    assert difference.max() <= 3
    assert difference.mean() < 0.3


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = photograph(48, 48)
    assert torch.equal(evaluation_transform(Images(size=48, evaluation_crop=1.0))(image), as_tensor(image))
    assert torch.equal(training_transform(Images(size=48, augmentation="none"))(image), as_tensor(image))


def test_a_larger_image_loses_its_longer_sides_evenly() -> None:
    image = photograph(60, 48)
    got = evaluation_transform(Images(size=48, evaluation_crop=1.0))(image)
    assert torch.equal(got, as_tensor(image)[:, :, 6:54])


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1), (2, 3)])
@pytest.mark.parametrize("augmentation", ["standard", "crop", "none"])
def test_an_image_of_any_shape_becomes_the_square(size: tuple[int, int], augmentation: str) -> None:
    white = Image.new("RGB", size, "white")
    images = Images(size=32, augmentation=augmentation, rand_augment_layers=0)  # type: ignore[arg-type]
    for seed in range(20):
        seed_host(seed)
        assert training_transform(images)(white).shape == (3, 32, 32)
    assert bool((evaluation_transform(images)(white) == 255).all())


@pytest.mark.parametrize("size", [(256, 64), (64, 256), (64, 64), (400, 3)])
def test_a_letterboxed_image_is_whole_between_grey_margins(size: tuple[int, int]) -> None:
    image = photograph(*size)
    got = evaluation_transform(Images(size=64, fit="letterbox"))(image)
    width, height = (max(1, round(side * 64 / max(size))) for side in size)
    left, top = (64 - width) // 2, (64 - height) // 2
    expected = as_tensor(image.resize((width, height), Image.Resampling.BICUBIC))
    inside = got[:, top : top + height, left : left + width]
    assert (inside.int() - expected.int()).abs().max() <= 1
    margin = got.clone()
    margin[:, top : top + height, left : left + width] = torch.tensor([124, 116, 104])[:, None, None]
    assert bool((margin == torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]).all())


@pytest.mark.parametrize("augmentation", ["standard", "crop", "none"])
def test_a_letterboxed_image_keeps_about_its_shape_in_training(augmentation: str) -> None:
    white = Image.new("RGB", (200, 50), "white")
    images = Images(size=64, fit="letterbox", augmentation=augmentation, least_area=0.3)  # type: ignore[arg-type]
    for seed in range(20):
        seed_host(seed)
        pixels = training_transform(images)(white)
        shown = (pixels == 255).all(0)
        height, width = int(shown.any(1).sum()), int(shown.any(0).sum())
        assert pixels.shape == (3, 64, 64)
        assert 0.7 * 4 <= width / height <= 1.5 * 4


def test_the_smallest_crop_is_what_the_recipe_says() -> None:
    seed_host(0)
    for least in (0.08, 0.35, 1.0):
        areas = []
        for _ in range(300):
            left, top, right, bottom = random_box(300, 300, least)
            areas.append((right - left) * (bottom - top) / 300**2)
        assert least * 0.98 <= min(areas) <= least + 0.1


def test_random_boxes_lie_inside_and_obey_area_and_ratio() -> None:
    width, height = 400, 300
    seed_host(0)
    boxes = [random_box(width, height) for _ in range(3000)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert 0.079 < (right - left) * (bottom - top) / (width * height) <= 1
        assert 0.74 < (right - left) / (bottom - top) < 1.35


@pytest.mark.parametrize("size", [(400, 300), (100, 400)])
def test_random_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    seed_host(1)
    draws, image = 4000, torch.zeros(1, size[1], size[0])
    ours = np.array([(b - t, r - l, t, l) for l, t, r, b in (random_box(*size) for _ in range(draws))])  # noqa: E741
    torchvisions = np.array(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)], dtype=float
    )[:, [2, 3, 0, 1]]
    spread = torchvisions.std(axis=0) * math.sqrt(2 / draws)
    assert (np.abs(ours.mean(axis=0) - torchvisions.mean(axis=0)) < 4 * spread + 0.5).all()


def test_crop_shifts_by_up_to_4_pixels_over_black() -> None:
    image = photograph(16, 16)
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)))
    windows = {padded[y : y + 16, x : x + 16].tobytes(): (y, x) for y in range(9) for x in range(9)}
    transform = training_transform(Images(size=16, augmentation="crop", hflip=False))
    seed_host(0)
    seen = Counter(windows[transform(image).permute(1, 2, 0).numpy().tobytes()] for _ in range(1500))
    assert len(seen) == 81  # every shift occurs


def test_half_of_the_images_are_flipped_unless_hflip_is_off() -> None:
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (8, 0, 16, 16))
    for hflip, low, high in ((True, 150, 250), (False, 0, 0)):
        transform = training_transform(Images(size=16, augmentation="crop", hflip=hflip))
        seed_host(0)
        flipped = 0
        for _ in range(400):
            result = transform(image)[0].int()
            flipped += bool(result[:, :8].sum() > result[:, 8:].sum())
        assert low <= flipped <= high


def test_rand_augment_applies_every_operation_at_the_given_magnitude() -> None:
    image = photograph(32, 32)

    def changes(magnitude: int) -> np.ndarray:
        transform = training_transform(
            Images(size=32, augmentation="none", rand_augment_layers=1, rand_augment_magnitude=magnitude)
        )
        seed_host(0)
        results = torch.stack([transform(image) for _ in range(200)])
        return (results.int() - as_tensor(image).int()).abs().float().mean(dim=(1, 2, 3)).numpy()

    # Solarize at full strength changes nothing; if every other operation were applied half of the time, over half
    # of the results would be the image itself.
    assert (changes(10) == 0).mean() < 0.25
    assert changes(20).mean() > changes(10).mean() * 1.05  # magnitudes above 10 are not cut off


@pytest.mark.parametrize("augmentation", ["standard", "crop", "none"])
def test_a_seed_fixes_the_pixels_and_the_transform_can_be_pickled(augmentation: str) -> None:
    transform = training_transform(
        Images(size=24, augmentation=augmentation, rand_augment_layers=2)  # type: ignore[arg-type]
    )
    image = photograph(30, 40)
    seed_host(7, 0, 3)
    first = transform(image)
    random.random()
    seed_host(7, 0, 3)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), first)
    seed_host(7, 0, 4)
    assert not torch.equal(transform(image), first)


@pytest.mark.parametrize("crop", [0.0, -1.0, 1.5])
def test_an_impossible_evaluation_crop_is_refused(crop: float) -> None:
    with pytest.raises(InputError, match="evaluation_crop"):
        evaluation_transform(Images(evaluation_crop=crop))
