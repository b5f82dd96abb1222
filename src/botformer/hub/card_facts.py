"""What a model card can say of a network: what its file and its run say, and nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botformer.create.from_checkpoint import is_shipped, weights_file
from botformer.data.http_ranges import public_name
from botformer.report.run_folder import RunFolder
from botformer.training.checkpoint import State, read_state
from botformer.weights.imagenet import about_imagenet_weights

_KINDS = ("box", "mask", "keypoints")
_FIGURES = {
    "top1": "accuracy",
    "balanced_accuracy": "accuracy, every class counting alike",
    "top5": "truth among the best five",
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "APs": "AP, small objects",
    "APm": "AP, medium objects",
    "APl": "AP, large objects",
}
"""Name in our files -> in words."""


@dataclass(frozen=True)
class Measurement:
    """Figures of one set of images."""

    on: str
    """Which images."""
    images: int | None
    figures: list[tuple[str, float]]
    """In words, and from 0 to 1."""
    chosen: bool
    """Whether the weights were chosen by these figures."""


@dataclass(frozen=True)
class Origin:
    """What the training started from."""

    source: str
    sha256: str
    about: str
    """Who made it, and under which licence; empty: not known."""


class CardFacts:
    """Of a network in a run, a checkpoint or a file."""

    def __init__(self, source: str | Path) -> None:
        self.file = Path(weights_file(source))
        self.shipped = str(source) if is_shipped(source) else ""
        beside = self.file.with_name("state.json").is_file()
        self.state: State | None = read_state(self.file.parent) if beside else None
        out = self.file.parent.parent.parent
        self.run: RunFolder | None = RunFolder(out) if beside and (out / "recipe.json").is_file() else None

    @property
    def recipe(self) -> dict[str, Any]:
        """Without paths of anybody's machine; empty where it is not known."""
        recipe = self.state.recipe if self.state else {}
        weights = recipe.get("model", {}).get("weights", "")
        return recipe | {"model": recipe["model"] | {"weights": without_path(weights)}} if weights else recipe

    @property
    def trained_on(self) -> str:
        """How many images; empty: nobody wrote it down."""
        found = str(self.run.plan.get("found") or "") if self.run else ""
        if found or not self.run:
            return found
        last = self.run.journal[-1] if self.run.journal else {}
        if not last.get("epoch") or not last.get("step"):
            return ""
        images = last["step"] * self.recipe["run"]["batch_size"] / last["epoch"]
        return f"about {images:,.0f} images per epoch (reckoned from the steps, the epochs and the batch)"

    @property
    def data_name(self) -> str:
        """The last name of the path of the data; empty where the run did not write it down."""
        return without_path(str(self.run.plan.get("data") or "")) if self.run else ""

    @property
    def evaluations(self) -> int:
        """By which the weights were chosen."""
        return sum(record["kind"] == "evaluation" for record in self.run.journal) if self.run else 0

    @property
    def origin(self) -> Origin | None:
        """None: random weights, or not known."""
        loaded = self.state.loaded if self.state else None
        if loaded is None or not loaded.source:
            return None
        return Origin(without_path(loaded.source), loaded.sha256, about_imagenet_weights(loaded.source))

    def measurements(self) -> list[Measurement]:
        """The best known first."""
        found = []
        for folder in ("test", "evaluation") if self.run else ():
            assert self.run
            metrics = self.run.evaluation(folder)
            if metrics:
                of_data = without_path(str(metrics.get("data") or ""))
                on = f"the {metrics['split']} images" + (f" of {of_data}" if of_data != self.data_name else "")
                found.append(
                    Measurement(on, metrics.get("images"), _of_evaluation(metrics), metrics["split"] == "validation")
                )
        if not any(each.chosen for each in found) and self.state and self.state.metrics_step == self.state.step:
            prefix = "ema_" if self.file.name == "ema.safetensors" else ""
            metrics = self.state.metrics
            images = metrics.get(f"{prefix}images")
            found.append(
                Measurement(
                    "the validation images of the training",
                    None if images is None else int(images),
                    _of_journal(metrics, prefix),
                    True,
                )
            )
        return [each for each in found if each.figures]


def without_path(path: str) -> str:
    """Of a path of somebody's machine, or of an address, the last name, without a signature; an address on the hub or a
    plain name as it is."""
    path = public_name(path)
    return path if path.startswith(("hf:", "hfds/")) else path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _of_evaluation(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    kinds = [kind for kind in _KINDS if kind in metrics]
    if not kinds:
        return _named(metrics, "")
    return [figure for kind in kinds for figure in _named(metrics[kind], f"{kind} ")]


def _of_journal(metrics: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    own = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    if "top1" in own:
        return _named(own, "")
    parts = {
        kind: {n.removeprefix(f"{kind}_"): v for n, v in own.items() if n.startswith(f"{kind}_")} for kind in _KINDS
    }
    return [figure for kind, part in parts.items() for figure in _named(part, f"{kind} ")]


def _named(metrics: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    """COCO's -1 stands for figures of no object at all."""
    return [
        (prefix + words, float(metrics[name]))
        for name, words in _FIGURES.items()
        if isinstance(metrics.get(name), int | float) and metrics[name] >= 0
    ]
