"""The demo's report."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botformer.create import load
from botformer.plots.html_report import ImageBlock, Preformatted, Section, Table, write_report
from botformer.plots.top5 import Prediction, draw_gallery, draw_prediction
from botformer.predict.predictor import predictor
from botformer.recipes import find_recipe

_SHOWN = 8
_WRONG_SHOWN = 2


@dataclass(frozen=True)
class Part:
    """One network of the demo."""

    recipe: Any
    folder: Path
    """Of `data`, `run` and `evaluation`."""
    metrics: dict[str, Any]
    """What metrics.json of the evaluation holds."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"


def write_demo_report(
    report: Path, nuclei: Part, digits: Part, scenes: Part, seconds: Mapping[str, float], total: float
) -> None:
    """The images that only the demo has, beside REPORT, and REPORT itself. `seconds` per part, some side by side."""
    right, wrong = _predictions(digits)
    gallery, close_up = report.parent / "gallery.png", report.parent / "prediction.png"
    shown_wrong = wrong[:_WRONG_SHOWN]
    draw_gallery([*right[: _SHOWN - len(shown_wrong)], *shown_wrong], gallery)
    draw_prediction(**vars((right or wrong)[0]), out=close_up)
    continued = any("continued" in part for part in seconds)
    in_short = Section(
        "In short",
        [
            "Three small BoTNets started from random weights. One learned to outline the nuclei in a micrograph, one "
            "to read handwritten digits on photographs, and one, starting from the second, to find and outline the "
            f"digits in scenes of several. {'This time it' if continued else 'Everything'} took "
            f"{total:.0f} seconds.",
            Table(
                ("what", "measured", "on unseen data"),
                [
                    ("nuclei", _ap(nuclei.metrics), "whole nuclei of the micrograph's right strip"),
                    ("digits", f"{digits.metrics['top1']:.1%} right", f"{digits.metrics['images']:,} images"),
                    ("digits in scenes", _ap(scenes.metrics), f"{scenes.metrics['images']:,} scenes"),
                ],
            ),
            "AP50 is COCO's average precision of the outlines where an overlap of one half counts as found; AP is the "
            "mean over overlaps from 0.5 to 0.95. This is a demonstration, not a benchmark.",
        ],
    )
    sections = [
        in_short,
        *_nuclei(nuclei),
        *_digits(digits, gallery, close_up),
        *_scenes(scenes),
        _what_was_run(nuclei, digits, scenes, seconds),
    ]
    write_report(report, "botformer demo: nuclei and digits", sections)


def _ap(metrics: dict[str, Any]) -> str:
    return f"{metrics['mask']['AP50']:.3f} mask AP50, {metrics['mask']['AP']:.3f} mask AP"


def _parameters(part: Part) -> str:
    return f"{sum(parameter.numel() for parameter in load(part.run).model.parameters()):,}"


def _nuclei(part: Part) -> list[Section]:
    return [
        Section(
            "Nuclei: a BoTNet Mask R-CNN on a micrograph",
            [
                f"{_parameters(part)} parameters. Training saw crops of the left three quarters of one fluorescence "
                "micrograph whose nuclei people outlined; the strip below is the right quarter, of which it saw no "
                "pixel. Nuclei that the strip's border cuts count neither way. One image with "
                f"{part.metrics['objects']} whole nuclei to score: real data, but not a benchmark.",
                ImageBlock(part.evaluation / "best_and_worst.png", "The unseen strip: truth, and what was found."),
                ImageBlock(part.evaluation / "precision_recall.png", "Precision and recall on the strip."),
                ImageBlock(part.run / "curves.png", "Losses over the training."),
            ],
        )
    ]


