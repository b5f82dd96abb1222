"""Darts: their points lie where they are drawn, the left ones on the left, and a seed gives the same scenes."""

import numpy as np
import pytest

from botformer.data.detection.layouts import open_detection_datasets
from botformer.data.synthetic.keypoint_scenes import LAYOUT, SCENE_PX, draw_scene, write_keypoint_scenes
from botformer.errors import InputError


def scenes(count=40):
    return [draw_scene(np.random.default_rng((5, number))) for number in range(count)]


def test_the_left_wing_is_on_the_left_of_who_looks_along_the_dart():
    checked = 0
    for scene in scenes():
        for keypoints in scene.keypoints:
            points = np.array(keypoints)
            if (points[:, 2] == 0).any():
                continue
            nose, left_wing, right_wing, left_fin, right_fin = points[:, :2]
            ahead = nose - (left_fin + right_fin) / 2
            for left, right in ((left_wing, right_wing), (left_fin, right_fin)):
                across = right - left
                assert ahead[0] * across[1] - ahead[1] * across[0] > 0  # clockwise, where y points down
                assert abs(ahead @ across) < 0.1 * np.linalg.norm(ahead) * np.linalg.norm(across)
            checked += 1
    assert checked > 20


def test_points_lie_on_or_beside_their_masks_and_all_visibilities_occur():
    seen = set()
    for scene in scenes():
        assert scene.image.shape == (SCENE_PX, SCENE_PX, 3)
        for mask, keypoints in zip(scene.masks, scene.keypoints, strict=True):
            assert len(keypoints) == len(LAYOUT.names)
            rows, columns = np.nonzero(mask)
            for x, y, v in keypoints:
                seen.add(v)
                if v:
                    assert np.hypot(rows - y, columns - x).min() < 2.5  # corners are thin
    assert seen == {0, 1, 2}


def test_a_seed_gives_the_same_scenes_whatever_their_number(tmp_path):
    assert write_keypoint_scenes(tmp_path / "few", train=2, validation=1, seed=3)
    assert write_keypoint_scenes(tmp_path / "more", train=4, validation=2, seed=3)
    assert not write_keypoint_scenes(tmp_path / "more", train=4, validation=2, seed=3)
    with pytest.raises(InputError):
        write_keypoint_scenes(tmp_path / "more", train=4, validation=2, seed=4)
    few, more = (open_detection_datasets(str(tmp_path / name), keypoints=True)[0] for name in ("few", "more"))
    assert few.image(1).annotations[0].keypoints == more.image(1).annotations[0].keypoints
    name = few.name(1)
    assert (few.folder / name).read_bytes() == (more.folder / name).read_bytes()
    assert few.layout == LAYOUT
