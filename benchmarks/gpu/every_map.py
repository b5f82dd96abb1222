"""The fused kernels against float64 on every map of 1 to 96 rows and columns: forward, five gradients, padded, pooled.

python -m benchmarks.gpu.every_map --results DIR --seconds S    writes every_map_gpu.json
"""

import contextlib
import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.step_arguments import COMMAND, MORE_TO_DO, Clock, leave_at_once, step_parser
from botformer.atomic_write import write_json
from botformer.attention.definition import attention_by_definition
from botformer.attention.operation import average_cells, relative_attention_2d
from botformer.benchmark.comparison import device_is_lost
from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

LONGEST = 96
QUICK_MAPS = ((2, 2), (1, 2))
D, DV = 16, 24
MAPS_AT_ONCE = 4
NAMES = ("out", "d_q", "d_k", "d_v", "d_rel_height", "d_rel_width")
TIMES_PLAIN = 4
"""Allowed: this many times the largest error of the plain form at the same precision. A wrong position is far more."""

Map = tuple[int, int]


def main() -> int:
    given = step_parser(__doc__).parse_args()
    clock = Clock(given.seconds)
    wanted = QUICK_MAPS if given.quick else tuple(product(range(1, LONGEST + 1), repeat=2))
    state = given.results / "logs/every_map.json"
    state.parent.mkdir(parents=True, exist_ok=True)
    checked: dict[str, list[str]] = json.loads(state.read_text()) if state.is_file() else {}
    maps = [size for size in wanted if _name(size) not in checked]
    random.Random(0).shuffle(maps)  # whatever time allows is a fair sample
    parts = [maps[i : i + MAPS_AT_ONCE] for i in range(0, len(maps), MAPS_AT_ONCE)]
    processes = 1 if given.quick else cores()  # each compiles most of its time, on one core
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = [pool.submit(problems_of, part, "cpu" if given.quick else "cuda") for part in parts]
        with contextlib.suppress(TimeoutError, BrokenProcessPool):
            for future in as_completed(running, timeout=max(clock.left, 1)):
                checked |= future.result()
                write_json(state, checked, indent=None)
        _write(given.results, checked, len(wanted), given.quick)
        if len(checked) < len(wanted):
            leave_at_once(MORE_TO_DO)  # what still runs is not waited for
    return 0


_lost: set[str] = set()
"""Devices that this process cannot use any more."""


def problems_of(maps: list[Map], device: str) -> dict[str, list[str]]:
    """Map -> what is wrong there. A map is missing where memory ran out, or where a CUDA error came before it."""
    found: dict[str, list[str]] = {}
    for size in maps:
        if device in _lost:
            break
        try:
            found[_name(size)] = wrong_on_map(*size, device)
        except torch.OutOfMemoryError:
            continue
        except Exception as error:
            found[_name(size)] = [f"{type(error).__name__}: {error}".splitlines()[0][:200]]
            if device_is_lost(torch.device(device), error):
                _lost.add(device)
        finally:
            if device == "cuda" and device not in _lost:
                torch.cuda.empty_cache()  # the other processes need it
    return found


def wrong_on_map(H: int, W: int, device: str) -> list[str]:
    """What is wrong on an H x W map, plain, with padded keys, and pooled where it is even."""
    torch.manual_seed(1000 * H + W)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    shapes = [(1, 2, H, W, D), (1, 2, H, W, D), (1, 2, H, W, DV), (2 * H - 1, D), (2 * W - 1, D)]
    inputs = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    mask = torch.zeros(1, H, W, dtype=torch.bool, device=device)
    mask[:, H // 2 + 1 :] = True
    # A table of one entry shifts all logits of a query alike, and a single key has all the weight: these gradients are
    # zero but for rounding.
    zero = {"d_rel_height": H == 1, "d_rel_width": W == 1, "d_q": H * W == 1, "d_k": H * W == 1}
    found = []
    for label, padding, pool in (("", None, False), ("padded: ", mask, False), ("pooled: ", None, True)):
        if pool and (H % 2 or W % 2):
            continue
        results = _results(inputs, dtype, padding, pool, fused=True)
        exact = _results(inputs, torch.float64, padding, pool, fused=False)
        plain = _results(inputs, dtype, padding, pool, fused=False)
        for name, result, judge, other in zip(NAMES, results, exact, plain, strict=True):
            if zero.get(name):
                continue
            error, by_rounding = (float((x.double() - judge).abs().max()) for x in (result, other))
            allowed = TIMES_PLAIN * by_rounding + torch.finfo(dtype).eps * float(judge.abs().max())
            if not error <= allowed:
                found.append(f"{label}{name} is off by {error:.2g}, allowed are {allowed:.2g}")
    return found


def _results(inputs: list[Tensor], dtype: torch.dtype, padding: Tensor | None, pool: bool, fused: bool) -> list[Tensor]:
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    if fused:
        out = relative_attention_2d(*leaves, padding_mask=padding, pool=pool, backend="triton")
    else:
        out = attention_by_definition(*leaves, padding)
        out = average_cells(out) if pool else out
    upstream = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=torch.float64).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(inputs[0].dtype).to(dtype))]


def _write(results: Path, checked: dict[str, list[str]], maps: int, quick: bool) -> None:
    wrong = {name: problems for name, problems in checked.items() if problems}
    rows: list[dict[str, Any]] = [
        {"maps": maps, "checked": len(checked), "wrong": len(wrong), "first": ""},
        *({"maps": name, "wrong": len(problems), "first": problems[0]} for name, problems in [*wrong.items()][:20]),
    ]
    write_receipt(
        results / f"every_map_{'cpu_quick' if quick else 'gpu'}.json",
        "The fused attention on two tiny maps against float64"
        if quick
        else f"The fused attention on every map of 1 to {LONGEST} rows and columns against float64",
        COMMAND,
        rows,
        notes=f"Head width {D}, values {DV} wide; forward and five gradients; also with padded keys, and pooled where "
        f"the map is even. Wrong: further off than {TIMES_PLAIN} times the plain form at the same precision. "
        "Maps in random order.",
    )


def _name(size: Map) -> str:
    return f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    sys.exit(main())
