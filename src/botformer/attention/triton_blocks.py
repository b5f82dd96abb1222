"""Block sizes of the fused kernels: measured ones where `triton_tuning.json` has them, else rows for every card."""

import json
import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

logger = logging.getLogger(__name__)

Kernel = Literal["forward", "query_gradient", "key_gradient"]
Capability = tuple[int, int]
"""The compute capability of a GPU: (major, minor)."""


@dataclass(frozen=True)
class Blocks:
    """Queries and keys per tile, warps per program and stages of its software pipeline.

    Pooled, a tile is whole cells of four queries: a multiple of four, for the gradients of keys and values of 64.
    """

    queries: int
    keys: int
    warps: int
    stages: int


# (row of the capability, bytes per number, widest head of the row): forward, gradient of the queries, gradients of
# keys and values. Chosen so that no register spills on 64x64 and 32x32 maps
# (tests/attention/test_triton_compilation.py) and, for row 8, so that shared memory stays under the 99 KiB of 8.6, 8.9
# and 12.x. float32 products do not use the tensor cores and take their operands from registers, hence the small tiles.
ROWS = {
    (8, 2, 32): (Blocks(128, 64, 8, 3), Blocks(128, 64, 8, 2), Blocks(64, 64, 4, 2)),
    (8, 2, 64): (Blocks(128, 64, 8, 3), Blocks(128, 32, 8, 2), Blocks(64, 32, 4, 2)),
    (8, 2, 128): (Blocks(128, 32, 8, 3), Blocks(64, 32, 8, 2), Blocks(64, 64, 8, 2)),
    (9, 2, 32): (Blocks(128, 64, 8, 3), Blocks(128, 64, 8, 2), Blocks(64, 64, 4, 2)),
    (9, 2, 64): (Blocks(128, 64, 8, 3), Blocks(128, 32, 8, 2), Blocks(64, 128, 8, 2)),
    (9, 2, 128): (Blocks(128, 64, 8, 3), Blocks(128, 32, 8, 2), Blocks(32, 128, 8, 2)),
    (8, 4, 64): (Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 1)),
    (8, 4, 128): (Blocks(16, 32, 8, 2), Blocks(16, 16, 8, 2), Blocks(32, 32, 8, 1)),
    (9, 4, 64): (Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 1)),
    (9, 4, 128): (Blocks(16, 32, 8, 2), Blocks(32, 16, 8, 2), Blocks(32, 32, 8, 1)),
}
# Pooled, the gradients of keys and values take a tile of queries in four parts, one query per cell in each, so the tile
# is larger; the other two kernels take the rows above. Those for bfloat16 and heads of 128 spill nothing on the maps
# that were compiled: 14x14, 32x32, 40x40, 64x64, 84x134.
POOLED_KEY_GRADIENT = {
    (8, 2, 32): Blocks(64, 64, 4, 2),
    (8, 2, 64): Blocks(128, 32, 4, 2),
    (8, 2, 128): Blocks(128, 64, 8, 2),
    (9, 2, 32): Blocks(128, 64, 4, 2),
    (9, 2, 64): Blocks(128, 128, 8, 2),
    (9, 2, 128): Blocks(64, 128, 8, 2),
    (8, 4, 64): Blocks(64, 32, 8, 1),
    (8, 4, 128): Blocks(64, 16, 8, 1),
    (9, 4, 64): Blocks(64, 32, 8, 1),
    (9, 4, 128): Blocks(64, 32, 8, 2),
}
_COLUMNS: tuple[Kernel, ...] = ("forward", "query_gradient", "key_gradient")
# Written by the tuning of `make gpu`: {"9.0": {"card": ..., "rows": [...]}}, one row per kernel and case.
TUNING_FILE = Path(__file__).with_name("triton_tuning.json")
_announced: set[Capability] = set()


def find_blocks(
    kernel: Kernel,
    capability: Capability,
    dtype: str,
    head: int,
    size: tuple[int, int],
    pool: bool = False,
) -> Blocks:
    """The measured block sizes for the map that is nearest in number of positions, else those of `untuned_blocks`.

    Args:
        dtype: "bfloat16", "float16" or "float32".
        head: the width of queries, keys and values, the largest of them.
        size: (H, W) of the map.
        pool: whether the result is pooled inside the kernel.
    """
    rows = _tuned_rows(TUNING_FILE, capability)
    if rows is None and capability not in _announced:
        _announced.add(capability)
        logger.info(
            "fused attention: no tuned block sizes for compute capability %d.%d, so untuned ones run; "
            "`make gpu` in a clone of the repository measures them",
            *capability,
        )
    measured = _measured_blocks(TUNING_FILE, kernel, capability, dtype, row_width(dtype, head), size, pool)
    return measured or untuned_blocks(kernel, capability, dtype, head, pool)


@lru_cache(maxsize=1024)  # this is asked at every launch
def _measured_blocks(
    file: Path, kernel: Kernel, capability: Capability, dtype: str, row: int, size: tuple[int, int], pool: bool
) -> Blocks | None:
    """The measured block sizes of a row for the nearest map."""
    fitting = [
        one
        for one in _tuned_rows(file, capability) or ()
        if (one["kernel"], one["dtype"], one["head"], one["pool"]) == (kernel, dtype, row, pool)
    ]

    def distance(one: dict[str, Any]) -> tuple[bool, float]:
        other = one["height"], one["width"]
        return other != size, abs(math.log(math.prod(other) / math.prod(size)))

    return _blocks_of(min(fitting, key=distance)) if fitting else None


def untuned_blocks(kernel: Kernel, capability: Capability, dtype: str, head: int, pool: bool = False) -> Blocks:
    """Block sizes that were chosen from the compiler's report; `backends` refuses heads that are wider than all rows.

    Cards of 12.x have the small shared memory of 8.6, those of 10.x and 11.x that of 9.0.
    """
    row = 8 if capability[0] in (8, 12) else 9
    case = row, _bytes(dtype), row_width(dtype, head)
    return POOLED_KEY_GRADIENT[case] if pool and kernel == "key_gradient" else ROWS[case][_COLUMNS.index(kernel)]


def _blocks_of(row: dict[str, Any]) -> Blocks:
    return Blocks(row["queries"], row["keys"], row["warps"], row["stages"])


def row_width(dtype: str, head: int) -> int:
    """The head width of the row that serves a head: the narrowest that is wide enough."""
    return min(width for _, size, width in ROWS if size == _bytes(dtype) and width >= head)


def _bytes(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


@lru_cache
def _tuned_rows(file: Path, capability: Capability) -> tuple[dict[str, Any], ...] | None:
    """None where nothing was measured on such a card."""
    major, minor = capability
    measured = json.loads(file.read_text(encoding="utf-8")).get(f"{major}.{minor}")
    return None if measured is None else tuple(measured["rows"])
