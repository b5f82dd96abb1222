"""One forward and backward pass of the fused kernels under NVIDIA's compute-sanitizer, where it is installed.

python -m benchmarks.gpu.memory_checker --results DIR --seconds S    writes memory_checker_gpu.json
"""

import os
import shutil
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu.runner import ROOT
from benchmarks.gpu.step_arguments import MORE_TO_DO, Clock, step_parser
from botformer.attention.triton_op import triton_attention
from botformer.benchmark.receipt import write_receipt

TOOLS = ("memcheck", "racecheck")
# (H, W, D, padded): tiles that reach beyond the map, one map of whole tiles
MAPS = ((7, 9, 16, True), (16, 32, 64, False), (14, 14, 128, False))


def main() -> int:
    parser = step_parser(__doc__)
    parser.add_argument("--passes", action="store_true", help="run the passes themselves, to be watched")
    given = parser.parse_args()
    if given.passes or given.quick:  # there is no GPU to be watched in a quick run
        run_passes(*((torch.device("cpu"), torch.float32) if given.quick else (torch.device("cuda"), torch.bfloat16)))
    if given.passes:
        return 0
    clock, rows = Clock(given.seconds), []
    checker = shutil.which("compute-sanitizer")
    for tool in TOOLS:
        if not checker:
            rows.append({"tool": tool, "result": "not checked: compute-sanitizer is not installed"})
        elif clock.left < 5:
            rows.append({"tool": tool, "result": "not checked: out of time"})
        else:
            rows.append(watched(checker, tool, clock))
    write_receipt(
        given.results / f"memory_checker_{'cpu_quick' if given.quick else 'gpu'}.json",
        "Memory accesses of the fused attention, watched",
        "compute-sanitizer python -m benchmarks.gpu.memory_checker --passes",
        rows,
        seed=0,
        notes=f"Forward and backward pass on maps (H, W, D, padded) {', '.join(map(str, MAPS))}.",
    )
    return MORE_TO_DO if any("out of time" in row["result"] for row in rows) else 0


def watched(checker: str, tool: str, clock: Clock) -> dict[str, Any]:
    command = [checker, "--tool", tool, "--print-limit", "5", sys.executable, "-m", "benchmarks.gpu.memory_checker"]
    command += ["--results", ".", "--seconds", "0", "--passes"]
    # Without PyTorch's cache every tensor is an allocation of its own, so that an access beyond it is seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=clock.left, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return {"tool": tool, "result": "not finished in time"}
    print(done.stdout, done.stderr)
    summary = [line.strip("= ") for line in done.stdout.splitlines() if "SUMMARY" in line]
    return {"tool": tool, "result": (summary or [f"no summary, exit status {done.returncode}"])[-1]}


def run_passes(device: torch.device, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for H, W, D, padded in MAPS if device.type == "cuda" else MAPS[:1]:
        q, k, v = torch.randn(1, H, W, 3, 2, D, device=device).to(dtype).permute(3, 0, 4, 1, 2, 5)
        tables = [torch.randn(2 * size - 1, D, device=device).to(dtype) for size in (H, W)]
        mask = None
        if padded:
            mask = torch.zeros(1, H, W, dtype=torch.bool, device=device)
            mask[:, H // 2 :] = True
        leaves = [x.detach().requires_grad_() for x in (q, k, v, *tables)]
        triton_attention(*leaves, mask).sum().backward()


if __name__ == "__main__":
    sys.exit(main())
