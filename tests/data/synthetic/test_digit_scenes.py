import hashlib
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from botformer.data.detection.layouts import open_detection_dataset, open_detection_datasets
from botformer.data.synthetic import digit_scenes, digits
from botformer.data.synthetic.digit_scenes import MAX_DIGITS, OVERLAP, Scene, draw_scene, write_digit_scenes
from botformer.data.synthetic.digits import Parts, read_parts
from botformer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools, under NumPy 2

PARTS = {"train": read_parts("train"), "validation": read_parts("validation")}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    # So many, because one in a hundred would hide too much of a digit if nobody looked.
    return [draw_scene(PARTS["train"], np.random.default_rng([7, number])) for number in range(250)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert write_digit_scenes(folder, train=12, validation=6, seed=3)
    return folder


def flat_parts(level: int) -> Parts:
    return Parts(PARTS["train"].glyphs, PARTS["train"].labels, (Image.new("RGB", (200, 200), (level,) * 3),))


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_masks_are_the_pixels_that_were_painted_and_not_painted_over(monkeypatch):
    painted = []

    def paint_number(image, coverage, _):
        painted.append(len(painted) + 1)
        image = image.copy()
        image[coverage >= 128] = painted[-1]
        return image

    monkeypatch.setattr(digit_scenes, "paint", paint_number)
    monkeypatch.setattr(digit_scenes, "crop_photograph", lambda *_: np.zeros((160, 160, 3), np.uint8))
    covered = 0
    for number in range(60):
        painted.clear()
        scene = draw_scene(PARTS["train"], np.random.default_rng(number))
        drawn = np.zeros((160, 160), int)
        for place, digit in enumerate(scene.digits, 1):
            assert not drawn[digit.mask].any()
            drawn[digit.mask] = place
            covered += digit.mask.sum() < digit.full_px
        assert (drawn == scene.image[..., 0]).all()
    assert covered > 10  # otherwise none of this was put to the test


def test_strokes_are_one_or_two_pixels_thicker_than_they_were_written(monkeypatch):
    thin = {1: [], 2: []}

    def remember(glyph, size, length, rng):
        coverage = digits.place_glyph(glyph, size, length, rng)
        thin[1 if length < 44 else 2].append(coverage >= 128)
        return coverage

    monkeypatch.setattr(digit_scenes, "place_glyph", remember)
    seen = {1: 0, 2: 0}
    for number in range(30):
        for masks in thin.values():
            masks.clear()
        scene = draw_scene(PARTS["train"], np.random.default_rng(number))
        front = scene.digits[-1].mask
        for by, masks in thin.items():
            square = np.ones((2 * by + 1, 2 * by + 1))
            seen[by] += any((ndimage.binary_dilation(mask, square) == front).all() for mask in masks)
    assert sum(seen.values()) == 30
    assert min(seen.values()) >= 5


def test_a_digit_keeps_most_of_its_pixels(scenes):
    visible = [digit.mask.sum() / digit.full_px for scene in scenes for digit in scene.digits]
    assert min(visible) > 1 - OVERLAP
    assert 0.05 < np.mean(np.array(visible) < 1) < 0.4  # overlaps there are


def test_boxes_of_two_digits_overlap_little(scenes):
    overlaps = []
    for scene in scenes:
        # Where ink is hidden, boxes have changed since they were compared.
        whole = [digit.mask for digit in scene.digits if digit.mask.sum() == digit.full_px]
        if whole:
            boxes = np.array([coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask, np.uint8))) for mask in whole])
            in_common = coco_mask.iou(boxes, boxes, [1] * len(boxes))  # to a crowd: over the first one's area
            overlaps += in_common[~np.eye(len(boxes), dtype=bool)].tolist()
    assert 0.2 < max(overlaps) < OVERLAP


def test_a_scene_has_one_to_six_digits_of_every_class_and_of_many_sizes(scenes):
    counts = np.bincount([len(scene.digits) for scene in scenes], minlength=MAX_DIGITS + 1)
    assert counts[0] == 0
    assert (counts[1:] > 5).all()
    assert len(counts) == MAX_DIGITS + 1
    labels = np.bincount([digit.label for scene in scenes for digit in scene.digits])
    assert len(labels) == 10
    assert labels.min() > 15
    whole = [digit.mask for scene in scenes for digit in scene.digits if digit.mask.sum() == digit.full_px]
    heights = [np.ptp(np.flatnonzero(mask.any(axis=1))) + 1 for mask in whole]
    assert np.percentile(heights, 5) < 33
    assert np.percentile(heights, 95) > 55
    assert max(heights) <= 60 * (np.cos(0.25) + np.sin(0.25)) + 4  # turned by a quarter radian, and thicker


def test_a_label_is_what_the_glyph_shows(scenes):
    for scene in scenes:
        for digit in scene.digits:
            assert digit.label == PARTS["train"].labels[digit.glyph]


