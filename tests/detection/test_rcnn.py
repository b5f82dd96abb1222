from dataclasses import replace

import pytest
import timm
import torch
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d, box_iou

from botformer import create_backbone
from botformer.backbone.mhsa import MHSA2d
from botformer.detection import Settings, build_detector, make_settings
from botformer.detection.masks import crop_masks
from botformer.detection.padding import shrink_to_fit
from botformer.errors import InputError

from .scenes import SMALL, scene, small_detector, train, two_scenes

KINDS = {"mask_rcnn": "loss_mask", "faster_rcnn": None, "keypoint_rcnn": "loss_keypoint"}


@pytest.fixture(scope="module")
def trained():
    """A Mask R-CNN overfitted to two images."""
    return train(small_detector(), *two_scenes(), steps=100, learning_rate=8e-3)


def mask_iou(a, b):
    return ((a & b).sum((1, 2)) / (a | b).sum((1, 2))).tolist()


def pairs(first, second):
    """One to one: indices of the boxes of the same class that belong together."""
    other = first["labels"][:, None] != second["labels"]
    distance = (first["boxes"][:, None] - second["boxes"]).abs().amax(2) + 1e6 * other
    return linear_sum_assignment(distance.numpy())


def empty(height, width):
    return scene(height, width, [])[1]


def test_two_images_are_learned_by_heart(trained):
    images, targets = two_scenes()
    for found, target in zip(trained(images, masks="dense"), targets, strict=True):
        sure = found["scores"] > 0.8
        overlap, index = box_iou(target["boxes"], found["boxes"][sure]).max(1)
        assert sure.sum() == len(target["boxes"])
        assert overlap.min() > 0.8
        assert torch.equal(found["labels"][sure][index], target["labels"])
        assert min(mask_iou(found["masks"][sure][index], target["masks"])) > 0.8


def test_neighbours_change_nothing(trained):
    """Alone and among images of other sizes: the same objects to a hundredth of a pixel."""
    images = two_scenes()[0] + [torch.rand(3, 64, 64), torch.rand(3, 20, 33)]
    together = trained(images, masks="dense")
    for image, among in zip(images, together, strict=True):
        (alone,) = trained([image], masks="dense")
        assert len(alone["boxes"]) == len(among["boxes"])
        rows, columns = pairs(alone, among)
        torch.testing.assert_close(alone["boxes"][rows], among["boxes"][columns], rtol=0, atol=0.01)
        torch.testing.assert_close(alone["scores"][rows], among["scores"][columns], rtol=0, atol=1e-4)
        if len(rows):
            assert (alone["masks"][rows] ^ among["masks"][columns]).float().mean() < 1e-3
    assert len(together[0]["boxes"]) >= 2


def test_on_tight_canvases_the_same_objects_are_found_in_the_same_order_of_images(trained):
    small, _ = scene(40, 32, [(1, (4, 6, 28, 30))])
    images = [two_scenes()[0][1], small, two_scenes()[0][0]]
    seen = []
    handle = trained.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    tight = trained(images, tight=True)
    handle.remove()
    assert seen == [(1, 3, 48, 64), (1, 3, 40, 32), (1, 3, 64, 64)]
    for wide, close in zip(trained([images[2]]), tight[2:], strict=True):  # fills its canvas either way
        torch.testing.assert_close(wide["boxes"], close["boxes"], rtol=0, atol=0.01)
    assert box_iou(two_scenes()[1][1]["boxes"], tight[0]["boxes"]).amax(1).min() > 0.7


def test_a_image_larger_than_the_canvas_is_found_in_its_own_pixels(trained):
    image, target = (part[0] for part in two_scenes())
    larger = nn.functional.interpolate(image[None], scale_factor=2, mode="nearest")[0]
    (found,), (fitting,) = trained([larger], masks="dense"), trained([shrink_to_fit(larger, (64, 64))])
    torch.testing.assert_close(found["boxes"], 2 * fitting["boxes"])
    best = found["scores"].argsort(descending=True)[:2]
    overlap, index = box_iou(2 * target["boxes"], found["boxes"][best]).max(1)
    assert overlap.min() > 0.7  # scaling down blurs what it was overfitted to
    masks = target["masks"].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert min(mask_iou(found["masks"][best][index], masks)) > 0.7


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_rle_holds_the_masks_that_dense_shows(trained):
    images, _ = two_scenes()
    for encoded, dense in zip(trained(images), trained(images, masks="dense"), strict=True):
        assert len(encoded["masks"]) > 1
        for rle, mask in zip(encoded["masks"], dense["masks"], strict=True):
            assert torch.equal(torch.from_numpy(coco.decode(rle)).bool(), mask)


