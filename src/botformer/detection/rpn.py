"""Where something may be: the region proposal network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from botformer.batch_norm import make_norm
from botformer.detection.anchors import Anchors
from botformer.detection.balanced_sampling import Generators, balanced_sample
from botformer.detection.batch_means import ONE_PROCESS, Processes
from botformer.detection.box_coder import BoxCoder
from botformer.detection.float_types import at_least_float32
from botformer.detection.matcher import BELOW_LOW, match
from botformer.detection.stable_order import stable_nms, stable_topk
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings

SMALLEST_PX = 1e-3
"""A proposal thinner than this has no logarithm to learn from."""


@dataclass(frozen=True)
class RPNOutput:
    """What the network predicts for every anchor; lists with one entry per level of A anchors."""

    logits: list[Tensor]
    """(B, A): is there an object?"""
    deltas: list[Tensor]
    """(B, A, 4): offsets from the anchor to the object's box, as `BoxCoder` encodes them."""
    anchors_xyxy: list[Tensor]
    """(A, 4)."""


class RegionProposalNetwork(nn.Module):
    """Pyramid -> `RPNOutput`; from those come the proposals and the losses.

    One 3x3 convolution and two 1x1 are shared by all levels; each level has its own BatchNorm between them.
    """

    def __init__(self, levels: tuple[str, ...], strides: list[int], settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        width, ratios = settings.fpn_channels, len(settings.anchor_ratios)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.ModuleDict({level: make_norm(width, settings) for level in levels})
        self.logits = nn.Conv2d(width, ratios, 1)
        self.deltas = nn.Conv2d(width, 4 * ratios, 1)
        for module in (self.conv, self.logits, self.deltas):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        self.anchors = Anchors(strides, settings)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(self, pyramid: dict[str, Tensor]) -> RPNOutput:
        logits, deltas = [], []
        for level, feature_map in pyramid.items():
            x = F.relu(self.norm[level](self.conv(feature_map)))
            dtype = at_least_float32(x)
            # (B, ratios * k, H, W) -> (B, H * W * ratios, k): the order of the anchors.
            logits.append(self.logits(x).permute(0, 2, 3, 1).flatten(1).to(dtype))
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4).to(dtype))
        return RPNOutput(logits, deltas, self.anchors(list(pyramid.values())))

    @torch.no_grad()
    def propose(self, rpn_output: RPNOutput, sizes: list[tuple[int, int]], candidates: int) -> list[Tensor]:
        """(n, 4) boxes xyxy per image, best first, clipped to its own (height, width): nothing lies in the padding."""
        best_of_level = [stable_topk(logits, min(candidates, logits.shape[1])) for logits in rpn_output.logits]
        proposals = []
        for image, size in enumerate(sizes):
            boxes, scores, levels = [], [], []
            for level, anchors in enumerate(rpn_output.anchors_xyxy):
                score, best = (both[image] for both in best_of_level[level])
                boxes.append(self.coder.decode(rpn_output.deltas[level][image, best], anchors[best]))
                scores.append(score)
                levels.append(torch.full_like(best, level))
            box, score, level = clip_boxes_to_image(torch.cat(boxes), size), torch.cat(scores), torch.cat(levels)
            wide = remove_small_boxes(box, SMALLEST_PX)
            box, score, level = box[wide], score[wide], level[wide]
            kept = stable_nms(box, score, level, self.settings.rpn_nms_iou)
            proposals.append(box[kept[: self.settings.rpn_post_nms_top_n]])
        return proposals

    def losses(
        self,
        rpn_output: RPNOutput,
        targets: list[Targets],
        generators: Generators = None,
        processes: Processes = ONE_PROCESS,
    ) -> dict[str, Tensor]:
        """`loss_objectness`, cross-entropy over the sampled anchors, and `loss_rpn_box_reg`.

        The box loss is the code base's: the mean Huber loss of the positive anchors' coordinates on each level, summed
        over levels; a level without any adds nothing.
        """
        settings = self.settings
        anchors = torch.cat(rpn_output.anchors_xyxy)
        matched_idxs = [self._assign(anchors, image) for image in targets]
        positive, negative = (
            torch.stack(chosen)
            for chosen in zip(
                *(
                    self._sample(matched_idx, generator)
                    for matched_idx, generator in zip(matched_idxs, generators or [None] * len(targets), strict=True)
                ),
                strict=True,
            )
        )
        logits = torch.cat(rpn_output.logits, 1)
        sampled = positive | negative
        cross_entropy = F.binary_cross_entropy_with_logits(
            logits[sampled], positive[sampled].to(logits), reduction="sum"
        )

        box_loss = torch.stack(
            [deltas.sum() * 0 for deltas in rpn_output.deltas]
        ).sum()  # in the graph without objects too
        start = 0
        of_level = positive.split([len(anchors) for anchors in rpn_output.anchors_xyxy], 1)
        weights = processes.weights_of_means(torch.stack([here.sum() for here in of_level]), len(targets))
        for level_anchors, deltas, here, weight in zip(
            rpn_output.anchors_xyxy, rpn_output.deltas, of_level, weights, strict=True
        ):
            if here.any():
                wanted = [
                    self.coder.encode(
                        image.boxes_xyxy[matched_idx[start : start + len(level_anchors)][chosen]], level_anchors[chosen]
                    )
                    for image, matched_idx, chosen in zip(targets, matched_idxs, here, strict=True)
                ]
                box_loss = box_loss + weight * F.huber_loss(
                    deltas[here], torch.cat(wanted), delta=settings.rpn_huber_delta
                )
            start += len(level_anchors)
        return {
            "loss_objectness": cross_entropy / (len(targets) * settings.rpn_samples),
            "loss_rpn_box_reg": box_loss,
        }

    def _assign(self, anchors: Tensor, image: Targets) -> Tensor:
        settings = self.settings
        return match(
            anchors,
            image.boxes_xyxy,
            settings.rpn_positive_iou,
            settings.rpn_negative_iou,
            allow_low_quality_matches=True,
        )

    def _sample(self, matched_idx: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Bool (A,): the anchors of objects, and those of the background, that the losses look at."""
        settings = self.settings
        return balanced_sample(
            matched_idx >= 0, matched_idx == BELOW_LOW, settings.rpn_samples, settings.rpn_positive_fraction, generator
        )