@pytest.mark.parametrize("level", [60, 128, 200])
def test_digits_contrast_with_a_plain_background(level):
    for number in range(10):
        rng = np.random.default_rng(number)
        scene = draw_scene(flat_parts(level), rng)
        weights = np.array([0.299, 0.587, 0.114])
        outside = ~np.any([digit.mask for digit in scene.digits], axis=0)
        background = np.median(scene.image[outside] @ weights)
        for digit in scene.digits:
            assert abs(np.median(scene.image[digit.mask] @ weights) - background) >= 48  # 50, less what rounding takes


def test_the_folder_read_as_coco_holds_the_scenes_of_its_split(folder):
    train, validation = open_detection_datasets(str(folder))
    assert train.categories == validation.categories == tuple((digit + 1, str(digit)) for digit in range(10))
    assert (len(train), len(validation)) == (12, 6)
    for place, (name, dataset) in enumerate({"train": train, "validation": validation}.items()):
        assert not dataset.problems
        for number in range(len(dataset)):
            expected = draw_scene(PARTS[name], np.random.default_rng([3, place, number]))
            record = dataset.image(number)
            with Image.open(dataset.folder / record.file) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (160, 160))
                assert (np.asarray(image) == expected.image).all()
            for annotation, digit in zip(record.annotations, expected.digits, strict=True):
                assert (coco_mask.decode(annotation.segmentation) == digit.mask).all()
                assert dataset.categories[annotation.label - 1].name == str(digit.label)
                assert annotation.box_xywh == tuple(coco_mask.toBbox(annotation.segmentation))
                assert annotation.area_px == digit.mask.sum()
                assert not annotation.crowd


def test_train_and_validation_have_no_digit_and_no_photograph_in_common(tmp_path, monkeypatch):
    photographs, glyphs = [], []

    def crop(photograph, *rest):
        photographs.append(photograph.tobytes())
        return digits.crop_photograph(photograph, *rest)

    def place(glyph, *rest):
        glyphs.append(glyph.tobytes())
        return digits.place_glyph(glyph, *rest)

    monkeypatch.setattr(digit_scenes, "crop_photograph", crop)
    monkeypatch.setattr(digit_scenes, "place_glyph", place)
    ends = []
    write_digit_scenes(tmp_path / "scenes", 60, 60, on_image=lambda: ends.append((len(photographs), len(glyphs))))
    photograph, glyph = ends[59]
    assert len(ends) == 120
    assert len(set(photographs[:photograph])) == 12
    assert len(set(photographs[photograph:])) == 4
    assert not set(photographs[:photograph]) & set(photographs[photograph:])
    assert len(set(glyphs[:glyph])) > 100
    assert not set(glyphs[:glyph]) & set(glyphs[glyph:])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, folder):
    for name, seed in {"same": 3, "other": 4}.items():
        assert write_digit_scenes(tmp_path / name, train=12, validation=6, seed=seed)
    same, other, first = (fingerprint(path) for path in (tmp_path / "same", tmp_path / "other", folder))
    assert same == first
    assert same.keys() == other.keys()
    assert not set(same.values()) & set(other.values())


def test_a_scene_does_not_depend_on_how_many_others_are_written(tmp_path, folder):
    write_digit_scenes(tmp_path / "few", train=5, validation=2, seed=3)
    few, more = (
        {name: digest for name, digest in fingerprint(path).items() if name.endswith(".png")}
        for path in (tmp_path / "few", folder)
    )
    assert len(few) == 7
    assert few.items() < more.items()
    image = open_detection_dataset(str(tmp_path / "few"), "train").image(4)
    assert image == open_detection_dataset(str(folder), "train").image(4)


def test_only_a_finished_folder_of_the_same_parameters_is_used(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not write_digit_scenes(folder, train=12, validation=6, seed=3)
    with pytest.raises(InputError, match="holds digit scenes made with .* asked for were"):
        write_digit_scenes(folder, train=12, validation=6, seed=4)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path):
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_digit_scenes(tmp_path / "scenes", train=4, validation=2, on_image=interrupt)
    assert not list(tmp_path.iterdir())
    assert write_digit_scenes(tmp_path / "scenes", train=4, validation=2)


def test_the_record_names_the_sources_and_says_that_it_is_no_benchmark(folder):
    record = json.loads((folder / "digit_scenes.json").read_text(encoding="utf-8"))
    assert len(record["sources"]) == 17
    assert "not a benchmark" in record["about"]
    assert {"train": 12, "validation": 6, "seed": 3}.items() < record["parameters"].items()


@pytest.mark.parametrize("wrong", [{"train": 0}, {"validation": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused_by_name(tmp_path, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        write_digit_scenes(tmp_path / "scenes", **({"train": 1, "validation": 1} | wrong))


def test_the_message_for_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(digits, "distribution", absent)
    with pytest.raises(InputError, match=r"pip install 'botformer\[demo\]'"):
        write_digit_scenes(tmp_path / "scenes", train=1, validation=1)
    assert not list(tmp_path.iterdir())
