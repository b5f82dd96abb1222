"""The kernels compiled for GPUs that are not there: the resource report of what would run on them."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from botformer.attention.channels_last import empty_channels_last

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from botformer.attention import triton_blocks, triton_launch  # noqa: E402

POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.uint8: "*u8"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
KIBIBYTE = 1024


def launches(shape, dtype, capability, padded=False, pool=False):
    """All launches of a forward and a backward pass, on meta tensors; q, k, v are views of one projection.

    Pooled, the last one is the forward pass of inference, which stores nothing but the averages.
    """
    B, N, H, W, D = shape

    def empty(*shape, dtype=dtype):
        return torch.empty(*shape, dtype=dtype, device="meta")

    q, k, v = empty(B, H, W, 3, N, D).permute(3, 0, 4, 1, 2, 5)
    out, largest, normalizer = empty_channels_last(v), *empty(2, B, N, H * W, dtype=torch.float32)
    tables = empty(2 * H - 1, D), empty(2 * W - 1, D)
    padding = empty(B, H, W, dtype=torch.bool) if padded else None
    inputs = (q, k, v, *tables, padding, capability, out, largest, normalizer)
    pooled = empty_channels_last(v[:, :, ::2, ::2]) if pool else None
    gradients = [empty_channels_last(x) for x in (v if pooled is None else pooled, q, k, v)]
    backward, _ = triton_launch.backward_launches(*inputs, *gradients, pool=pool)
    passes = [triton_launch.forward_launch(*inputs, pooled=pooled), *backward]
    if pool:
        inputs = (q, k, v, *tables, padding, capability, None, largest, normalizer)
        passes.append(triton_launch.forward_launch(*inputs, pooled=pooled))
    return passes


def describe(value, path, constants, attributes):
    """The type that Triton gives an argument; records what it specialises on: constants, and multiples of sixteen."""
    if isinstance(value, tuple):
        return tuple(describe(entry, (*path, i), constants, attributes) for i, entry in enumerate(value))
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, torch.Tensor) or value % 16 == 0:  # PyTorch's memory starts at multiples of sixteen
        attributes[path] = [["tt.divisibility", 16]]
    return POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"


def compile_for(launch, capability):
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(launch.function.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[(i,)] = "constexpr", value
        else:
            signature[parameter.name] = describe(value, (i,), constants, attributes)
    source = ASTSource(launch.function, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


def stack_bytes(compiled, folder):
    """Bytes of local memory that a thread needs: what did not fit in its registers."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    report = subprocess.run([CUOBJDUMP, "--dump-resource-usage", binary], capture_output=True, text=True, check=True)
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", report.stdout).groups()
    assert 16 < int(registers) <= 255  # the report is that of a kernel
    return int(stack) + int(local)


MAIN = ((1, 4, 64, 64, 128), torch.bfloat16)
MORE = [
    ((1, 4, 32, 32, 128), torch.bfloat16),
    ((1, 4, 64, 64, 64), torch.float16),
    ((1, 4, 64, 64, 128), torch.float32),
]


@pytest.fixture(autouse=True)
def untuned(tmp_path, monkeypatch):
    """The rows that are chosen by the compiler's report. Measured ones may spill a little and be faster."""
    table = tmp_path / "triton_tuning.json"
    table.write_text("{}")
    monkeypatch.setattr(triton_blocks, "TUNING_FILE", table)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype"), [MAIN, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)], ids=str
)
def test_no_register_spills_and_shared_memory_fits(shape, dtype, pool, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    limit = {80: 99, 90: 227}[capability] * KIBIBYTE
    for launch in launches(shape, dtype, divmod(capability, 10), pool=pool):
        compiled = compile_for(launch, capability)
        assert compiled.metadata.shared <= limit, launch.function.__name__
        assert stack_bytes(compiled, tmp_path) == 0, launch.function.__name__


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_pooled_the_gradients_of_keys_spill_nothing_on_maps_that_no_tile_divides(capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for H, W in ((14, 14), (40, 40), (84, 134)):
        launch = launches((1, 4, H, W, 128), torch.bfloat16, divmod(capability, 10), pool=True)[2]
        assert launch.function.__name__ == "key_gradient_kernel"
        assert stack_bytes(compile_for(launch, capability), tmp_path) == 0


def test_products_run_on_the_tensor_cores(tmp_path, monkeypatch):
    """Of the compiled code, not of the source: mma on 8.0, wgmma on 9.0."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for capability, instruction in ((80, "mma.sync"), (90, "wgmma.mma_async")):
        launch = launches((1, 1, 16, 16, 32), torch.bfloat16, divmod(capability, 10))[0]
        assert instruction in compile_for(launch, capability).asm["ptx"]


@pytest.mark.parametrize("precision", ["none", "tf32"])
def test_float32_products_round_to_tf32_only_where_pytorch_is_set_to(precision, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        launch = launches((1, 1, 16, 16, 32), torch.float32, (8, 0))[0]
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert ("tf32" in compile_for(launch, 80).asm["ptx"]) == (precision == "tf32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "pool", "capability"),
    [
        ((2, 4, 14, 14, 128), False, 90),
        ((1, 4, 25, 33, 128), False, 80),
        ((1, 4, 1, 100, 40), False, 90),
        ((2, 4, 14, 14, 128), True, 80),
        ((1, 4, 2, 100, 40), True, 80),
        ((1, 4, 2, 100, 40), True, 90),
    ],
    ids=str,
)
def test_odd_maps_with_padding_compile_within_the_shared_memory(shape, pool, capability, tmp_path, monkeypatch):
    """Each shape on one kind of GPU: compiling takes ten seconds and more."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for launch in launches(shape, torch.bfloat16, divmod(capability, 10), padded=True, pool=pool):
        assert compile_for(launch, capability).metadata.shared <= {80: 99, 90: 227}[capability] * KIBIBYTE
