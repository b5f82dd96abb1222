"""What the compiler says of candidate block sizes on a GPU of capability 9.0, without one.

    PYTHONPATH=src:. python -m benchmarks.gpu.candidate_report [--map 64x64] [--head 128] [--dtype bfloat16]

One line per kernel and candidate: registers per thread, bytes of them that spilled to memory, KiB of shared memory,
programs that a multiprocessor holds at once, and whether the matrix products are those of the tensor cores.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.gpu.candidates import CANDIDATES
from botformer.attention.channels_last import empty_channels_last
from botformer.attention.triton_blocks import Blocks, Kernel
from botformer.attention.triton_launch import Launch, backward_launches, forward_launch
from tests.attention.test_triton_compilation import CUOBJDUMP, KIBIBYTE, compile_for

CAPABILITY = (9, 0)
# Of one multiprocessor.
REGISTERS, SHARED, THREADS = 65536, 228 * KIBIBYTE, 2048
LARGEST_SHARED, RESERVED_SHARED = 227 * KIBIBYTE, KIBIBYTE  # of one program


def launch_of(kernel: Kernel, shape: tuple[int, ...], dtype: torch.dtype, blocks: Blocks) -> Launch:
    """On tensors without memory, (B, N, H, W, D)."""
    B, N, H, W, D = shape

    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    q, k, v = empty(B, H, W, 3, N, D).permute(3, 0, 4, 1, 2, 5)
    out, largest, normalizer = empty_channels_last(v), *empty(2, B, N, H * W, dtype=torch.float32)
    inputs = q, k, v, empty(2 * H - 1, D), empty(2 * W - 1, D), None, CAPABILITY, out, largest, normalizer
    if kernel == "forward":
        return forward_launch(*inputs, blocks=blocks)
    gradients = (empty_channels_last(v) for _ in range(4))
    launches, _ = backward_launches(*inputs, *gradients, query_blocks=blocks, key_blocks=blocks)
    return launches[0 if kernel == "query_gradient" else 1]


def report(launch: Launch) -> dict[str, Any]:
    compiled = compile_for(launch, 10 * CAPABILITY[0] + CAPABILITY[1])
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        command = [CUOBJDUMP, "--dump-resource-usage", binary]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = map(int, re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", text).groups())
    shared, threads = compiled.metadata.shared, 32 * compiled.metadata.num_warps
    fits = shared <= LARGEST_SHARED
    held = min(REGISTERS // (registers * threads), SHARED // (shared + RESERVED_SHARED), THREADS // threads)
    return {
        **dict(registers=registers, spilled=stack + local, shared=round(shared / KIBIBYTE)),
        **dict(programs=held if fits else 0, tensor_cores="wgmma.mma_async" in compiled.asm["ptx"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="64x64", help="H x W")
    parser.add_argument("--head", type=int, default=128)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    H, W = map(int, arguments.map.split("x"))
    dtype = getattr(torch, arguments.dtype)
    for kernel in get_args(Kernel):
        for blocks in CANDIDATES[dtype.itemsize, arguments.head][kernel]:
            launch = launch_of(kernel, (1, 4, H, W, arguments.head), dtype, blocks)
            if launch is not None:
                said = ", ".join(f"{name} {value}" for name, value in report(launch).items())
                print(f"{kernel:14} {blocks}: {said}", flush=True)


if __name__ == "__main__":
    main()
