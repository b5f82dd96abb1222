import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from botformer.detection import Settings
from botformer.detection.roi_heads.box_head import BoxHead
from botformer.detection.roi_heads.roi_align import MultiScaleRoIAlign
from botformer.detection.roi_heads.sampling import SampledProposals, sample_proposals
from botformer.detection.targets import Targets

SETTINGS = Settings(fpn_channels=4, box_channels=8, levels=("p2",), score_threshold=0.2, max_detections=12)


def branch(num_classes=3):
    torch.manual_seed(0)
    return BoxHead(num_classes, MultiScaleRoIAlign([4], SETTINGS), SETTINGS)


def boxes(count):
    corner = torch.rand(count, 2) * 40
    return torch.cat([corner, corner + 5 + torch.rand(count, 2) * 30], 1)


def test_losses_on_the_same_sample_against_torchvision_and_by_hand(monkeypatch):
    box_branch = branch()
    objects = [Targets(boxes(3), torch.tensor([2, 1, 3])), Targets(boxes(1), torch.tensor([1]))]
    samples = [
        SampledProposals(boxes(6), torch.tensor([2, 0, 1, 3, 0, 0]), torch.tensor([0, 0, 1, 2, 0, 0])),
        SampledProposals(boxes(4), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 0, 0])),
    ]
    logits, deltas = torch.randn(10, 4), torch.randn(10, 4, 4)
    monkeypatch.setattr(BoxHead, "forward", lambda *_: (logits, deltas))
    losses = box_branch.losses({}, samples, objects)

    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    wanted = [
        coder.encode_single(o.boxes_xyxy[s.matched_idx], s.proposals_xyxy)
        for s, o in zip(samples, objects, strict=True)
    ]
    labels = [sample.labels for sample in samples]
    classification, _ = fastrcnn_loss(logits, deltas.flatten(1), labels, wanted)
    torch.testing.assert_close(losses["loss_classifier"], classification)

    values = []
    for index, (label, want) in enumerate(zip(torch.cat(labels).tolist(), torch.cat(wanted).tolist(), strict=True)):
        if label > 0:
            for said, right in zip(deltas[index, label].tolist(), want, strict=True):
                distance = abs(said - right)
                values.append(distance**2 / 2 if distance <= 1 else distance - 0.5)
    assert len(values) == 5 * 4
    torch.testing.assert_close(losses["loss_box_reg"], torch.tensor(sum(values) / len(values)))


def test_detections_are_torchvisions_for_the_same_scores(monkeypatch):
    box_branch = branch().eval()
    torch.manual_seed(1)
    proposals, sizes = [boxes(50), boxes(30)], [(64, 64), (40, 48)]
    logits, deltas = 2 * torch.randn(80, 4), torch.randn(80, 4, 4)
    monkeypatch.setattr(BoxHead, "forward", lambda *_: (logits, deltas))
    found = box_branch.detect({}, proposals, sizes)
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, 0.2, 0.5, 12)
    expected = heads.postprocess_detections(logits, deltas.flatten(1), proposals, sizes)
    for ours, want_boxes, want_scores, want_labels in zip(found, *expected, strict=True):
        assert len(ours.scores) == 12
        torch.testing.assert_close(ours.boxes_xyxy, want_boxes)
        torch.testing.assert_close(ours.scores, want_scores)
        assert torch.equal(ours.labels, want_labels)


def test_a_quarter_of_the_sample_at_most_are_objects_and_their_own_boxes_are_among_them():
    torch.manual_seed(0)
    settings = Settings(roi_samples=16)
    image = Targets(torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60]]), torch.tensor([3, 1]))
    far = torch.tensor([[25.0, 0, 35, 10]]).repeat(30, 1)
    (sample,) = sample_proposals([far], [image], settings)
    assert sample.labels.sort(descending=True).values.tolist() == [3, 1] + [0] * 14
    chosen = sample.foreground()
    torch.testing.assert_close(chosen.proposals_xyxy, image.boxes_xyxy[chosen.matched_idx])

    near = (image.boxes_xyxy[0] + torch.rand(30, 4)).clamp(min=0)
    (sample,) = sample_proposals([torch.cat([far, near])], [image], settings)
    assert len(sample.labels) == 16
    assert (sample.labels > 0).sum() == 4
    assert torch.equal(sample.labels[sample.labels > 0], image.labels[sample.foreground().matched_idx])
