"""Block sizes that the tuning tries, per (bytes per number, widest head) and kernel.

Chosen from the compiler's report for capability 9.0 (Triton 3.6; `candidate_report` prints it) over a grid of 32 to 128
queries (float32: 16 to 64), 16 to 128 keys, four or eight warps and one to four stages: no spilled registers on a 64x64
map (float32: at most 16 bytes), no more shared memory than there is, and, with two bytes per number, products on the
tensor cores. Of near-equals the one stays that leaves room for more programs per multiprocessor. Small tiles are here
for small and odd maps, whose masks need registers.
"""

from botformer.attention.triton_blocks import Blocks, Kernel

CANDIDATES: dict[tuple[int, int], dict[Kernel, tuple[Blocks, ...]]] = {
    (2, 128): {
        "forward": (
            Blocks(128, 64, 8, 3),
            Blocks(128, 64, 8, 2),
            Blocks(64, 64, 4, 2),
            Blocks(64, 64, 4, 3),
            Blocks(128, 32, 8, 3),
            Blocks(64, 32, 4, 3),
            Blocks(64, 32, 8, 2),
            Blocks(64, 16, 4, 3),
        ),
        "query_gradient": (
            Blocks(128, 32, 8, 2),
            Blocks(128, 32, 8, 3),
            Blocks(64, 32, 8, 2),
            Blocks(64, 32, 8, 3),
            Blocks(64, 32, 4, 1),
            Blocks(128, 16, 8, 2),
            Blocks(64, 16, 8, 2),
            Blocks(64, 16, 4, 1),
        ),
        "key_gradient": (
            Blocks(32, 128, 8, 2),
            Blocks(32, 128, 8, 3),
            Blocks(64, 64, 8, 2),
            Blocks(64, 64, 8, 3),
            Blocks(32, 64, 8, 2),
            Blocks(32, 64, 8, 3),
            Blocks(32, 64, 4, 1),
        ),
    },
    (2, 64): {
        "forward": (
            Blocks(128, 64, 8, 3),
            Blocks(64, 64, 4, 2),
            Blocks(128, 128, 8, 2),
            Blocks(64, 32, 4, 3),
        ),
        "query_gradient": (
            Blocks(128, 32, 8, 2),
            Blocks(64, 32, 4, 2),
            Blocks(64, 64, 8, 2),
            Blocks(64, 32, 8, 3),
        ),
        "key_gradient": (
            Blocks(64, 128, 8, 2),
            Blocks(64, 64, 4, 2),
            Blocks(64, 64, 4, 3),
            Blocks(64, 64, 8, 2),
        ),
    },
    (4, 128): {
        "forward": (Blocks(16, 32, 8, 2), Blocks(32, 32, 8, 2), Blocks(16, 16, 8, 1)),
        "query_gradient": (Blocks(32, 16, 8, 2), Blocks(16, 32, 8, 2), Blocks(16, 16, 8, 2)),
        "key_gradient": (Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 2), Blocks(32, 16, 8, 2)),
    },
    (4, 64): {
        "forward": (Blocks(64, 32, 8, 2), Blocks(32, 16, 8, 2), Blocks(32, 32, 8, 1)),
        "query_gradient": (Blocks(32, 32, 8, 2), Blocks(16, 32, 8, 2), Blocks(32, 16, 8, 2)),
        "key_gradient": (Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 2), Blocks(64, 32, 8, 2)),
    },
}
# Pooled, a tile of queries must be a multiple of 64 here: a quarter of it is a side of a product. The last two spill a
# little, and have the wider products.
POOLED_KEY_GRADIENT: dict[tuple[int, int], tuple[Blocks, ...]] = {
    (2, 128): (
        Blocks(64, 128, 8, 2),
        Blocks(64, 64, 8, 2),
        Blocks(64, 64, 8, 3),
        Blocks(128, 64, 8, 2),
        Blocks(128, 128, 8, 2),
    ),
    (2, 64): (Blocks(128, 128, 8, 2), Blocks(64, 128, 8, 2), Blocks(64, 64, 4, 2)),
    (4, 128): (Blocks(64, 32, 8, 2),),
    (4, 64): (Blocks(64, 32, 8, 1),),
}
