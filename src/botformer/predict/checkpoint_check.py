"""Whether Ray Data really leaves out what is done. Sent to Ray's workers, so it imports little."""

from pathlib import Path
from typing import Any

import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.checkpoint.load_checkpoint_callback import LoadCheckpointCallback

from botformer.errors import InputError
from botformer.predict.prediction_log import committed


class CheckpointIsOn(ExecutionCallback):
    """Before anything is computed: of a plan that its checkpoint does not fit, Ray says at most a warning, and does all
    of it again."""

    def before_execution_starts(self, executor: Any) -> None:
        config = executor._data_context.checkpoint_config
        if config is None:  # Ray reads its notes by a plan of its own
            return
        notes = next(committed(Path(config.checkpoint_path).parent), None) is not None
        left_out = any(operator.name == "CheckpointFilter" for operator in executor._topology)
        if not any(isinstance(each, LoadCheckpointCallback) for each in executor._callbacks) or notes != left_out:
            raise InputError(
                f"Ray {ray.__version__} does not leave out what is predicted already, so nothing was begun; install "
                "the version that this was tested with: pip install 'ray[data]==2.60.0'"
            )
