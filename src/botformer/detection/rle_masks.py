"""Many masks of one image, decoded one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from botformer.detection.sliced_inference import mask_at
from botformer.rle import decode_counts


@dataclass(frozen=True)
class RLEMasks(Sequence[np.ndarray]):
    """Run-length encoded masks as bool arrays (h, w), each decoded when it is asked for: a thousand at once would not
    fit into memory.

    Args:
        encoded: masks of one image in COCO's run-length encoding, compressed or not.
        size: (h, w) of the arrays: the image's, divided by `factor` and rounded up.
        factor: the image is drawn smaller by this; the middle of each block of pixels stands for the block.
    """

    encoded: Sequence[Mapping[str, Any]]
    size: tuple[int, int]
    factor: int = 1

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: Any) -> Any:
        encoded = self.encoded[index]
        height, width = encoded["size"]
        mask = np.zeros(self.size, dtype=bool)
        rows, columns = (
            np.minimum(np.arange(drawn) * self.factor + self.factor // 2, longest - 1)
            for drawn, longest in zip(self.size, (height, width), strict=True)
        )
        # Pixels are numbered down the columns. Only columns that the mask touches are looked at.
        ends = np.cumsum(decode_counts(encoded["counts"]))
        if len(ends) > 1:
            first, last = ends[0] // height, (ends[1::2][-1] - 1) // height
            touched = np.flatnonzero((columns >= first) & (columns <= last))
            mask[:, touched] = mask_at(encoded, rows, columns[touched])
        return mask