def test_torchvisions_call_has_two_faces(trained):
    images, targets = two_scenes()
    call = trained.as_torchvision()
    dense = trained(images, masks="dense")
    for found, want, image in zip(call(images), dense, images, strict=True):
        assert found["masks"].shape == (len(want["boxes"]), 1, *image.shape[1:])
        assert found["masks"].dtype == torch.float32
        assert torch.equal(found["masks"][:, 0] >= 0.5, want["masks"])
        assert torch.equal(found["boxes"], want["boxes"])
    train_state = small_detector()
    torch.manual_seed(5)
    expected = train_state.losses(images, targets)
    train_state = small_detector().as_torchvision()
    torch.manual_seed(5)
    losses = train_state(images, targets)
    assert {name: loss.item() for name, loss in losses.items()} == {n: loss.item() for n, loss in expected.items()}
    with pytest.raises(InputError, match="targets"):
        train_state(images)


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
def test_losses_and_detections_carry_torchvisions_names(kind):
    class Tiny(nn.Module):
        out_channels = 8

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 32, 1)

        def forward(self, images):
            return self.conv(images)

    anchors = AnchorGenerator(((16, 32),), ((1.0,),))
    if kind == "mask_rcnn":
        peer = MaskRCNN(Tiny(), 3, min_size=64, max_size=64, rpn_anchor_generator=anchors, box_score_thresh=0.0)
    else:
        peer = KeypointRCNN(
            Tiny(), 3, min_size=64, max_size=64, rpn_anchor_generator=anchors, num_keypoints=3, box_score_thresh=0.0
        )
    images, targets = two_scenes()
    ours = small_detector(kind, settings=replace(SMALL, score_threshold=0.0))
    assert ours.losses(images, targets).keys() == peer(images, targets).keys()
    found, expected = ours.eval()(images)[0], peer.eval()(images)[0]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name != "masks":
            assert (found[name].dtype, found[name].shape[1:]) == (value.dtype, value.shape[1:]), name


@pytest.mark.parametrize(("kind", "own_loss"), KINDS.items())
def test_images_without_objects_give_zero_box_and_mask_loss(kind, own_loss):
    detector = small_detector(kind)
    losses = detector.losses([torch.rand(3, 64, 64), torch.rand(3, 30, 50)], [empty(64, 64), empty(30, 50)])
    zero = {"loss_box_reg", "loss_rpn_box_reg"} | ({own_loss} if own_loss else set())
    assert {name for name, loss in losses.items() if loss == 0} == zero
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    # Every parameter takes part, so that processes that average gradients do not wait for each other.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert all(value.isfinite().all() for value in detector.state_dict().values())


def test_key_points_learn_and_are_found():
    images, targets = two_scenes()
    detector = train(small_detector("keypoint_rcnn"), images, targets, steps=2)
    detector.settings = replace(SMALL, score_threshold=0.0)
    detector.box_head.settings = detector.settings
    (found,) = detector(images[:1])
    count = len(found["boxes"])
    assert count > 0
    assert found["keypoints"].shape == (count, 3, 3)
    assert found["keypoints_scores"].shape == (count, 3)
    x1, y1, x2, y2 = (found["boxes"][:, side, None] for side in range(4))
    x, y, _ = found["keypoints"].unbind(2)
    assert ((x >= x1 - 1) & (x <= x2 + 1) & (y >= y1 - 1) & (y <= y2 + 1)).all()


def test_masks_as_crops_teach_what_whole_masks_teach():
    images, targets = two_scenes()
    values = []
    crops = [
        {"boxes": t["boxes"], "labels": t["labels"], "mask_crops": crop_masks(t["masks"], t["boxes"], 112).byte()}
        for t in targets
    ]
    for form in (targets, crops):
        detector = small_detector()
        torch.manual_seed(1)
        values.append({name: loss.item() for name, loss in detector.losses(images, form).items()})
    assert values[0] == values[1]


