"""Block sizes of the fused kernels: every candidate is checked against float64, then timed; winners become a table.

python -m benchmarks.gpu.tuning --results DIR --seconds S    writes tuning_gpu.json and triton_tuning.json

One case is a dtype, a head width and a map that the paper's networks meet; each of the three kernels is tuned alone.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.gpu import tables
from benchmarks.gpu.candidates import CANDIDATES, POOLED_KEY_GRADIENT
from benchmarks.gpu.step_arguments import COMMAND, MORE_TO_DO, Clock, leave_at_once, step_parser
from botformer.atomic_write import write_json
from botformer.attention.channels_last import empty_channels_last
from botformer.attention.definition import attention_by_definition
from botformer.attention.operation import average_cells
from botformer.attention.triton_blocks import Blocks, Capability, Kernel, row_width, untuned_blocks
from botformer.benchmark.comparison import device_is_lost
from botformer.benchmark.receipt import write_receipt
from botformer.benchmark.timing import Replay, take_turns
from botformer.environment import cores, hardware, versions

KERNELS: tuple[Kernel, ...] = get_args(Kernel)
LOGITS_AT_ONCE = 2**27  # of the float64 reference: a gibibyte
ROUNDS = 5
LAUNCHES_PER_GRAPH = 10
COMPILERS = 12
WORTH_IT = 0.98
"""A winner must take at most this fraction of the untuned time; the difference between runs is not less."""
CRASHED = "the process died while it ran"


@dataclass(frozen=True)
class Case:
    dtype: str
    head: int
    height: int
    width: int
    batches: tuple[int, ...]
    """Timed with each; the geometric mean of the ratios to the untuned time decides."""
    pool: bool = False
    heads: int = 4

    @property
    def labels(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "head": self.head, "map": f"{self.height}x{self.width}", "pool": self.pool}


def _cases(dtype: str, head: int, maps: tuple[tuple[int, int, tuple[int, ...]], ...], pool: bool = False) -> list[Case]:
    return [Case(dtype, head, *one, pool) for one in maps]


# The maps of c5 at 224 to 1280 px, and at COCO's 1344x2144. The most important first: time may run out.
_MAPS = (
    (64, 64, (1, 8)),
    (14, 14, (64,)),
    (32, 32, (8,)),
    (40, 40, (8,)),
    (80, 80, (1, 4)),
    (20, 20, (32,)),
    (24, 24, (16,)),
    (28, 28, (16,)),
    (84, 134, (1,)),
)
# Pooled maps are those of c5's first block where it has stride 2.
CASES = (
    *_cases("bfloat16", 128, _MAPS[:3]),
    *_cases("bfloat16", 128, (_MAPS[0], _MAPS[1], _MAPS[4]), pool=True),
    *_cases("bfloat16", 128, _MAPS[3:]),
    *_cases("float16", 128, (_MAPS[0], _MAPS[2], _MAPS[1])),
    *_cases("bfloat16", 64, (_MAPS[0], _MAPS[2], _MAPS[1])),
    *_cases("float32", 128, (_MAPS[2], _MAPS[1])),
)
QUICK = (Case("float32", 16, 2, 4, (1,), heads=1), Case("float32", 16, 2, 4, (1,), pool=True, heads=1))


def main() -> int:
    given = step_parser(__doc__).parse_args()
    clock = Clock(given.seconds)
    tuner = Tuner(given.results, torch.device("cpu" if given.quick else "cuda"), given.quick)
    cases = QUICK if given.quick else CASES
    searches = [search for case in cases for search in searches_of(case, given.quick)]
    due = [search for search in searches if not tuner.row(search)]
    with ProcessPoolExecutor(max(1, min(COMPILERS, cores() - 1)), get_context("spawn")) as pool:
        compiled = {} if given.quick else {search: compile_all(pool, search) for search in due}
        for case in dict.fromkeys(search.case for search in due):
            of_case = [search for search in due if search.case == case]
            # What cannot be compiled is found again, and named, below.
            wait([future for search in of_case for future in compiled.get(search, ())], max(clock.left, 0))
            tuner.tune(case, of_case, clock)
            if clock.left < 0:
                leave_at_once(MORE_TO_DO)  # what still compiles is not waited for
    return 0


@dataclass(frozen=True)
class Search:
    """For the block sizes of one kernel in one case."""

    case: Case
    kernel: Kernel
    candidates: tuple[Blocks, ...]

    @property
    def labels(self) -> dict[str, Any]:
        return self.case.labels | {"kernel": self.kernel}


def searches_of(case: Case, quick: bool = False) -> list[Search]:
    """The searches of a case. A quick one tries one candidate."""
    row = 4 if case.dtype == "float32" else 2, row_width(case.dtype, case.head)
    searches = []
    for kernel in KERNELS:
        pooled = case.pool and kernel == "key_gradient"
        found = POOLED_KEY_GRADIENT[row] if pooled else CANDIDATES[row][kernel]
        searches.append(Search(case, kernel, found[:1] if quick else found))
    return searches


class Tuner:
    """Keeps what it finds in a receipt and in the package's table, and every candidate's figures in a log."""

    def __init__(self, results: Path, device: torch.device, quick: bool) -> None:
        self.results, self.device, self.quick = results, device, quick
        self.receipt = results / f"tuning_{'cpu_quick' if quick else 'gpu'}.json"
        self.log, self.running = results / "logs/tuning_candidates.json", results / "logs/tuning_running.json"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = _figures(self.receipt)
        self.tried: list[dict[str, Any]] = json.loads(self.log.read_text()) if self.log.is_file() else []
        if self.running.is_file():  # the last process ended with this one
            self.tried.append(json.loads(self.running.read_text()) | {"problem": CRASHED})
            self._save_log()

    def tune(self, case: Case, searches: list[Search], clock: Clock) -> None:
        if clock.left < 0:
            return
        torch.manual_seed(0)
        problems = [Problem(case, batch, self.device) for batch in case.batches]
        exact, plain = (problems[0].by_definition(dtype) for dtype in (torch.float64, getattr(torch, case.dtype)))
        for search in searches:
            if clock.left < 0:
                return
            base = untuned_blocks(search.kernel, self._capability(), case.dtype, case.head, case.pool)
            right = [
                blocks
                for blocks in dict.fromkeys((base, *search.candidates))
                if self._is_right(search, blocks, problems[0], exact, plain)
            ]
            if base in right:
                self._time(search, base, right, problems)
            else:
                self._add_row(search, {"problem": self._entry_of(search, base)["problem"]})
        del problems
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def row(self, search: Search) -> dict[str, Any] | None:
        """Of the receipt, None where the search is still to be done."""
        return next((row for row in self.rows if search.labels.items() <= row.items()), None)

    def _is_right(self, search: Search, blocks: Blocks, problem: "Problem", exact: "Results", plain: "Results") -> bool:
        if earlier := self._entry_of(search, blocks):
            return not earlier["problem"]
        entry = search.labels | asdict(blocks)
        write_json(self.running, entry)
        poisoned = False
        try:
            entry["problem"] = wrong(problem.by_kernels({search.kernel: blocks}), exact, plain)
        except Exception as error:
            entry["problem"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            poisoned = device_is_lost(self.device, error)
        self.tried.append(entry)
        self._save_log()
        if poisoned:  # nothing else runs in this process any more
            sys.exit(MORE_TO_DO)
        return not entry["problem"]

    def _time(self, search: Search, base: Blocks, right: list[Blocks], problems: list["Problem"]) -> None:
        logs, base_ms = dict.fromkeys(right, 0.0), 0.0
        for problem in problems:
            calls = {str(i): problem.launch(search.kernel, blocks) for i, blocks in enumerate(right)}
            times = take_turns(calls, 1 if self.quick else ROUNDS, self.device)
            ms = {blocks: statistics.median(times[str(i)]) for i, blocks in enumerate(right)}
            base_ms = base_ms or ms[base] / (1 if self.device.type == "cpu" else LAUNCHES_PER_GRAPH)
            for blocks in right:
                logs[blocks] += math.log(ms[blocks] / ms[base]) / len(problems)
        ratios = {blocks: round(math.exp(value), 3) for blocks, value in logs.items()}
        for blocks, ratio in ratios.items():
            self._entry_of(search, blocks)["time / before"] = ratio
        best = min(ratios, key=lambda blocks: ratios[blocks])
        winner = best if ratios[best] <= WORTH_IT else base
        tried = [one for one in self.tried if search.labels.items() <= one.items()]
        figures = {"batch": problems[0].batch, "before_ms": round(base_ms, 4), "time / before": ratios[winner]}
        self._add_row(search, figures | asdict(winner) | {"tried": len(tried), "right": len(right)})
        self._store(search, winner)

    def _store(self, search: Search, winner: Blocks) -> None:
        """Into the package's table."""
        key, case = "{}.{}".format(*self._capability()), search.case
        path = self.results / tables.TUNING_FILE.name
        entry = json.loads(path.read_text()).get(key, {}) if path.is_file() else {}
        of_case = {
            "kernel": search.kernel, "dtype": case.dtype, "head": row_width(case.dtype, case.head),
            "height": case.height, "width": case.width, "pool": case.pool,
        }  # fmt: skip
        rows = [row for row in entry.get("rows", []) if not of_case.items() <= row.items()]
        measured = {"card": hardware()["gpu"], "torch": versions()["torch"], "triton": versions().get("triton")}
        rows.append(of_case | asdict(winner))
        tables.store(tables.TUNING_FILE, key, measured | {"rows": rows}, self.results)
        if not self.quick:
            tables.install(self.results)

    def _add_row(self, search: Search, figures: dict[str, Any]) -> None:
        self.rows.append(search.labels | figures)
        self._save_log()
        where = "in the interpreter, tiny sizes: no measurement" if self.quick else "on the GPU"
        write_receipt(
            self.receipt,
            f"Block sizes of the fused attention ({where})",
            COMMAND,
            self.rows,
            seed=0,
            notes="time / before: the winner's time relative to the block sizes that were chosen without a GPU; "
            "geometric mean over the batch sizes timed. tried: candidates; "
            "right: those within twice the rounding error of the plain form against float64. Only these were timed. "
            "before_ms: of one call at `batch`.",
        )

    def _entry_of(self, search: Search, blocks: Blocks) -> dict[str, Any]:
        """What is known of a candidate; empty where it was not tried."""
        wanted = search.labels | asdict(blocks)
        return next((one for one in self.tried if wanted.items() <= one.items()), {})

    def _save_log(self) -> None:
        write_json(self.log, self.tried, indent=1)
        self.running.unlink(missing_ok=True)

    def _capability(self) -> Capability:
        return torch.cuda.get_device_capability() if self.device.type == "cuda" else (9, 0)


