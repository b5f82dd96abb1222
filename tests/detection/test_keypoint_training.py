"""A key point detector learns darts and finds the points of darts it has not seen, left and right told apart."""

from dataclasses import replace

import pytest
import torch

from botformer.create import create_detection_task
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.layouts import open_detection_datasets
from botformer.data.synthetic.keypoint_scenes import LAYOUT, write_keypoint_scenes
from botformer.errors import InputError
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import DetectionImages, DetectionRecipe, Model, Optimizer, Run, Schedule
from botformer.training.loop import fit

RECIPE = DetectionRecipe(
    detector="keypoint_rcnn",
    keypoint_sigmas=(0.1,) * 5,
    model=Model(name="botnet_mini", zero_gamma=False),
    settings=Settings(
        levels=("p2", "p3"), fpn_channels=32, norm_momentum=0.1, anchor_sizes=(22.0, 34.0), anchor_ratios=(1.0,),
        rpn_pre_nms_top_n=200, rpn_pre_nms_top_n_test=100, rpn_post_nms_top_n=100, roi_samples=24, box_channels=64,
        keypoint_output_size=10, keypoint_convolutions=2, keypoint_channels=32,
    ),
    images=DetectionImages(size=64, scale_jitter=(0.9, 1.1)),
    optimizer=Optimizer("adamw", learning_rate=5e-3, weight_decay=0.05, clip_norm=5.0),
    schedule=Schedule(epochs=8, warmup_epochs=1.0),
    run=replace(
        Run(), batch_size=8, precision="float32", workers=0, threads=1, device="cpu", evaluate_every=8,
        checkpoint_every=8,
    ),
)  # fmt: skip


@pytest.mark.slow
def test_a_small_keypoint_r_cnn_learns_darts_it_has_not_seen(tmp_path):
    write_keypoint_scenes(tmp_path / "darts", train=160, validation=32)
    train, unseen = open_detection_datasets(str(tmp_path / "darts"), keypoints=True)
    torch.manual_seed(0)
    task = create_detection_task(RECIPE, train.categories, train.keypoint_names, train.skeleton)
    assert task.headline == "keypoints_AP"
    batches = detection_evaluation_batches(unseen, RECIPE.images, 8, workers=0)
    assert keypoints_ap(task, batches) < 0.02
    metrics = fit(
        task,
        detection_training_batches(train, RECIPE.images, 8, seed=0, workers=0),
        batches,
        RECIPE,
        tmp_path / "run",
    )
    assert metrics["keypoints_AP50"] > 0.8
    assert metrics["keypoints_AP"] > 0.6
    assert metrics["box_AP50"] > 0.9


def keypoints_ap(task, batches):
    metrics = task.eval().evaluator()
    with torch.no_grad():
        for batch in batches:
            metrics.update(task.predict(batch), batch)
    task.train()
    return metrics.compute()["keypoints_AP"]


def test_the_data_says_how_many_points_there_are():
    task = create_detection_task(RECIPE, [(1, "dart")], LAYOUT.names, LAYOUT.skeleton)
    config = task.model_config()
    assert task.model.settings.keypoints == config["settings"]["keypoints"] == 5
    assert config["keypoint_names"] == list(LAYOUT.names)
    assert config["skeleton"][0] == [0, 1]
    assert config["keypoint_sigmas"] == [0.1] * 5
    other = replace(RECIPE, settings=replace(RECIPE.settings, keypoints=4))
    with pytest.raises(InputError, match=r"settings.keypoints is 4, but the data has 5 key points \(nose"):
        create_detection_task(other, [(1, "dart")], LAYOUT.names)
    with pytest.raises(InputError, match="needs the names"):
        create_detection_task(RECIPE, [(1, "dart")])
    with pytest.raises(InputError, match="keypoint_sigmas"):
        create_detection_task(replace(RECIPE, keypoint_sigmas=(0.1,)), [(1, "dart")], LAYOUT.names)
