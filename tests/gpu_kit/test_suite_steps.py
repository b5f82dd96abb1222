"""The steps of benchmarks/gpu that measure networks. What needs a GPU is replaced."""

import json
import sys

import pytest

from benchmarks.gpu import profile_step, suite
from botformer.benchmark.run_suite import SuiteResult

KERNELS = {
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>, std::array<char*>>"
    "(int, at::native::CUDAFunctor_add<c10::BFloat16>)": (
        "vectorized_elementwise_kernel[CUDAFunctor_add]",
        "elementwise",
    ),
    "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::"
    "direct_copy_kernel_cuda(at::TensorIteratorBase&)::{lambda()#1}>(int)": (
        "elementwise_kernel[direct_copy_kernel_cuda]",
        "copies",
    ),
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 64>>(pytorch_flash::Flash_fwd_params)": (
        "flash_fwd_kernel",
        "attention",
    ),
    "query_gradient_kernel": ("query_gradient_kernel", "attention"),
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_cudnn": (None, "convolution"),
    "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT": (None, "matrix product"),
    "void at::native::batch_norm_collect_statistics_channels_last_kernel<at::native::Var, float>(int)": (
        "batch_norm_collect_statistics_channels_last_kernel",
        "batch norm",
    ),
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::TensorListMetadata<2>>(int)": (
        None,
        "optimiser",
    ),
    "Memcpy HtoD (Pageable -> Device)": ("Memcpy HtoD", "copies"),
    "something_new": ("something_new", "other"),
}


@pytest.mark.parametrize("name", KERNELS, ids=lambda name: name[:40])
def test_a_kernel_gets_a_short_name_and_its_group(name):
    short, group = KERNELS[name]
    found = profile_step.short_name(name)
    assert profile_step.group_of(found) == group
    assert short in (None, found)
    assert len(found) <= 80


def test_the_time_of_a_step_is_that_of_its_kernels_and_of_the_gaps():
    kernels = [profile_step.Kernel("gemm", 10, 30.0), profile_step.Kernel("flash", 5, 10.0)]  # of five steps
    rows = {row["name"]: row for row in profile_step.table(kernels, step_ms=10.0)}
    assert rows["the whole step"]["ms"] == 10
    assert (rows["gemm"]["ms"], rows["gemm"]["fraction"], rows["gemm"]["calls"]) == (6, 0.6, 2)
    assert rows["matrix product"]["fraction"] == 0.6
    assert rows["attention"]["ms"] == 2
    assert rows["idle"]["fraction"] == pytest.approx(0.2)


def test_a_profile_is_written_and_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--results", str(tmp_path), "--seconds", "60", "--quick"])
    one = profile_step.networks(on_gpu=False, quick=True)[:1]
    monkeypatch.setattr(profile_step, "networks", lambda on_gpu, quick: one)
    assert profile_step.main() == 0
    rows = json.loads((tmp_path / "profile_cpu_quick.json").read_text())["figures"]
    assert {row["network"] for row in rows} == {"botnet_nano"}
    assert {"step", "group", "kernel"} == {row["what"] for row in rows}
    assert any("convolution" in row["name"] for row in rows)
    monkeypatch.setattr(profile_step, "profile_step", lambda *_: pytest.fail("profiled again"))
    assert profile_step.main() == 0


@pytest.fixture
def result(monkeypatch, tmp_path):
    """Calls `suite.main` with a suite that gives this result; returns its status and the command of a new process."""
    commands = []
    monkeypatch.setattr(suite.os, "closerange", lambda *_: None)
    monkeypatch.setattr(suite.os, "execv", lambda program, command: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["x", "model", "--results", str(tmp_path), "--seconds", "500", "--quick"])

    def of(*fields):
        monkeypatch.setattr(suite, "run_suite", lambda *_, **__: SuiteResult(tmp_path / "x.json", *fields))
        return suite.main(), commands

    return of


def test_the_status_says_whether_there_is_more_to_do_and_faults_are_named(result, capsys):
    assert result(0, ["64x64, ours, WRONG: it"], "") == (0, [])
    assert "64x64, ours, WRONG: it" in capsys.readouterr().err
    assert result(3, [], "") == (75, [])


def test_after_an_error_of_the_device_a_new_process_goes_on_in_the_time_that_is_left(result, tmp_path):
    _, (command,) = result(3, [], "failed: CUDA error")
    assert command[1:] == [
        *("-m", "benchmarks.gpu.suite", "model", "--results", str(tmp_path), "--seconds", "500", "--quick")
    ]