def test_objects_without_masks_teach_boxes_but_no_masks():
    images, targets = two_scenes()
    values = []
    for hidden in (0.0, 1.0):
        masks = [crop_masks(t["masks"], t["boxes"], 112) for t in targets]
        masks[0][1] = hidden
        has_mask = [torch.tensor([True, False]), torch.tensor([True, True])]
        form = [
            {"boxes": t["boxes"], "labels": t["labels"], "mask_crops": m, "has_mask": h}
            for t, m, h in zip(targets, masks, has_mask, strict=True)
        ]
        detector = small_detector()
        torch.manual_seed(1)
        values.append({name: loss.item() for name, loss in detector.losses(images, form).items()})
    assert values[0] == values[1]
    assert values[0]["loss_mask"] > 0


def test_a_seed_decides_weights_and_losses():
    values = []
    for _ in range(2):
        detector = small_detector(seed=3)
        values.append([loss.item() for loss in detector.losses(*two_scenes()).values()])
    assert values[0] == values[1]


class Stub(nn.Module):
    """Remembers what it was told."""

    channels = {"c2": 3, "c3": 3, "c4": 3, "c5": 3}  # noqa: RUF012
    strides = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}  # noqa: RUF012

    def forward(self, images, padding_mask=None):
        self.images, self.padding_mask = images, padding_mask
        return {name: nn.functional.avg_pool2d(images, stride) for name, stride in self.strides.items()}


STUB_SETTINGS = replace(SMALL, levels=("p2", "p3", "p4", "p5", "p6"), anchor_sizes=())


@pytest.mark.parametrize("padding_mask", [True, False])
def test_the_backbone_receives_the_padding_mask_and_sees_normalised_pixels(padding_mask):
    stub = Stub()
    detector = build_detector("faster_rcnn", stub, 1, 64, replace(STUB_SETTINGS, padding_mask=padding_mask)).eval()
    image = torch.rand(3, 40, 50)
    detector([image, torch.rand(3, 64, 64)])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(stub.images[0, :, :40, :50], (image - mean[:, None, None]) / std[:, None, None])
    assert stub.images[0, :, 40:].abs().sum() + stub.images[0, :, :, 50:].abs().sum() == 0
    if not padding_mask:
        assert stub.padding_mask is None
        return
    expected = torch.ones(64, 64, dtype=torch.bool)
    expected[:40, :50] = False
    assert torch.equal(stub.padding_mask[0], expected)
    assert not stub.padding_mask[1].any()


def test_what_fills_the_canvas_gets_no_attention(trained):
    """The keys that its attention is told to leave out are the cells beside the image, and no others."""
    heard = []
    layers = [module for module in trained.modules() if isinstance(module, MHSA2d)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[1])) for layer in layers]
    trained([torch.rand(3, 48, 32)])  # on a canvas of 64x64, cells of 8 px
    for hook in hooks:
        hook.remove()
    expected = torch.ones(1, 8, 8, dtype=torch.bool)
    expected[:, :6, :4] = False
    assert len(heard) == len(layers) > 0
    assert all(torch.equal(padding, expected) for padding in heard)


def test_batchnorm_modes_reach_every_norm():
    for mode, kind in {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d, "sync": nn.SyncBatchNorm}.items():
        detector = build_detector("mask_rcnn", Stub(), 2, 64, replace(STUB_SETTINGS, normalization=mode))
        norms = [m for m in detector.modules() if type(m) in (nn.BatchNorm2d, FrozenBatchNorm2d, nn.SyncBatchNorm)]
        assert len(norms) == 5 + 5 + 2 + 3  # pyramid, proposals, boxes, masks (two convolutions and the enlargement)
        assert {type(norm) for norm in norms} == {kind}
        assert all(loss.isfinite() for loss in detector.losses(*two_scenes()).values())


def test_networks_of_timm_serve_as_backbones():
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", pretrained=False, features_only=True)
    detector = build_detector("mask_rcnn", network, 2, 64, STUB_SETTINGS)
    assert detector.fpn.strides == [4, 8, 16, 32, 64]
    sum(detector.losses(*two_scenes()).values()).backward()
    assert all(p.grad is not None for p in detector.parameters())
    assert len(detector.eval()(two_scenes()[0])) == 2


