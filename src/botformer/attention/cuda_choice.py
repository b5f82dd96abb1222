"""Which backend `auto` takes on a CUDA device: the fastest in `cuda_backends.json`, where the card was measured."""

import json
import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

# Written by `make gpu`: {"9.0": {"card": ..., "rows": [{"dtype", "head", "height", "width", "pass", "backend"}, ...]}}.
CHOICE_FILE = Path(__file__).with_name("cuda_backends.json")

Steps = tuple[tuple[float, str], ...]
"""(largest number of positions, backend) in ascending order; the last has no limit."""


@lru_cache
def fastest_by_positions(capability: tuple[int, int], dtype: str, head: int, backward: bool) -> Steps:
    """The fastest backends of a card by size of the map, () where nothing like it was measured.

    Limits, not the nearest map: they make a compiled graph depend on a comparison of H * W instead of on H and W.

    Args:
        dtype: "bfloat16", "float16" or "float32"; float16 takes what was measured in bfloat16 if nothing else was.
        head: the width of queries and keys. The measured width that is nearest from above, else the widest, speaks.
        backward: whether gradients will be wanted.
    """
    major, minor = capability
    rows = json.loads(CHOICE_FILE.read_text(encoding="utf-8")).get(f"{major}.{minor}", {"rows": []})["rows"]
    wanted = "both" if backward else "forward"
    for measured in (dtype, *(["bfloat16"] if dtype == "float16" else [])):
        fitting = [row for row in rows if (row["dtype"], row["pass"]) == (measured, wanted)]
        if fitting:
            break
    else:
        return ()
    heads = sorted({row["head"] for row in fitting})
    served = next((width for width in heads if width >= head), heads[-1])
    by_positions = sorted((row["height"] * row["width"], row["backend"]) for row in fitting if row["head"] == served)
    limits = [math.sqrt(smaller * larger) for (smaller, _), (larger, _) in pairwise(by_positions)]
    return tuple(zip([*limits, math.inf], (backend for _, backend in by_positions), strict=True))
