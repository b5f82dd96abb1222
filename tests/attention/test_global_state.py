"""PyTorch's process-wide switches are not changed, not even while attention runs in several threads."""

import threading

import torch

from botformer import create_model
from botformer.attention import relative_attention_2d
from tests.attention.brute_force import random_inputs

THREADS, CALLS = 8, 12


def switches():
    cuda = torch.backends.cuda
    return {
        "flash": cuda.flash_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "precision": torch.get_float32_matmul_precision(),
        "seed": torch.initial_seed(),
    }


def test_eight_threads_of_attention_change_no_switch_that_a_bystander_sees():
    before, seen, errors = switches(), [], []
    done, start = threading.Event(), threading.Barrier(THREADS + 1)
    networks = [create_model("botnet_nano", 2, 48, position=position).train() for position in ("none", "absolute")]

    def attend(number):
        start.wait()
        try:
            for _ in range(CALLS):
                inputs = random_inputs(1, 2, 6, 7, 8, 8, torch.float32)
                backend = ("sdpa", "tiled", "definition")[number % 3]
                relative_attention_2d(*inputs, backend=backend).sum().backward()
                with torch.no_grad():
                    networks[number % 2](torch.randn(1, 3, 48, 48))
        except Exception as error:
            errors.append(error)

    def watch():
        start.wait()
        while not done.is_set():
            seen.append(switches())

    bystander = threading.Thread(target=watch)
    workers = [threading.Thread(target=attend, args=(number,)) for number in range(THREADS)]
    for thread in (bystander, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    bystander.join()
    assert not errors
    assert len(seen) > 10
    assert [state for state in seen if state != before] == []
    assert switches() == before