def test_networks_of_timm_whose_maps_have_their_channels_last():
    tiny = dict(img_size=64, depths=(1, 1, 1, 1), embed_dim=16, num_heads=(1, 1, 1, 1))
    network = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, **tiny)
    detector = build_detector("faster_rcnn", network, 2, 64, STUB_SETTINGS)
    sum(detector.losses(*two_scenes()).values()).backward()
    assert [tuple(each.shape[1:]) for each in detector.backbone(torch.rand(1, 3, 64, 64)).values()] == [
        (16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["resnet10t", "botnet_nano.botformer"])
def test_a_network_of_timm_that_gives_logits_says_how_it_gives_maps(name):
    with pytest.raises(InputError, match=r"gives logits, not maps; create it with .*features_only=True"):
        build_detector("faster_rcnn", timm.create_model(name), 2, 64, STUB_SETTINGS)


def test_frozen_stages_and_checkpointing_of_the_backbone_carry_over():
    images, targets = two_scenes()
    plain, saving = small_detector(), small_detector(gradient_checkpointing=True)
    gradients = []
    for detector in (plain, saving):
        torch.manual_seed(0)
        sum(detector.losses(images, targets).values()).backward()
        gradients.append([p.grad for p in detector.parameters()])
    torch.testing.assert_close(*gradients)
    frozen = small_detector(frozen_stages=2)
    before = {name: value.clone() for name, value in frozen.backbone.layer1.state_dict().items()}
    train(frozen, images, targets, steps=1)
    assert all(torch.equal(value, before[name]) for name, value in frozen.backbone.layer1.state_dict().items())


def test_weights_survive_saving():
    first, second = small_detector(seed=1).eval(), small_detector(seed=2).eval()
    second.load_state_dict(first.state_dict())
    images, _ = two_scenes()
    for a, b in zip(first(images), second(images), strict=True):
        assert torch.equal(a["boxes"], b["boxes"])


def test_no_images_no_detections():
    assert small_detector().eval()([]) == []


def stub_without(attribute):
    stub = Stub()
    setattr(stub, attribute, None)
    return stub


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: build_detector("mask_rnn", Stub(), 1, 64), "did you mean mask_rcnn"),
        (lambda: build_detector("mask_rcnn", Stub(), 0, 64), "without the background"),
        (lambda: build_detector("mask_rcnn", Stub(), 1, (0, 64)), r"got \(0, 64\)"),
        (lambda: build_detector("mask_rcnn", stub_without("channels"), 1, 64), "Stub has no dict 'channels'"),
        (lambda: build_detector("mask_rcnn", nn.Conv2d(3, 3, 1), 1, 64), "Conv2d has no dict 'channels'"),
        (lambda: make_settings({"nms_iuo": 0.5}), "did you mean nms_iou"),
        (lambda: make_settings({"nms_iou": 1.5}), "nms_iou is 1.5; expected from 0 to 1"),
        (lambda: make_settings({"roi_samples": 0}), "roi_samples is 0; expected 1 or more"),
        (lambda: make_settings({"anchor_sizes": (8.0,)}), "1 anchor_sizes for 5 levels"),
        (lambda: make_settings({"normalization": "live"}), "normalization 'live'"),
        (lambda: make_settings({"rpn_negative_iou": 0.8}), "must not exceed"),
    ],
)
def test_bad_construction_says_what_to_do(build, words):
    with pytest.raises(InputError, match=words):
        build()


def test_bad_calls_say_what_to_do():
    images, targets = two_scenes()
    detector = small_detector()
    with pytest.raises(InputError, match="eval"):
        detector(images)
    with pytest.raises(InputError, match="larger than the canvas of 64x64"):
        detector.losses([torch.rand(3, 64, 70)], [empty(64, 70)])
    with pytest.raises(InputError, match="at least one"):
        detector.losses([], [])
    with pytest.raises(InputError, match="target 1, box 0"):
        detector.losses(images, [targets[0], targets[1] | {"labels": torch.tensor([3, 1])}])
    with pytest.raises(InputError, match="dense"):
        detector.eval()(images, masks="dens")


def test_the_papers_settings_are_the_defaults():
    detector = build_detector("mask_rcnn", create_backbone("botnet_mini"), 80, 1024)
    assert detector.settings == Settings()
    assert detector.box_head.predictor.cls_score.out_features == 81
    assert len(detector.rpn.anchors.generator.cell_anchors[0]) == 3
    assert (detector.box_head.norm1.eps, detector.box_head.norm1.momentum) == (1e-4, 0.003)
