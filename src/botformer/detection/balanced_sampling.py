"""A random sample of foreground and background with at most a given fraction of foreground.

In the place of `BalancedPositiveNegativeSampler` of `torchvision.models.detection._utils`, a private module: the same
random draws in the same order, so that a seed gives the same sample.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = Sequence[torch.Generator] | None
"""One per image of a batch, from which all of its draws come; None: torch's own for all."""


def balanced_sample(
    positive: Tensor, negative: Tensor, samples: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Bool masks (n,) of what may be chosen -> bool masks (n,) of what is.

    At most `samples * positive_fraction` positives, and negatives to fill up `samples`, if there are as many.
    `generator` is of the device of the masks; None: torch's own.
    """
    positives, negatives = torch.where(positive)[0], torch.where(negative)[0]
    positive_count = min(len(positives), int(samples * positive_fraction))
    negative_count = min(len(negatives), samples - positive_count)
    return (
        _some(positive, positives, positive_count, generator),
        _some(negative, negatives, negative_count, generator),
    )


def _some(mask: Tensor, places: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """A mask like the given one with `count` of the places set, drawn without replacement."""
    order = torch.randperm(len(places), generator=generator, device=places.device)[:count]
    chosen = torch.zeros_like(mask)
    chosen[places[order]] = True
    return chosen
