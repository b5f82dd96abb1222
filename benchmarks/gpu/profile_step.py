"""Where the time of a training step goes: by kernel on a GPU, by operator on a CPU.

python -m benchmarks.gpu.profile_step --results DIR --seconds S [--quick]

Writes profile_gpu.json (without CUDA: profile_cpu.json). Exit status: 0 all is done, 75 there is more to do.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.step_arguments import COMMAND, MORE_TO_DO, Clock, step_parser
from botformer.benchmark import detection_suite
from botformer.benchmark.comparison import SEED, Row, device_is_lost, free
from botformer.benchmark.model_steps import our_model, training_step
from botformer.benchmark.receipt import receipt_origin, write_receipt
from botformer.benchmark.suite_rows import earlier_rows
from botformer.benchmark.timing import Call
from botformer.recipes.schema import DetectionImages

LEAST_S = 45
"""No network begins where fewer seconds are left."""
WARM_UP, STEPS, LARGEST = 3, 5, 20
TITLE = "Where the time of a training step goes"
NOTES = (
    "Eager mode, channels_last. ms and calls: per step, of five; fraction: of the time of a step without the profiler. "
    "On a GPU kernels, one after the other; idle: the time in which none ran. On a CPU operators, each without those "
    "that it calls. Groups go by names, so that a few kernels may be misplaced."
)


class Network(NamedTuple):
    name: str
    px: int
    batch: int
    step: Callable[[torch.device], Call]


def networks(on_gpu: bool, quick: bool) -> list[Network]:
    if quick:
        work = detection_suite.TINY_WORK
        classifiers, detector, px, batch = ("botnet_nano", "resnet_nano"), "botnet_nano", 64, 2
    else:
        px, batch = 1024, 4 if on_gpu else 1
        work = detection_suite.Work(DetectionImages(size=px), batch)
        classifiers, detector = ("botnet50", "resnet50"), "botnet50"
    return [
        *(
            Network(
                name, px, batch, lambda device, name=name: training_step(lambda: our_model(name, px), px, batch, device)
            )
            for name in classifiers
        ),
        Network(
            f"Mask R-CNN, {detector}",
            work.images.size,
            work.batch,
            lambda device: detection_suite.training_step("batch", detector, work, device),
        ),
    ]


def main() -> int:
    given = step_parser(__doc__).parse_args()
    clock = Clock(given.seconds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    receipt = given.results / f"profile_{'gpu' if on_gpu else 'cpu'}{'_quick' if given.quick else ''}.json"
    same = {"title": f"{TITLE} ({'on the GPU, bfloat16' if on_gpu else 'on the CPU, float32'})", **receipt_origin()}
    earlier, reason = earlier_rows(receipt, same)
    if reason:
        print(f"{receipt.name}: begun anew, not continued: {reason}", file=sys.stderr)
    rows: list[Row] = earlier["figures"] if earlier else []
    left, usable = 0, True
    for network in networks(on_gpu, given.quick):
        labels = {"network": network.name, "px": network.px, "batch": network.batch}
        if any(row["network"] == network.name for row in rows):
            continue
        if not usable or (not given.quick and clock.left < LEAST_S):
            left += 1
            continue
        try:
            torch.manual_seed(SEED)
            found = profile_step(network.step(device), device)
        except Exception as error:
            reason = f"failed: {type(error).__name__}: {error}".partition("\n")[0]
            print(f"{network.name}: {reason}", file=sys.stderr)
            found = [{"what": "all", "left_out": reason}]
            usable = not device_is_lost(device, error)
        rows += [labels | row for row in found]
        write_receipt(receipt, same["title"], COMMAND, rows, SEED, NOTES, origin=same)
        if usable:
            free(device)
    return MORE_TO_DO if left else 0


class Kernel(NamedTuple):
    name: str
    calls: int
    ms: float


def profile_step(call: Call, device: torch.device) -> list[Row]:
    """Rows of the whole step, of the groups, and of the largest kernels or operators; ms and calls per step."""
    for number in range(WARM_UP):
        call(number)
    on_gpu = device.type == "cuda"

    def steps_ms() -> float:
        if on_gpu:
            torch.cuda.synchronize(device)
        begun = perf_counter()
        for number in range(STEPS):
            call(number)
        if on_gpu:
            torch.cuda.synchronize(device)
        return 1e3 * (perf_counter() - begun)

    step_ms = steps_ms() / STEPS
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as recorded:
        steps_ms()
    return table(kernels(recorded.events() or [], on_gpu), step_ms)


def kernels(events: Iterable[Any], on_gpu: bool) -> list[Kernel]:
    """The events on the device by their short name; on a CPU operators by the time without that of those they call."""
    calls: dict[str, int] = defaultdict(int)
    microseconds: dict[str, float] = defaultdict(float)
    for event in events:
        if on_gpu and (event.device_type.name != "CUDA" or event.is_user_annotation):
            continue
        name = short_name(event.name)
        calls[name] += 1
        microseconds[name] += event.device_time_total if on_gpu else event.self_cpu_time_total
    return [Kernel(name, calls[name], time / 1e3) for name, time in microseconds.items() if time > 0]


def table(kernels: list[Kernel], step_ms: float) -> list[Row]:
    """One row of the step, one per group, and one per kernel of the largest ones. `kernels` are of `STEPS` steps."""
    groups: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        groups[group_of(kernel.name)].append(kernel)

    def row(kind: str, name: str, of: list[Kernel]) -> Row:
        ms = sum(kernel.ms for kernel in of) / STEPS
        calls = sum(kernel.calls for kernel in of) / STEPS
        return {
            "what": kind,
            "name": name,
            "ms": float(f"{ms:.3g}"),
            "fraction": round(ms / step_ms, 3),
            "calls": round(calls, 1),
        }

    idle_ms = max(step_ms - sum(kernel.ms for kernel in kernels) / STEPS, 0)
    by_ms = sorted(groups.items(), key=lambda item: -sum(kernel.ms for kernel in item[1]))
    largest = sorted(kernels, key=lambda kernel: -kernel.ms)[:LARGEST]
    return [
        {"what": "step", "name": "the whole step", "ms": float(f"{step_ms:.3g}"), "fraction": 1.0},
        *(row("group", name, of) for name, of in by_ms),
        {"what": "group", "name": "idle", "ms": float(f"{idle_ms:.3g}"), "fraction": round(idle_ms / step_ms, 3)},
        *(row("kernel", kernel.name, [kernel]) for kernel in largest),
    ]


# The first that matches the name of a kernel of CUDA's libraries, PyTorch or Triton, or of an operator of PyTorch.
GROUPS = {
    "copies": r"memcpy|memset|copy_|aten::to$|_to_copy|direct_copy|convert|nchwToNhwc|nhwcToNchw|CatArray|aten::cat",
    "attention": r"attention|flash|fmha|sdpa|softmax|^(forward|\w+_gradient)_kernel",
    "batch norm": r"batch_?norm|bn_fw|bn_bw|bnorm",
    "optimiser": r"multi_tensor|foreach|optimizer|fused_sgd",
    "convolution": r"conv|fprop|dgrad|wgrad|implicit|cudnn",
    "matrix product": r"gemm|gemv|matmul|cublas|nvjet|cutlass|aten::(mm|bmm|addmm|linear|einsum)",
    "detector": r"roi_align|nms|topk|sort|radix|index|gather|scatter|nonzero|unique|cub::",
    "pooling and reduction": r"pool|reduce|aten::(sum|mean|norm)",
    "elementwise": r"elementwise|aten::(add|mul|div|sub|relu|threshold|silu|sigmoid|fill|zero)|triton_poi",
}


def group_of(name: str) -> str:
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, name, re.IGNORECASE)), "other")


def short_name(name: str) -> str:
    """A kernel without its return type, arguments and namespaces; of templates the functor that says what is done."""
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    functor = re.search(r"\w*Functor\w*|\w+_kernel_cuda\b", name.partition("<")[2])
    head = name.partition("(")[0].partition("<")[0].strip()
    head = head if head.startswith("aten::") else head.rpartition("::")[2] or head
    return f"{head}[{functor[0]}]"[:80] if functor else head[:80]


if __name__ == "__main__":
    sys.exit(main())
