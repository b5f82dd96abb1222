import math

import torch
from torch.nn import functional as F
from torchvision.models.detection import rpn as torchvision_rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from botformer.detection import Settings
from botformer.detection.rpn import RegionProposalNetwork
from botformer.detection.targets import Targets

LEVELS, STRIDES = ("p2", "p3", "p4"), [4, 8, 16]
SETTINGS = Settings(levels=LEVELS, fpn_channels=8, anchor_scale=4.0, rpn_samples=64, rpn_post_nms_top_n=40)
SIZES = [(64, 64), (50, 36)]


def network_and_guesses():
    torch.manual_seed(0)
    network = RegionProposalNetwork(LEVELS, STRIDES, SETTINGS)
    torch.nn.init.normal_(network.logits.weight, std=1.0)
    torch.nn.init.normal_(network.deltas.weight, std=0.3)
    pyramid = {level: torch.randn(2, 8, 64 // s, 64 // s) for level, s in zip(LEVELS, STRIDES, strict=True)}
    return network, network(pyramid)


def objects():
    boxes = torch.tensor([[8.0, 8, 30, 28], [20, 20, 61, 60]])
    return [Targets(boxes, torch.tensor([1, 2])), Targets(boxes[:0], torch.zeros(0, dtype=torch.int64))]


def torchvisions_network(sampler_size):
    return torchvision_rpn.RegionProposalNetwork(
        AnchorGenerator(((8,),) * 3, ((1.0,),) * 3),
        torchvision_rpn.RPNHead(8, 3),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=sampler_size,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 100, "testing": 100},
        post_nms_top_n={"training": 40, "testing": 40},
        nms_thresh=0.7,
    )


def test_proposals_are_torchvisions_for_the_same_guesses():
    network, rpn_output = network_and_guesses()
    anchors = torch.cat(rpn_output.anchors_xyxy)
    deltas, logits = torch.cat(rpn_output.deltas, 1), torch.cat(rpn_output.logits, 1)
    theirs = torchvisions_network(64)
    decoded = torch.stack([theirs.box_coder.decode_single(delta, anchors) for delta in deltas])
    counts = [len(level) for level in rpn_output.anchors_xyxy]
    expected, _ = theirs.filter_proposals(decoded, logits, SIZES, counts)
    ours = network.propose(rpn_output, SIZES, candidates=100)
    for boxes, want, (height, width) in zip(ours, expected, SIZES, strict=True):
        assert len(boxes) == 40
        torch.testing.assert_close(boxes, want, rtol=0, atol=1e-4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()


def test_objectness_is_torchvisions_where_the_sample_is_full():
    network, rpn_output = network_and_guesses()
    theirs = torchvisions_network(64)
    anchors = torch.cat(rpn_output.anchors_xyxy)
    targets = [{"boxes": image.boxes_xyxy} for image in objects()]
    labels, matched = theirs.assign_targets_to_anchors([anchors, anchors], targets)
    wanted = theirs.box_coder.encode([m.clone() for m in matched], [anchors, anchors])
    torch.manual_seed(3)
    expected, _ = theirs.compute_loss(
        torch.cat(rpn_output.logits, 1).reshape(-1, 1),
        torch.cat(rpn_output.deltas, 1).reshape(-1, 4),
        labels,
        list(wanted),
    )
    torch.manual_seed(3)
    torch.testing.assert_close(network.losses(rpn_output, objects())["loss_objectness"], expected)


def test_box_loss_is_the_mean_huber_loss_of_each_level_summed():
    network, rpn_output = network_and_guesses()
    expected, delta = 0.0, 1 / 9
    boxes = objects()[0].boxes_xyxy.tolist()
    nearest = [max(iou(anchor, box) for anchor in torch.cat(rpn_output.anchors_xyxy).tolist()) for box in boxes]
    for level, anchors in enumerate(rpn_output.anchors_xyxy):
        values = []
        for index, anchor in enumerate(anchors.tolist()):
            matched_idx = positive_owner(anchor, nearest)
            if matched_idx is None:
                continue
            wanted = encode(objects()[0].boxes_xyxy[matched_idx].tolist(), anchor)
            for said, want in zip(rpn_output.deltas[level][0, index].tolist(), wanted, strict=True):
                distance = abs(said - want)
                values.append(distance**2 / 2 if distance <= delta else delta * (distance - delta / 2))
        expected += sum(values) / len(values) if values else 0.0
    assert expected > 0
    # Fewer positive anchors than may be sampled: the sample holds them all.
    actual = network.losses(rpn_output, objects())["loss_rpn_box_reg"].item()
    assert math.isclose(actual, expected, rel_tol=1e-4)


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def positive_owner(anchor, nearest):
    boxes = objects()[0].boxes_xyxy.tolist()
    overlaps = [iou(anchor, box) for box in boxes]
    best = max(range(2), key=overlaps.__getitem__)
    rescued = any(math.isclose(o, n, rel_tol=1e-6) for o, n in zip(overlaps, nearest, strict=True))
    return best if overlaps[best] >= 0.7 or rescued else None


def encode(box, anchor):
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return (
        ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / width,
        ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / height,
        math.log((box[2] - box[0]) / width),
        math.log((box[3] - box[1]) / height),
    )


def test_without_objects_the_box_loss_is_zero_and_every_anchor_is_background():
    network, rpn_output = network_and_guesses()
    nothing = [objects()[1]] * 2
    torch.manual_seed(0)
    losses = network.losses(rpn_output, nothing)
    assert losses["loss_rpn_box_reg"].item() == 0.0
    logits = torch.cat(rpn_output.logits, 1)
    assert 0 < losses["loss_objectness"].item() < F.softplus(logits).max().item()
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