def _digits(part: Part, gallery: Path, close_up: Path) -> list[Section]:
    return [
        Section(
            "Digits: a BoTNet classifier",
            [
                f"{_parameters(part)} parameters. The images are synthetic scenes from real parts: digits that "
                "people wrote (MNIST), pasted on crops of photographs. Training and evaluation share neither digits "
                "nor photographs.",
                "Each image stands beside the attention of the network's last stage, which looks at the whole map "
                "from one position. The titles say what it read; where it is wrong, what stands there.",
                ImageBlock(
                    gallery, "Unseen images with the attention from their centre, averaged over the four heads."
                ),
                ImageBlock(close_up, "One of them: the five most probable digits, and where the attention looks."),
                ImageBlock(part.run / "curves.png", "Loss, learning rate and accuracy on unseen images."),
                ImageBlock(part.evaluation / "confusion.png", "Truth in rows, predictions in columns."),
            ],
        )
    ]


def _scenes(part: Part) -> list[Section]:
    return [
        Section(
            "Digits in scenes: finding and outlining ten kinds of objects",
            [
                f"{_parameters(part)} parameters; the backbone started from the classifier above. Each scene has one "
                "to six digits on a photograph, of digits and photographs that training did not see. Best and worst "
                "are chosen by TP / (TP + FP + FN).",
                ImageBlock(part.evaluation / "best_and_worst.png", "Unseen scenes: truth, and what was found."),
                ImageBlock(
                    part.evaluation / "precision_recall.png", "Precision and recall, averaged over the ten digits."
                ),
                ImageBlock(part.run / "curves.png", "Losses over the training."),
            ],
        )
    ]


def _what_was_run(nuclei: Part, digits: Part, scenes: Part, seconds: Mapping[str, float]) -> Section:
    versions = json.loads((digits.run / "versions.json").read_text(encoding="utf-8"))
    parts = {"nuclei_mini": nuclei, "digits": digits, "digit_scenes": scenes}
    commands = "\n".join(
        f"botformer train {name} --data {part.data} --out {part.run}{_changed(name, part.recipe)}\n"
        f"botformer evaluate {part.run} --data {part.data}"
        for name, part in parts.items()
    )
    return Section(
        "What was run",
        [
            "The demo is these commands; where there are two cores, the nuclei in a second process beside the others:",
            Preformatted(commands),
            Table(("part", "seconds"), [(name, f"{value:.1f}") for name, value in seconds.items()]),
            Table(
                ("setting", *parts),
                [
                    ("network", *(part.recipe.model.name for part in parts.values())),
                    ("pixels", *(str(part.recipe.images.size) for part in parts.values())),
                    ("epochs", *(str(part.recipe.schedule.epochs) for part in parts.values())),
                    ("batch", *(str(part.recipe.run.batch_size) for part in parts.values())),
                    ("learning rate", *(f"{part.recipe.optimizer.learning_rate:g}" for part in parts.values())),
                    ("seed", *(str(part.recipe.run.seed) for part in parts.values())),
                ],
            ),
            Table(
                ("machine and versions", ""),
                [
                    ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"),
                    *((name, str(version)) for name, version in versions.items()),
                ],
            ),
            "The same on your own images: DIR has folders named after the classes, or COCO's annotations.",
            Preformatted(
                "botformer train digits --data DIR --out runs/mine --images.size 96 --images.hflip\n"
                "botformer train nuclei_mini --data DIR --out runs/cells --images.size 256 --images.test-size 512\n"
                f"botformer predict IMAGE... --checkpoint {nuclei.run}"
            ),
        ],
    )


def _changed(name: str, recipe: Any) -> str:
    """The options that the command needs besides the recipe's name."""
    original = find_recipe(name)
    changed = f" --model.weights {recipe.model.weights}" if recipe.model.weights else ""
    if recipe.schedule != original.schedule:
        schedule = recipe.schedule
        changed += f" --schedule.epochs {schedule.epochs} --schedule.warmup-epochs {schedule.warmup_epochs:g}"
    return changed


def _predictions(part: Part) -> tuple[list[Prediction], list[Prediction]]:
    """Predictions on unseen images, the first of each class first: those that are right and those that are wrong."""
    classify = predictor(part.run)
    right, wrong = [], []
    for number in range(_SHOWN):
        for folder in sorted((part.data / "validation").iterdir()):
            files = sorted(folder.iterdir())
            if number < len(files):
                prediction = classify(files[number]).to_plot(truth=folder.name)
                (wrong if prediction.is_wrong else right).append(prediction)
    return right, wrong
