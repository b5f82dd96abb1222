"""Recipes for detectors from data of all kinds: each is valid, follows its rule, and trains."""

import itertools
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from botformer.create.from_recipe import create_detection_task
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.dataset import Annotation, Category, ImageRecord, make_dataset
from botformer.errors import InputError
from botformer.planning.anchor_sizes import anchor_ratios, anchor_sizes
from botformer.planning.detection_candidates import detection_candidates
from tests.data.detection.coco_files import annotation, content, image


def dataset(images, classes=("thing",), folder="."):
    """images: (width, height, [(label, x, y, w, h), ...])."""
    records = []
    for number, (width, height, objects) in enumerate(images, 1):
        annotations = tuple(
            Annotation(
                id=1000 * number + place,
                label=label,
                box_xyxy=(x, y, x + w, y + h),
                box_xywh=(x, y, w, h),
                area_px=w * h,
                crowd=False,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
            )
            for place, (label, x, y, w, h) in enumerate(objects)
        )
        records.append(ImageRecord(number, f"{number:04}.png", width, height, annotations, {}))
    categories = [Category(place, name) for place, name in enumerate(classes, 1)]
    return make_dataset("here", folder, categories, records, ())


def scattered(rng, width, height, count, sides, label=1):
    w, h = rng.uniform(*sides, (2, count))
    return [
        (label, float(x), float(y), float(a), float(b))
        for x, y, a, b in zip(rng.uniform(0, width - w), rng.uniform(0, height - h), w, h, strict=True)
    ]


RNG = np.random.default_rng(0)
SETS = {
    "tiny objects on huge images": [(4000, 4000, scattered(RNG, 4000, 4000, 30, (12, 18))) for _ in range(3)],
    "one image": [(640, 480, scattered(RNG, 640, 480, 3, (30, 200)))],
    "one object per image": [(500, 400, scattered(RNG, 500, 400, 1, (40, 300))) for _ in range(12)],
    "five hundred per image": [(512, 512, scattered(RNG, 512, 512, 500, (6, 14))) for _ in range(4)],
    "all boxes equal": [(320, 240, [(1, 10.0, 20.0, 50.0, 50.0)]) for _ in range(9)],
    "one to four": [(800, 200, scattered(RNG, 800, 200, 5, (10, 60))) for _ in range(8)],
    "all of the image": [(120, 90, [(1, 0.0, 0.0, 120.0, 90.0)]) for _ in range(8)],
    "of a few pixels": [(24, 24, scattered(RNG, 24, 24, 2, (1, 3))) for _ in range(8)],
}


def recipes(source, detector="mask_rcnn", has_gpu=False, pretrained=True):
    return [row.recipe for row in detection_candidates(source, detector, has_gpu, lambda model: pretrained)]


@pytest.mark.parametrize("name", SETS)
def test_candidates_are_valid_whatever_the_data_are(name):
    for has_gpu, pretrained, detector in itertools.product((False, True), (False, True), ("mask_rcnn", "faster_rcnn")):
        rows = detection_candidates(dataset(SETS[name]), detector, has_gpu, lambda model, known=pretrained: known)
        for row in rows:
            settings, images = row.recipe.settings, row.recipe.images
            assert len(settings.anchor_sizes) == len(settings.levels) >= 4
            assert all(b >= 1.24 * a for a, b in itertools.pairwise(settings.anchor_sizes))
            assert images.size % 32 == images.canvas % 32 == 0
            assert 64 <= images.size <= 1024
            assert images.canvas <= 1536
            assert images.scale_jitter[0] >= 0.75
            assert 1 <= row.recipe.run.batch_size <= len(SETS[name])
            assert row.recipe.model.weights == ("imagenet" if pretrained else "")
        assert rows[-1].images == min(row.images for row in rows) <= 2_000
        assert [row.images for row in rows] == sorted((row.images for row in rows), reverse=True)


def test_parts_of_images_with_few_objects_are_laid_around_them():
    for recipe in recipes(dataset(SETS["tiny objects on huge images"])):
        assert recipe.images.crop_around_object == 0.75
    for name in ("one object per image", "five hundred per image"):
        assert not any(recipe.images.crop_around_object for recipe in recipes(dataset(SETS[name]))), name


