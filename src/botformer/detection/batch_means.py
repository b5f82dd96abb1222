"""Means over what a batch holds, when several processes compute a part of it each.

A loss that is a mean over anchors or RoIs has another number of them in each process. The mean over all of them is not
the mean of the processes' means.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """Those that compute one batch together, and which of them this one is."""

    count: int = 1
    index: int = 0

    def total(self, number: int, device: torch.device) -> int:
        """The sum over all processes, which must all ask for it."""
        return number if self.count == 1 else int(self._sum(torch.tensor(number, device=device)))

    def weights_of_means(self, counts: Tensor, images: int) -> Tensor:
        """Things in each of k means, of the `images` of this process -> (k,) factors for these means.

        The processes' means times these factors, averaged with the images of each as weights, are the means over the
        things of all of them: n things of i images count (n / i) / (N / I). All must ask for it. 1 for one process.
        """
        counts = counts.float()
        if self.count == 1:
            return torch.ones_like(counts)
        own = torch.cat([counts, counts.new_full((1,), images)])
        *_, all_images = everywhere = self._sum(own.clone())
        return counts * all_images / (images * everywhere[:-1].clamp(min=1))

    def _sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values


ONE_PROCESS = Processes()


def all_processes() -> Processes:
    """Of this program, as torch.distributed knows them."""
    if not (dist.is_available() and dist.is_initialized()):
        return ONE_PROCESS
    return Processes(dist.get_world_size(), dist.get_rank())
