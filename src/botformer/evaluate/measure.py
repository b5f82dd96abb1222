"""One pass over the images of an evaluation, in all processes."""

from collections.abc import Callable, Iterator
from typing import Any

from accelerate.utils import gather_object

from botformer.data.loader import EvaluationLoader
from botformer.training.distributed import Accelerator
from botformer.training.evaluation_loop import evaluate
from botformer.training.task import Evaluator, Task


def measure(
    task: Task, batches: EvaluationLoader[Any], accelerator: Accelerator, on_progress: Callable[[float], object]
) -> tuple[Evaluator, dict[str, str]]:
    """What `task` makes of `batches`, and the images that could not be read, with the reason; of all processes."""

    def counted() -> Iterator[Any]:
        for number, batch in enumerate(batches, 1):
            yield batch
            on_progress(number / len(batches))

    evaluator = evaluate(task, counted(), accelerator)
    skipped = {file: reason for bad in gather_object([batches.bad]) for file, reason in bad.items()}
    return evaluator, dict(sorted(skipped.items()))