@pytest.mark.parametrize("name", SETS)
def test_small_objects_are_large_enough_to_be_seen_and_large_ones_fit(name):
    """Where training does not show enough of an image, the test would be of something else."""
    for recipe in recipes(dataset(SETS[name])):
        images = recipe.images
        for width, height, objects in SETS[name]:
            sides = np.sqrt([w * h for *_, w, h in objects])
            scale = images.canvas / (images.tile or max(width, height))
            assert np.median(sides) * scale >= 4, recipe.model.name
            assert np.median(sides) * scale <= 1.1 * images.size
            # Training shows objects at the scale at which they are tested.
            low, high = np.array(images.scale_jitter) * images.size / max(width, height)
            assert low <= scale <= high


def test_tiny_objects_on_huge_images_are_tiled_and_the_log_says_how_to_switch_it_off(caplog):
    with caplog.at_level(logging.INFO, logger="botformer.planning"):
        found = recipes(dataset(SETS["tiny objects on huge images"]))
    assert all(64 <= recipe.images.tile < 2000 for recipe in found)
    assert "--tile 0 switches it off" in caplog.text
    assert not any(recipe.images.tile for recipe in recipes(dataset(SETS["one object per image"])))


def test_a_photograph_is_seen_whole_and_a_field_of_cells_in_parts():
    photographs = [(1024, 768, scattered(RNG, 1024, 700, 4, (120, 400))) for _ in range(20)]
    for recipe in recipes(dataset(photographs)):
        assert recipe.images.test_size == recipe.images.tile == 0
        assert recipe.images.scale_jitter == (0.75, 1.5)
        assert not recipe.images.rot90
        assert recipe.images.copy_paste == 0.5
    cells = [(256, 256, scattered(RNG, 256, 256, 40, (6, 18))) for _ in range(20)]
    best = recipes(dataset(cells))[2]
    assert best.images.test_size > best.images.size
    assert best.images.scale_jitter[0] * best.images.size >= 0.59 * best.images.test_size
    assert best.model.tables == "offset"
    assert best.images.copy_paste == 0  # there are enough


def test_images_are_turned_only_where_hundreds_of_objects_of_one_class_show_no_up():
    cells = [(256, 256, scattered(RNG, 256, 256, 40, (6, 18))) for _ in range(20)]
    assert recipes(dataset(cells))[0].images.rot90
    assert recipes(dataset(cells))[0].settings.anchor_ratios[0] == 1
    assert not recipes(dataset(cells[:5]))[0].images.rot90
    assert not recipes(dataset(cells, classes=("b cell", "t cell")))[0].images.rot90
    below = [(w, h, [(label, x, y / 2 + h / 2 - 20, a, b) for label, x, y, a, b in each]) for w, h, each in cells]
    assert not recipes(dataset(below))[0].images.rot90
    tall = [(w, h, [(label, x, y, a, b * 1.3) for label, x, y, a, b in each]) for w, h, each in cells]
    assert not recipes(dataset(tall))[0].images.rot90


def test_what_looks_otherwise_in_a_mirror_is_not_flipped():
    images = SETS["one object per image"]
    assert recipes(dataset(images))[0].images.hflip
    for name in ("7", "R", "left shoe", "arrow_right", "Left"):
        assert not recipes(dataset(images, classes=("thing", name)))[0].images.hflip
    assert recipes(dataset(images, classes=("leftover", "copyright")))[0].images.hflip


def test_a_class_with_one_object_is_drawn_more_often():
    images = [(320, 240, [(1 + number % 2, 10.0, 20.0, 50.0, 60.0)]) for number in range(60)]
    assert recipes(dataset(images, classes=("a_", "b_", "c_")))[0].images.repeat_threshold == 0
    images[7] = (320, 240, [(3, 30.0, 20.0, 50.0, 60.0)])
    found = recipes(dataset(images, classes=("a_", "b_", "c_")))[0].images.repeat_threshold
    assert found == pytest.approx(1 / 3, abs=1e-4)  # the average class is in a third of the images, this one in 1 of 60


def test_without_shapes_a_detector_of_boxes_is_planned_and_the_log_says_so(caplog):
    source = dataset(SETS["one object per image"])
    bare = [source.image(index) for index in range(len(source))]
    bare = [replace(each, annotations=tuple(replace(a, segmentation=None) for a in each.annotations)) for each in bare]
    source = make_dataset("here", ".", source.categories, bare, ())
    for recipe in recipes(source):
        assert recipe.detector == "faster_rcnn"
        assert recipe.images.copy_paste == 0
    assert "no shapes" in caplog.text
    with pytest.raises(InputError, match="no objects to learn from"):
        recipes(dataset([(64, 64, [])]))