Results = dict[str, Tensor]
"""out, d_q, d_k, d_v, d_rel_height, d_rel_width."""


class Problem:
    """The inputs of one case at one batch size: views of a channels_last projection, as in the network."""

    def __init__(self, case: Case, batch: int, device: torch.device) -> None:
        self.case, self.batch = case, batch
        H, W, D = case.height, case.width, case.head
        dtype = getattr(torch, case.dtype)
        projected = torch.randn(batch, H, W, 3, case.heads, D, device=device).to(dtype)
        self.maps = tuple(projected.permute(3, 0, 4, 1, 2, 5))  # q, k, v: (B, N, H, W, D)
        self.tables = tuple(torch.randn(2 * size - 1, D, device=device).to(dtype) * D**-0.5 for size in (H, W))
        height, width = (H // 2, W // 2) if case.pool else (H, W)
        self.d_out = torch.randn(batch, height, width, case.heads, D, device=device).to(dtype).permute(0, 3, 1, 2, 4)

    def by_definition(self, dtype: torch.dtype) -> Results:
        """In parts that fit into memory."""
        of_maps = {
            name: torch.empty_like(x, dtype=dtype) for name, x in zip(("d_q", "d_k", "d_v"), self.maps, strict=True)
        }
        results = {"out": torch.empty_like(self.d_out, dtype=dtype)} | of_maps
        tables = [torch.zeros_like(table, dtype=torch.float64) for table in self.tables]
        for where in self._parts():
            leaves = [x.to(dtype).requires_grad_() for x in (*(x[where] for x in self.maps), *self.tables)]
            out = attention_by_definition(*leaves)
            out = average_cells(out) if self.case.pool else out
            parts = torch.autograd.grad(out, leaves, self.d_out[where].to(dtype))
            for name, part in zip(results, (out.detach(), *parts), strict=False):
                results[name][where] = part
            for total, part in zip(tables, parts[3:], strict=True):
                total += part
        return results | dict(zip(("d_rel_height", "d_rel_width"), tables, strict=True))

    def _parts(self) -> Iterator[tuple[slice, slice]]:
        logits, N = (self.case.height * self.case.width) ** 2, self.case.heads
        heads = min(N, max(1, LOGITS_AT_ONCE // logits))
        images = max(1, LOGITS_AT_ONCE // (logits * N)) if heads == N else 1
        for b in range(0, self.batch, images):
            for n in range(0, N, heads):
                yield slice(b, b + images), slice(n, n + heads)

    def by_kernels(self, blocks: dict[Kernel, Blocks]) -> Results:
        """With these block sizes, and the package's for the other kernels."""
        saved, launches, results, table_parts = self._launches(blocks)
        for tensor in (*results.values(), *saved):
            tensor.fill_(math.nan)  # what is not written shows
        for launch in launches:
            launch()
        both = table_parts.sum(0)
        height = 2 * self.case.height - 1
        return results | {"d_rel_height": both[:height], "d_rel_width": both[height:]}

    def launch(self, kernel: Kernel, blocks: Blocks) -> Callable[[int], None]:
        """One kernel alone, after all have run once; on a GPU `LAUNCHES_PER_GRAPH` times per call."""
        _, launches, _, _ = self._launches({kernel: blocks})
        for launch in launches:
            launch()
        chosen = launches[KERNELS.index(kernel)]
        if self.maps[0].device.type != "cuda":
            return lambda _: chosen()
        # As a graph: Python launches slower than small kernels run.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(LAUNCHES_PER_GRAPH):
                chosen()
        return Replay(chosen, graph)

    def compile(self, kernel: Kernel, blocks: Blocks) -> None:
        """Into Triton's cache, without running anything."""
        self._launches({kernel: blocks})[1][KERNELS.index(kernel)].compile()

    def _launches(self, blocks: dict[Kernel, Blocks]) -> tuple[list[Tensor], list[Any], Results, Tensor]:
        """(what the forward pass saves, launches in order: `KERNELS` and the tables', results to fill, table parts)."""
        from botformer.attention.triton_launch import backward_launches, capability_of, forward_launch

        q, _, v = self.maps
        each = empty_channels_last(v)
        out = empty_channels_last(v[:, :, ::2, ::2]) if self.case.pool else each
        saved = [
            q.new_empty(self.batch, self.case.heads, q.shape[2] * q.shape[3], dtype=torch.float32) for _ in range(2)
        ]
        inputs = (*self.maps, *self.tables, None, capability_of(q.device), each, *saved)
        gradients = [empty_channels_last(x) for x in self.maps]
        backward, table_parts = backward_launches(
            *inputs, self.d_out, *gradients,
            query_blocks=blocks.get("query_gradient"), key_blocks=blocks.get("key_gradient"), pool=self.case.pool,
        )  # fmt: skip
        forward = forward_launch(*inputs, blocks=blocks.get("forward"), pooled=out if self.case.pool else None)
        results = dict(zip(("out", "d_q", "d_k", "d_v"), (out, *gradients), strict=True))
        return [each, *saved], [forward, *backward], results, table_parts


def wrong(results: Results, exact: Results, plain: Results) -> str:
    """What is off by more than twice the error of the plain form at the same precision; "" if nothing is."""
    for name, result in results.items():
        error = float((result.double() - exact[name].double()).norm())
        allowed = 2 * float((plain[name].double() - exact[name].double()).norm()) + 1e-6 * float(exact[name].norm())
        if not error <= allowed:
            return f"WRONG: {name} is off by {error:.3g}, allowed are {allowed:.3g}"
    return ""


def compile_all(pool: ProcessPoolExecutor, search: Search) -> list[Future[None]]:
    """Every candidate of a search, in other processes: compiling takes longer than running."""
    return [pool.submit(compile_one, search.case, search.kernel, blocks) for blocks in search.candidates]


def compile_one(case: Case, kernel: Kernel, blocks: Blocks) -> None:
    Problem(case, 1, torch.device("cuda")).compile(kernel, blocks)


def _figures(receipt: Path) -> list[dict[str, Any]]:
    return json.loads(receipt.read_text(encoding="utf-8"))["figures"] if receipt.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
