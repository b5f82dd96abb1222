"""What people get wrong with detectors: a word of what, where and what to do, exit status 2, and no trace."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import botformer
from botformer import cli
from botformer.create import create_classification_task
from botformer.recipes.schema import ClassificationRecipe, Images, Model
from botformer.weights import SHIPPED
from tests.data.detection.coco_files import CATEGORIES, annotation, compressed, content, disc, image, write

from .detection_scenes import rewrite, save_detector

pytest.importorskip("faster_coco_eval")

QUICK = (
    "--images.size=64", "--images.test-size=64", "--schedule.epochs=1", "--schedule.warmup-epochs=0.5",
    "--run.batch-size=2", "--run.workers=0", "--run.max-steps=1",
)  # fmt: skip


def nucleus(number, image, **more):
    """An octagon in the middle of an image of 40x30 pixels."""
    around = np.arange(8) * np.pi / 4
    polygon = np.stack([20 + 9 * np.cos(around), 15 + 9 * np.sin(around)], 1).reshape(-1).tolist()
    return annotation(number, image, [11, 6, 18, 18], area=229.0, segmentation=[polygon]) | more


def write_data(root):
    """Six images to train on, three to validate on, a nucleus in each."""
    for split, folder, count in (("train", "train", 6), ("val", "val", 3)):
        numbers = range(1, count + 1)
        data = content([image(n) for n in numbers], [nucleus(n, n) for n in numbers])
        write(root, data, f"instances_{split}.json", folder)
    return root


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def file_of(data, split="train"):
    return data / "annotations" / f"instances_{split}.json"


def boxes_alone(data, split):
    annotations = json.loads(file_of(data, split).read_text())["annotations"]
    for record in annotations:
        del record["segmentation"]
    rewrite(file_of(data, split), annotations=annotations)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_detector(tmp_path_factory.mktemp("network") / "random.safetensors")


@pytest.fixture
def tell(tmp_path, capsys):
    """Runs a command, into tmp_path/out: its exit status, and what a person sees of it, as one line."""

    def run(*arguments):
        level = logging.root.level
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logging.root, "handlers", [])  # the command line brings its own, onto the screen
            try:
                status = cli.main([*map(str, arguments), "--out", str(tmp_path / "out")])
            except SystemExit as error:  # of the parser
                status = error.code
        logging.root.setLevel(level)
        seen = capsys.readouterr()
        return status, " ".join(re.sub("[│─╭╮╰╯]", " ", seen.err + seen.out).split())

    return run


@pytest.fixture
def train(tell):
    def run(data, *arguments, recipe="nuclei_mini"):
        return tell("train", recipe, "--data", data, *QUICK, *arguments)

    return run


# Annotation files


BROKEN = {
    "not JSON": (lambda text: "images: []", "is not JSON: Expecting value: line 1 column 1"),
    "truncated": (lambda text: text[: len(text) // 2], "ends in the middle; copy or download it again"),
    "empty": (lambda text: "", "is empty; copy or download it again"),
    "lacks a key": (lambda text: text.replace('"annotations"', '"objects"'), "has no 'annotations'; an annotation"),
    "lacks a name": (lambda text: text.replace('"file_name"', '"file"'), "lacks 'file_name'"),
    "results": (lambda text: "[]", "holds a list, not an object with 'images', 'annotations' and 'categories'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_verb_names_a_broken_annotation_file(name, data, network, train, tell):
    damage, words = BROKEN[name]
    for split in ("train", "val"):
        file_of(data, split).write_text(damage(file_of(data, split).read_text()), encoding="utf-8")
    for split, (status, seen) in (
        ("train", train(data)),
        ("val", tell("evaluate", network, "--data", data, "--workers=0")),
        ("val", tell("predict", data / "val", "--checkpoint", network, "--annotations", file_of(data, "val"))),
    ):
        assert status == 2
        assert str(file_of(data, split)) in seen
        assert words in seen


def spoil(data, split):
    """Eight records and two images that are wrong, each in another way."""
    good = json.loads(file_of(data, split).read_text())["annotations"]
    bad = [
        nucleus(101, 1, bbox=[1, 2, float("nan"), 4], segmentation=None),
        nucleus(102, 1, category_id=55),
        nucleus(103, 99),
        nucleus(104, 1, segmentation=[[1, 2, 3, 4]]),
        nucleus(105, 1, segmentation=compressed(disc(40, 30, 15, 20, 8))),
        nucleus(106, 1, bbox=[100, 2, 5, 5], segmentation=None),
        nucleus(107, 1, bbox=[5, 5, 0, 5], segmentation=None),
    ]
    rewrite(file_of(data, split), annotations=[*good, *bad])
    (data / split / "2.png").unlink()
    Image.new("RGB", (9, 8)).save(data / split / "3.png")


TOLD = (
    "3 annotations skipped that make no sense:",
    "2 annotations of which a part is left out or replaced:",
    "image 1 (1.png), annotation 101: bbox is [1, 2, nan, 4], not four finite numbers",
    "image 1 (1.png), annotation 102: category 55 is not in the list of categories",
    "image 99, annotation 103: there is no image 99",
    "image 1 (1.png), annotation 104: shape left out: segmentation has no polygon, a list x, y, x, y, ...",
    "image 1 (1.png), annotation 105: shape left out: run lengths of size [40, 30] do not fit the image: [30, 40]",
    "2 annotations dropped that have no area inside their image:",
    "annotation 106: box [100.0, 2.0, 5.0, 5.0] lies outside the image of 40x30 pixels",
    "annotation 107: box [5.0, 5.0, 0.0, 5.0] has no area",
    "skipped 2.png: No such file or directory",
    "skipped 3.png: is 9x8 pixels upright, its record (image id 3) says 40x30",
)


def test_training_skips_a_few_bad_records_and_says_which(data, train):
    spoil(data, "train")
    status, seen = train(data, "--run.max-steps=3")
    assert status == 0
    for words in TOLD:
        assert words in seen
    assert f"{file_of(data)}: 8 objects of 3 categories in 6 images" in seen


def test_evaluation_skips_a_few_bad_records_and_says_which(data, network, tell, tmp_path):
    spoil(data, "val")
    status, seen = tell("evaluate", network, "--data", data, "--workers=0")
    assert status == 0
    for words in (
        *TOLD,
        "2 images were left out",
        "7 annotations were left out",
        "7 of the 10 objects of the data are not in these numbers: 5 could not be used, 2 lie in images that could not",
        "2 objects have no mask: in the mask numbers they count neither way",
    ):
        assert words in seen
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["not_measured"] == {
        "objects": 7,
        "of_objects": 10,
        "annotations_left_out": 5,
        "objects_in_unreadable_images": 2,
        "objects_without_mask": 2,
    }
    skipped = metrics["skipped"]
    assert sorted(skipped["images"]) == ["2.png", "3.png"]
    assert [problem["annotation_id"] for problem in skipped["annotations"]] == [101, 102, 103, 106, 107, 104, 105]


def test_too_many_bad_records_and_images_stop(data, train, tmp_path):
    good = [nucleus(n, n) for n in range(1, 7)]
    rewrite(file_of(data), annotations=good + [nucleus(n, 99) for n in range(100, 121)])
    status, seen = train(data)
    assert status == 2
    assert (
        "21 annotations make no sense, 20 are tolerated (max_bad_records): image 99, annotation 100: there is no"
        in seen
    )
    assert "and 11 more Mend or remove them, or tolerate more" in seen
    status, seen = train(data, "--images.max-bad-records=21")
    assert status == 0
    assert "21 annotations skipped that make no sense" in seen
    shutil.rmtree(tmp_path / "out")
    rewrite(file_of(data), annotations=good)
    for name in ("2.png", "3.png"):
        (data / "train" / name).write_bytes(b"none")
    status, seen = train(data, "--images.max-bad-files=1", "--run.max-steps=3")
    assert status == 2
    assert "2 images of" in seen
    assert "cannot be read, 1 are tolerated (images.max_bad_files): 2.png: not an image" in seen


def test_a_thousand_objects_in_one_image_are_trained_on(data, train):
    rewrite(file_of(data), images=[image(1), image(2)], annotations=[nucleus(n, 1 + n % 2) for n in range(2000)])
    status, seen = train(data)
    assert status == 0
    assert "2000 objects of 3 categories in 2 images" in seen


# Data sets


def moved(data):
    for split in ("train", "val"):
        (data / split).rename(data / f"images of {split}")


def other_names(data):
    for file in (data / "train").iterdir():
        file.rename(file.with_name(f"scan{file.name}"))


LACKING = {
    "no training": (lambda data: file_of(data).unlink(), "no annotations of the split 'train'"),
    "what there is instead": (
        lambda data: file_of(data).unlink(),
        "The annotations there: annotations/instances_val.json; rename a file, or move some of its images",
    ),
    "another prefix": (
        lambda data: file_of(data).rename(file_of(data).with_name("panoptic_train.json")),
        "no annotations of the split 'train'",
    ),
    "images in another folder": (moved, "give the folder with the images one of these names (found in"),
    "images of other names": (other_names, "none of 6 images that"),
    "what a file name is": (other_names, "train, such as 1.png (found there: scan1.png, scan2.png,"),
    "no objects": (
        lambda data: rewrite(file_of(data), annotations=[]),
        "instances_train.json has no objects to learn from: 6 images, 0 annotations left out; annotate some",
    ),
    "crowds alone": (
        lambda data: rewrite(file_of(data), annotations=[nucleus(1, 1, iscrowd=1)]),
        "instances_train.json has no objects to learn from: the 1 annotations that can be read are all crowds "
        "(iscrowd: 1), which are background in training",
    ),
    "crowds alone to measure by": (
        lambda data: rewrite(file_of(data, "val"), annotations=[nucleus(1, 1, iscrowd=1)]),
        "set their iscrowd to 0, or export them as polygons",
    ),
    "nothing to measure by": (
        lambda data: rewrite(file_of(data, "val"), annotations=[]),
        "instances_val.json has no objects to measure by: 3 images, 0 annotations left out",
    ),
    "no images": (
        lambda data: rewrite(file_of(data), annotations=[], images=[]),
        "instances_train.json has no images (0 records left out); expected at least one",
    ),
    "no shapes": (
        lambda data: boxes_alone(data, "train"),
        "none of the 6 objects of {train} has a shape (segmentation), only boxes: there is nothing to make masks from; "
        "add --detector faster_rcnn",
    ),
    "no shapes to measure by": (
        lambda data: boxes_alone(data, "val"),
        "none of the 3 objects of {val} has a shape (segmentation), only boxes",
    ),
    "other categories": (
        lambda data: rewrite(file_of(data, "val"), categories=[*CATEGORIES[1:], {"id": 90, "name": "comb"}]),
        "each of the latter must be one of the former, by its name where that is unique, else by id and name",
    ),
}


@pytest.mark.parametrize("name", LACKING)
def test_what_a_data_set_lacks_is_said_before_anything_is_trained(name, data, train, tmp_path):
    change, words = LACKING[name]
    change(data)
    status, seen = train(data)
    assert status == 2
    assert str(data) in seen
    assert words.format(train=file_of(data), val=file_of(data, "val")) in seen
    assert not (tmp_path / "out").exists()


def test_one_annotation_file_may_be_given_instead_of_the_folder(data, network, train, tell, tmp_path):
    status, seen = train(file_of(data))
    assert status == 0
    assert "held out" in seen
    status, seen = tell("evaluate", network, "--data", file_of(data, "val"), "--out", tmp_path / "measured")
    assert status == 0
    assert "3 images" in seen
    status, seen = train(file_of(data, "val"))
    assert status == 2
    assert f"{file_of(data, 'val')} has no annotations of the split 'train'" in seen


def test_class_folders_are_not_for_detectors_nor_annotations_for_classifiers(data, colours, train, tell):
    status, seen = train(colours)
    assert status == 2
    assert f"{colours} has no annotations of the split 'train' (found there: train, validation)" in seen
    assert seen.endswith("Class folders, DIR/train/CLASS/*.jpg, are for classifiers")
    status, seen = tell("train", "digits", "--data", data)
    assert status == 2
    assert f"this recipe trains a classifier, but {data} holds objects with boxes (COCO or YOLO)" in seen
    assert "take a recipe for detectors, such as nuclei or coco_botnet50_36 (botformer train lists them)" in seen


def test_folders_of_annotated_images_do_not_pass_for_classes(data, tell):
    """Without a folder called train, two splits of COCO would be two classes."""
    for split in ("train", "val"):
        (data / split).rename(data / f"{split}2017")
        shutil.move(file_of(data, split), data / f"{split}2017" / "_annotations.coco.json")
    (data / "annotations").rmdir()
    status, seen = tell("train", "digits", "--data", data)
    assert status == 2
    assert "this recipe trains a classifier" in seen


def test_boxes_alone_train_a_detector_without_masks(data, train):
    for split in ("train", "val"):
        boxes_alone(data, split)
    status, seen = train(data, "--detector=faster_rcnn")
    assert status == 0
    assert f"{file_of(data)}: 6 objects have no shape (segmentation), only a box" in seen


def test_both_splits_in_one_folder_and_key_points_beside_shapes(data, train):
    shutil.rmtree(data / "val")
    (data / "train").rename(data / "images")
    rewrite(file_of(data), annotations=[nucleus(n, n, keypoints=[20, 15, 2], num_keypoints=1) for n in range(1, 7)])
    status, seen = train(data)
    assert status == 0
    assert f"{file_of(data)}: 6 annotations have key points, which are not read; boxes and shapes are" in seen


def test_label_files_of_yolo_that_lie_elsewhere_are_looked_for_aloud(tmp_path, train):
    pytest.importorskip("supervision")
    for split in ("train", "val"):
        (tmp_path / "yolo" / "images" / split).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "yolo" / "images" / split / "a.png")
    (tmp_path / "yolo" / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    status, seen = train(tmp_path / "yolo")
    assert status == 2
    labels = Path("yolo", "labels", "train")
    assert re.search(rf"label files must lie in \S*{labels}, which does not exist", seen)


# Options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images.size", "0"], "images.size is 0; expected from 1 to 65536"),
        (["--images.scale-jitter", "2", "1"], "images.scale_jitter is 2.0 to 1.0; two scales above 0, the smaller"),
        (["--settings.levels", "p3", "p5"], "levels must be neighbours from p2, p3, p4, p5, p6, got 'p3, p5'"),
        (["--settings.levels", "p2", "p3"], "4 anchor_sizes for 2 levels; give one per level"),
        (
            ["--settings.anchor-sizes", "0", "8", "8", "8"],
            "settings.anchor_sizes is (0.0, 8.0, 8.0, 8.0); expected more",
        ),
        (["--settings.anchor-ratios", "-1"], "settings.anchor_ratios is (-1.0,); expected more than 0"),
        (["--settings.box-huber-delta", "0"], "settings.box_huber_delta is 0.0; expected more than 0"),
        (["--settings.anchor-ratios"], "settings.anchor_ratios is empty; expected one ratio or more"),
        (["--settings.norm-epsilon", "0"], "settings.norm_epsilon is 0.0; expected more than 0"),
        (["--settings.nms-iou", "2"], "settings.nms_iou is 2.0; expected from 0 to 1"),
        (["--settings.nms-iuo", "0.5"], "Perhaps you meant: --settings.nms-iou"),
        (["--detector", "retinanet"], "Expected one of ('mask_rcnn', 'faster_rcnn', 'keypoint_rcnn')"),
        (["--detector", "keypoint_rcnn"], "has no key points to learn from or to measure by: its categories have no"),
        (["--model.name", "botnet55"], "unknown model 'botnet55'; did you mean botnet50"),
        (["--model.dropout", "0.1"], "model.dropout are for classifiers; leave them 0"),
        (["--run.batch-size", "99"], "has 6 images, fewer than one batch of 99; take a batch size of 6 or less"),
    ],
)
def test_values_that_make_no_sense_get_a_message(arguments, words, data, train, tmp_path):
    status, seen = train(data, *arguments)
    assert status == 2
    assert words in seen
    assert not (tmp_path / "out").exists()


def test_a_recipe_misspelt_suggests_the_nearest(data, train):
    assert train(data, recipe="nucle") == (
        2,
        "botformer train: unknown recipe 'nucle'; did you mean nuclei or nuclei_mini or nuclei_half?",
    )


# Weights


def test_first_weights_of_another_network_are_told(data, train, tmp_path):
    recipe = ClassificationRecipe(model=Model("botnet_mini"), images=Images(size=32))
    task = create_classification_task(recipe, ["a", "b"])
    other = tmp_path / "other.safetensors"
    botformer.save(task.model, task.model_config(), other)
    status, seen = train(data, "--model.weights", other)
    assert status == 0
    assert f"come from {other} (model.weights), the rest stays random" in seen
    assert "another network than botnet_nano (model.name)" in seen


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("nowhere.safetensors", "nowhere.safetensors is not a file; expected weights as .safetensors or .pth"),
        ("nuclei", "the network 'nuclei' should come with botformer, but its file"),
        ("annotations", "annotations has no checkpoint yet; expected the --out folder of a training run"),
    ],
)
def test_first_weights_that_are_not_there_are_named(weights, words, data, train, monkeypatch):
    monkeypatch.chdir(data)
    monkeypatch.setitem(SHIPPED, "nuclei", data / "gone.safetensors")
    status, seen = train(data, "--model.weights", weights)
    assert status == 2
    assert words in seen


def test_a_shipped_network_misspelt_or_missing_is_named(data, tell, monkeypatch):
    monkeypatch.chdir(data)
    monkeypatch.setitem(SHIPPED, "nuclei", data / "gone.safetensors")
    for name, words in (
        ("nucle", "nucle does not exist; expected the --out folder of a training run"),
        ("nucle", "or a network that comes with botformer: nuclei"),
        ("nuclei", f"the network 'nuclei' should come with botformer, but its file {data / 'gone.safetensors'} is"),
    ):
        for status, seen in (
            tell("predict", data / "val" / "1.png", "--checkpoint", name),
            tell("evaluate", name, "--data", data),
        ):
            assert status == 2
            assert words in seen