def test_as_many_detections_as_an_image_may_hold():
    recipe = recipes(dataset(SETS["five hundred per image"]))[0]
    assert recipe.settings.max_detections == 750
    assert recipe.settings.rpn_post_nms_top_n >= 1000
    assert recipes(dataset(SETS["one image"]))[0].settings.max_detections == 100


def test_random_weights_are_for_where_none_can_be_had():
    source = dataset(SETS["one object per image"])
    half = detection_candidates(source, "mask_rcnn", False, lambda model: model == "resnet50_half")
    assert {row.recipe.model.name for row in half} == {"resnet50_half"}
    names = [recipe.model.name for recipe in recipes(dataset(SETS["one object per image"]), pretrained=False)]
    assert names == ["botnet_mini", "botnet_mini", "botnet_nano"]


def test_anchors_are_the_centres_of_clusters():
    sizes = np.repeat([16.0, 40.0, 100.0, 250.0], 50)
    assert anchor_sizes(sizes, (4, 8, 16, 32)) == pytest.approx((16, 40, 100, 250), rel=0.05)


@pytest.mark.parametrize("seed", range(30))
def test_anchors_rise_and_leave_no_gaps_between_cells(seed):
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(rng.uniform(1, 6), rng.choice([0, 0.01, 0.5, 2]), rng.choice([1, 2, 5, 1000])))
    strides = [(4, 8, 16, 32), (2, 4, 8, 8), (4, 8, 16, 32, 64)][seed % 3]
    found = anchor_sizes(sizes, strides)
    assert all(b >= 1.24 * a for a, b in itertools.pairwise(found))
    assert all(size >= 2 * stride for size, stride in zip(found, strides, strict=True))
    middle, tall, wide = anchor_ratios(np.exp(rng.normal(0, 1, len(sizes))), turned=bool(seed % 2))
    assert tall >= 1.45 * middle
    assert middle >= 1.45 * wide
    assert wide > 0.1
    assert tall < 10


CLASSES = [{"id": 1, "name": "thing"}]


@pytest.mark.parametrize("name", SETS)
def test_a_planned_recipe_trains_and_detects(name, tmp_path):
    """The last candidate, which costs least, for two steps."""
    records, annotations = [], []
    for number, (width, height, objects) in enumerate(SETS[name][:2], 1):
        file = tmp_path / "train" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, height), (90, 120, number)).save(file, compress_level=1)
        records.append(image(number, file.name, width, height))
        annotations += [
            annotation(
                len(annotations) + place,
                number,
                [x, y, w, h],
                category_id=label,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
            )
            for place, (label, x, y, w, h) in enumerate(objects, 1)
        ]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content(records, annotations, CLASSES)))
    source = open_coco(path, tmp_path / "train")
    recipe = recipes(source, pretrained=False)[-1]
    task = create_detection_task(recipe, source.categories)
    loader = detection_training_batches(source, recipe.images, recipe.run.batch_size, seed=0, workers=0)
    for batch in itertools.islice(loader.starting_at(0), 2):
        sum(task(batch).values()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())
    if name not in ("tiny objects on huge images", "five hundred per image"):  # tiles and masks that take long
        task.eval()
        batch = next(iter(detection_evaluation_batches(source, recipe.images, 1, workers=0)))
        assert len(task.predict(batch)) == 1


def test_a_network_and_a_canvas_that_are_asked_for_are_planned_around():
    source = dataset(SETS["one object per image"])
    for row in detection_candidates(source, "mask_rcnn", False, lambda name: name != "botnet_mini", "botnet_mini", 320):
        recipe = row.recipe
        assert (recipe.model.name, recipe.model.weights, recipe.model.normalization) == ("botnet_mini", "", "batch")
        assert (recipe.images.size, recipe.images.canvas, recipe.images.tile) == (320, 320, 0)
        assert recipe.images.scale_jitter == (0.75, 1.5)
        sizes = np.array([w * h for _, _, objects in SETS["one object per image"] for _, _, _, w, h in objects]) ** 0.5
        on_canvas = sizes / 500 * 320
        assert recipe.settings.anchor_sizes[0] >= 2 * 2  # of stride 2, which this network has
        assert recipe.settings.anchor_sizes[-1] <= 1.3 * on_canvas.max()
