"""One forward and backward pass of the fused kernels under NVIDIA's compute-sanitizer, where it is installed.

python -m benchmarks.gpu.memory_checker --results DIR --seconds S    writes memory_checker_gpu.json
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu.runner import ROOT
from benchmarks.gpu.step_arguments import COMMAND, MORE_TO_DO, Clock, step_parser
from botformer.attention.triton_op import triton_attention
from botformer.benchmark.receipt import write_receipt

TOOLS = ("memcheck", "racecheck")
NOT_CHECKED, OUT_OF_TIME = "not checked: ", "was not finished in time"
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
    receipt = given.results / f"memory_checker_{'cpu_quick' if given.quick else 'gpu'}.json"
    before = json.loads(receipt.read_text(encoding="utf-8"))["figures"] if receipt.is_file() else []
    known = {row["tool"]: row for row in before if not row["result"].startswith(NOT_CHECKED)}
    checker = shutil.which("compute-sanitizer")
    if checker and len(known) < len(TOOLS):
        run_passes(torch.device("cuda"), torch.bfloat16)  # compiled by an unwatched process, which is far faster
    for number, tool in enumerate(TOOLS):
        if tool in known:
            rows.append(known[tool])
        elif not checker:
            rows.append({"tool": tool, "result": f"{NOT_CHECKED}compute-sanitizer is not installed"})
        else:
            rows.append(watched(checker, tool, max(clock.left / (len(TOOLS) - number), 1)))
    write_receipt(
        receipt,
        "Memory accesses of the fused attention, watched",
        COMMAND,
        rows,
        seed=0,
        notes=f"Forward and backward pass on maps (H, W, D, padded) {', '.join(map(str, MAPS))}.",
    )
    return MORE_TO_DO if any(row["result"].endswith(OUT_OF_TIME) for row in rows) else 0


def watched(checker: str, tool: str, seconds: float) -> dict[str, Any]:
    command = [checker, "--tool", tool, "--print-limit", "5", sys.executable, "-m", "benchmarks.gpu.memory_checker"]
    command += ["--results", ".", "--seconds", "0", "--passes"]
    # Without PyTorch's cache every tensor is an allocation of its own, so that an access beyond it is seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return {"tool": tool, "result": f"{NOT_CHECKED}it {OUT_OF_TIME}"}
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
