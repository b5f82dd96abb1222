import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from botformer.data.detection.dataset import Annotation, DetectionDataset
from botformer.data.detection.layouts import open_detection_datasets
from botformer.data.synthetic.nuclei_crops import MIN_AREA_PX, read_nuclei, write_nuclei
from botformer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools, under NumPy 2

IMAGE, LABELS = read_nuclei()
STRIP = 384


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "nuclei"
    assert write_nuclei(folder)
    return folder


@pytest.fixture(scope="module")
def train(folder) -> DetectionDataset:
    return open_detection_datasets(str(folder))[0]


@pytest.fixture(scope="module")
def validation(folder) -> DetectionDataset:
    return open_detection_datasets(str(folder))[1]


def decode(annotation: Annotation) -> np.ndarray:
    return coco_mask.decode(annotation.segmentation).astype(bool)


def read(dataset: DetectionDataset, index: int) -> np.ndarray:
    with Image.open(dataset.folder / dataset.name(index)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def corner(file: str) -> tuple[int, int]:
    """The crop's place, found by looking for its pixels in the micrograph, not by believing its name."""
    with Image.open(file) as image:
        crop = np.asarray(image)
    height, width = crop.shape
    places = np.lib.stride_tricks.sliding_window_view(IMAGE, (1, 24))[: 512 - height + 1, : 512 - width + 1, 0]
    rows, columns = np.nonzero((places == crop[0, :24]).all(axis=-1))
    found = [
        (int(top), int(left))
        for top, left in zip(rows, columns, strict=True)
        if (IMAGE[top : top + height, left : left + width] == crop).all()
    ]
    assert len(found) == 1
    return found[0]


def test_the_micrograph_is_the_one_of_the_wheel_value_for_value():
    assert IMAGE.shape == LABELS.shape == (512, 512)
    assert IMAGE.dtype == LABELS.dtype == np.uint8
    hashes = [hashlib.sha256(array.astype("<u2").tobytes()).hexdigest()[:16] for array in (IMAGE, LABELS)]
    assert hashes == ["8952cab7611450bd", "13ef0db2a960a93c"]  # of the 16-bit pixels of img2d.tif and mask2d.tif
    assert len(np.unique(LABELS)) == 1 + 125


def test_every_nucleus_is_one_piece():
    for label in np.unique(LABELS)[1:]:
        assert ndimage.label(label == LABELS, np.ones((3, 3)))[1] == 1


def test_outlines_stop_short_of_the_right_edge():
    # Why a nucleus that reaches the last pixel but one counts as cut.
    assert not LABELS[:, -1].any()
    assert LABELS[:, -2].any()


def test_training_crops_hold_no_pixel_of_the_strip(train):
    for index in range(len(train)):
        top, left = corner(str(train.folder / train.name(index)))
        image = train.image(index)
        assert (image.width, image.height) == (192, 192)
        assert left + 192 <= STRIP
        assert train.name(index) == f"row{top:03d}_column{left:03d}.png"


def test_training_crops_cover_the_left_three_quarters(train):
    seen = np.zeros((512, 512), int)
    for index in range(len(train)):
        top, left = corner(str(train.folder / train.name(index)))
        seen[top : top + 192, left : left + 192] += 1
    assert seen[:, :STRIP].min() >= 1
    assert seen[192:320, 160:224].min() >= 9  # overlapping


def test_the_masks_of_all_crops_together_are_the_labels(train):
    union = np.zeros_like(LABELS)
    for index in range(len(train)):
        top, left = corner(str(train.folder / train.name(index)))
        window = LABELS[top : top + 192, left : left + 192]
        for annotation in train.image(index).annotations:
            mask = decode(annotation)
            (label,) = np.unique(window[mask])  # one nucleus, and no background
            assert mask.sum() == (window == label).sum() >= MIN_AREA_PX
            assert not annotation.crowd
            union[top : top + 192, left : left + 192][mask] = label
    expected = LABELS.copy()
    expected[:, STRIP:] = 0
    visible = np.bincount(expected.ravel())
    too_little = [label for label, area in enumerate(visible) if 0 < area < MIN_AREA_PX]
    expected[np.isin(expected, too_little)] = 0
    assert (union == expected).all()
    assert len(too_little) <= 2  # cut by the strip's edge


def test_crops_leave_out_slivers_and_nothing_else(train):
    left_out = 0
    for index in range(len(train)):
        top, left = corner(str(train.folder / train.name(index)))
        areas = np.bincount(LABELS[top : top + 192, left : left + 192].ravel())[1:]
        kept = sorted(int(annotation.area_px) for annotation in train.image(index).annotations)
        assert kept == sorted(areas[areas >= MIN_AREA_PX].tolist())
        left_out += int(((areas > 0) & (areas < MIN_AREA_PX)).sum())
    assert 0 < left_out < 0.05 * train.objects


def test_no_whole_nucleus_is_small_enough_to_be_left_out():
    areas = np.bincount(LABELS.ravel())[1:]
    assert areas[areas > 0].min() >= MIN_AREA_PX


def test_the_strip_is_one_image_with_the_labels_as_they_are(validation):
    assert len(validation) == 1
    assert (read(validation, 0) == IMAGE[:, STRIP:]).all()
    drawn = np.zeros((512, 128), int)
    for annotation in validation.image(0).annotations:
        mask = decode(annotation)
        assert not drawn[mask].any()
        drawn[mask] = len(np.unique(drawn))
    truth = LABELS[:, STRIP:]
    assert ((drawn > 0) == (truth > 0)).all()
    pairs = np.unique(np.stack([drawn.ravel(), truth.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(drawn)) == len(np.unique(truth))  # one mask a label, and the reverse


def test_exactly_the_nuclei_within_two_pixels_of_the_strips_border_are_ignored(validation):
    annotations = validation.image(0).annotations
    inner = ndimage.binary_erosion(np.ones((512, 128), bool), iterations=2)
    for annotation in annotations:
        assert annotation.crowd == bool((decode(annotation) & ~inner).any())
    assert (sum(a.crowd for a in annotations), sum(not a.crowd for a in annotations)) == (11, 19)
    assert validation.objects == 19


def test_both_splits_know_one_category_and_no_record_is_bad(train, validation):
    assert train.categories == validation.categories == ((1, "nucleus"),)
    assert not train.problems
    assert not validation.problems
    assert (len(train), validation.where.endswith("instances_val.json")) == (77, True)


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_bytes_every_time_and_a_finished_folder_stays(tmp_path, folder):
    assert write_nuclei(tmp_path / "again")
    assert fingerprint(tmp_path / "again") == fingerprint(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not write_nuclei(folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_record_says_that_it_is_no_benchmark(folder):
    record = json.loads((folder / "nuclei.json").read_text(encoding="utf-8"))
    assert "not a benchmark" in record["about"]
    assert record["parameters"]["generator"] >= 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a finished folder of nuclei"):
        write_nuclei(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
