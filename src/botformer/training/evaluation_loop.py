"""One pass over the evaluation images, on every process, into one set of metrics."""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate.utils import gather_object, send_to_device
from torch import nn

from botformer.errors import InputError
from botformer.training.distributed import Accelerator
from botformer.training.task import Batch, Evaluator, Task


@torch.no_grad()
def evaluate(task: Task, batches: Iterable[Batch], accelerator: Accelerator) -> Evaluator:
    """What `task` makes of `batches`: each process brings its own part of them, and all get the same answer.

    The task is left in the mode, training or evaluation, in which it came.
    """
    assert isinstance(task, nn.Module)
    was_training = task.training
    task.eval()
    _broadcast_buffers(task, accelerator)
    evaluator, given = task.evaluator(), 0
    for batch in batches:
        given += 1
        on_device: Any = send_to_device(batch, accelerator.device, non_blocking=accelerator.non_blocking)
        with accelerator.autocast():
            predictions = task.predict(on_device)
        evaluator.update(predictions, on_device)
    parts = gather_object([(given, send_to_device(evaluator.state(), "cpu"))])
    if not any(given for given, _ in parts) and len(parts) > 1:  # one alone says it where it reads
        raise InputError("no process can read any of its images of this evaluation; warnings above name them")
    merged = task.evaluator()
    merged.merge([state for _, state in parts])
    task.train(was_training)
    return merged


def _broadcast_buffers(task: nn.Module, accelerator: Accelerator) -> None:
    """BatchNorm statistics are each process's own until the next step; the first process's are what gets saved."""
    if accelerator.num_processes > 1:
        for buffer in task.buffers():
            torch.distributed.broadcast(buffer, src=0)
