"""The page of a run: what it reached on which data, what it gets right and wrong, and how to go on."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from botformer.backbone.flops import count
from botformer.backbone.variants import ROWS
from botformer.create.from_checkpoint import load
from botformer.data.http_ranges import public_name
from botformer.environment import hardware
from botformer.errors import InputError
from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
from botformer.evaluate.options import EvaluateOptions
from botformer.plots.html_report import (
    Bars,
    Block,
    Gallery,
    ImageBlock,
    Notice,
    Preformatted,
    Section,
    Table,
    write_report,
)
from botformer.plots.training_curves import draw_curves
from botformer.read_file import understood
from botformer.recipes.schema import Device
from botformer.report.data_tables import class_bars
from botformer.report.disagreements import detector_disagreements
from botformer.report.inspection import evaluation_workers
from botformer.report.label_findings import class_samples
from botformer.report.opened_data import OpenedData, open_data
from botformer.report.run_folder import EVALUATION, RunFolder
from botformer.report.run_images import Attention, attend, surest
from botformer.report.thumbnails import cards, compact
from botformer.report.training_command import training_command
from botformer.text import duration

_SAMPLES = 12
_CLASSES = 30
"""Rows of a chart of classes; of more the lowest."""
_CONFUSED = 8
_LONGER = 3


def write_run_report(
    out: Path,
    data: str = "",
    on_progress: Callable[[float], object] = lambda fraction: None,
    at_most: int = 0,
    device: Device = "auto",
) -> Path:
    """Write OUT/report.html of the run in `out`, and return it. For one process, the first.

    `data` is what it was trained on; empty: what its plan or its evaluation names. Where the best checkpoint has not
    been evaluated yet, it is, into OUT/evaluation, on `at_most` images (0: all); `on_progress` gets the fraction of
    that. Networks run on `device`. Whatever is not there (data, checkpoint, evaluation, journal) is left out, and the
    page says so.

    Raises:
        InputError: `out` holds no run.
    """
    run = RunFolder(out)
    with understood(out / "recipe.json", "train again"):
        assert run.recipe
    data = data or str(run.plan.get("data") or (run.evaluation() or {}).get("data") or "")
    opened, why = _opened(data)
    notes = _what_is_missing(run, data, why)
    if run.has_checkpoint and opened is not None and not _evaluated(run, opened, at_most):
        try:
            workers = evaluation_workers(opened.split("validation"))
            options = EvaluateOptions(
                out, data, "validation", out / EVALUATION, workers=workers, at_most=at_most, on_progress=on_progress
            )
            evaluate_checkpoint(options, device)
        except InputError as error:
            notes.append(Notice("warning", f"The run could not be evaluated: {error}"))
    with TemporaryDirectory() as folder:
        with understood(out, "delete the file that is damaged, or train again"):
            sections = _Sections(run, opened, data, Path(folder), device).all(notes)
        write_report(out / "report.html", f"{_kind(run)}: {out.name}", sections)
    return out / "report.html"


def _evaluated(run: RunFolder, opened: OpenedData, at_most: int) -> bool:
    """Whether the best weights were evaluated on these very images, as the run was validated."""
    found = run.evaluation()
    if found is None:
        return False
    images = found["images"] + len(found["skipped"]["images"])
    return (found["data"], found["split"], found["tta"], found.get("tile", 0), images) == (
        opened.data,
        "validation",
        "none",
        run.recipe["images"].get("tile", 0),
        min(len(opened.split("validation")), at_most or sys.maxsize),
    )


def _opened(data: str) -> tuple[OpenedData | None, str]:
    """The data where they are there, and else why they are not."""
    try:
        opened = open_data(data) if data else None
    except InputError as error:
        return None, str(error)
    if opened is None or opened.splits:
        return opened, ""
    return None, opened.findings[0].what


def _what_is_missing(run: RunFolder, data: str, why: str) -> list[Notice]:
    """`why`: the data could not be opened."""
    notes = []
    if not run.finished:
        notes.append(
            Notice(
                "warning",
                f"The run has not ended: {run.epochs_done:.2f} of {run.epochs_planned:.4g} epochs are done.",
                "The same command continues it.",
            )
        )
    if not run.has_checkpoint:
        notes.append(Notice("warning", "There is no checkpoint, so there are no results."))
    if not data:
        notes.append(
            Notice(
                "note",
                "Nobody said where the data are, so there are no images.",
                command=f"botformer report {shlex.quote(str(run.out))} --data DIR",
            )
        )
    elif why:
        notes.append(Notice("note", f"The data are not shown: {why}"))
    return notes


def _kind(run: RunFolder) -> str:
    return {"mask_rcnn": "Mask R-CNN", "faster_rcnn": "Faster R-CNN", "keypoint_rcnn": "Keypoint R-CNN"}.get(
        run.recipe.get("detector", ""), "Classifier"
    )


class _Sections:
    """The sections of the page, from what is there."""

    def __init__(self, run: RunFolder, opened: OpenedData | None, data: str, folder: Path, device: str) -> None:
        self.run, self.folder, self.device = run, folder, device
        self.data = public_name(data)
        self.opened = opened
        self.metrics = run.evaluation()
        self.predictions = run.predictions() if self.metrics else []
        self.attention = self._attend()

    def all(self, notes: list[Notice]) -> list[Section]:
        sections = [
            Section("In short", [*notes, *self._in_short()]),
            Section("Results", self._detector_results() if self.run.is_detection else self._classifier_results()),
            Section("Images", self._images()),
            Section("Where it looks", self._looks()),
            Section("Training", self._curves()),
            Section("Data", self._data()),
            Section("Network and recipe", self._recipe()),
            Section("What was run", self._what_was_run()),
            Section("Next", self._next()),
        ]
        return [section for section in sections if section.content]

    def _attend(self) -> Attention:
        if not self.opened or not self.run.has_checkpoint or not self.metrics:
            return Attention(None, None)
        try:
            loaded = load(self.run.out)
            return attend(loaded, self.opened.split("validation"), self.predictions, self.folder, self.device)
        except InputError:  # such as weights that are not finite, which the evaluation has said
            return Attention(None, None)

    def _in_short(self) -> list[Block]:
        run, rows = self.run, []
        if self.metrics:
            rows += [(name, value, self._measured_on()) for name, value in _headline(self.metrics)]
        test = run.evaluation("test")
        if test:
            rows += [(name, value, "test images") for name, value in _headline(test)]
        if self.metrics:
            unseen = "images" if self.metrics["split"] == "train" else "images that training did not see"
            rows.append(("measured on", f"{self.metrics['images']:,}", unseen))
        if run.training_s:
            rows.append(("training took", duration(run.training_s), f"{run.epochs_done:.4g} epochs"))
        if run.images_per_s:
            rows.append(("speed in training", f"{run.images_per_s:,.1f}", "images per second"))
        if self.attention.seconds_per_image:
            rows.append(
                (
                    "one prediction",
                    f"{self.attention.seconds_per_image * 1e3:,.0f} ms",
                    "from file to result",
                )
            )
        if run.memory_mb:
            rows.append(("memory in training", f"{run.memory_mb:,.0f} MB", "at most"))
        return [Table(("", "", ""), rows)] if rows else ["Nothing was recorded yet."]

    @property
    def _tile(self) -> int:
        """Side in px of the tiles of a detector; 0: none."""
        return self.run.recipe["images"].get("tile", 0)

    def _measured_on(self) -> str:
        """Which images, and how if not as the run was validated: its evaluation may be one that somebody asked for."""
        assert self.metrics
        tile = self.metrics.get("tile", 0)
        return (
            f"{self.metrics['split']} images"
            + (" and their mirror images" if self.metrics["tta"] == "flip" else "")
            + (f", --tile {tile}" if tile != self._tile else "")
        )

    def _classifier_results(self) -> list[Block]:
        if not self.metrics:
            return []
        per_class = sorted(self.metrics["per_class"].items(), key=lambda item: item[1])
        content: list[Block] = [f"Accuracy of each class in %, the lowest first{_of_all(len(per_class))}."]
        content.append(Bars(["accuracy"], [(name, [round(100 * value, 1)]) for name, value in per_class[:_CLASSES]]))
        confused = self.metrics["most_confused"][:_CONFUSED]
        if confused:
            content.append("What is taken for what most often:")
            content.append(
                Table(
                    ("truth", "taken for", "images"),
                    [(row["truth"], row["prediction"], f"{row['images']:,}") for row in confused],
                )
            )
        return [*content, *self._drawing("confusion.png", "Truth in rows, predictions in columns.")]

    def _detector_results(self) -> list[Block]:
        if not self.metrics:
            return []
        kinds = [kind for kind in ("box", "mask", "keypoints") if kind in self.metrics]
        rows = [
            (
                kind,
                *(f"{self.metrics[kind][name]:.3f}" for name in ("AP", "AP50", "AP75")),
                *(f"{self.metrics[kind]['best_f1'][name]:.3f}" for name in ("f1", "precision", "recall", "threshold")),
            )
            for kind in kinds
        ]
        per_class = sorted(
            (row for row in self.metrics[kinds[-1]]["per_class"] if row["AP"] >= 0), key=lambda row: row["AP"]
        )
        content: list[Block] = [
            Table(("", "AP", "AP50", "AP75", "best F1", "precision", "recall", "at score"), rows),
            "AP is COCO's: the mean over overlaps from 0.5 to 0.95; AP50 counts an overlap of one half as found.",
        ]
        if len(per_class) > 1:
            content.append(f"{kinds[-1]} AP of each class in %, the lowest first{_of_all(len(per_class))}.")
            content.append(Bars(["AP"], [(row["name"], [round(100 * row["AP"], 1)]) for row in per_class[:_CLASSES]]))
        return [*content, *self._drawing("precision_recall.png", "Precision and recall on the validation images.")]

    def _images(self) -> list[Block]:
        if not self.opened or not self.metrics:
            return []
        split = self.opened.split("validation")
        if self.run.is_detection:
            content = self._drawing("best_and_worst.png", "The best and the worst images: truth, and what was found.")
            for finding in detector_disagreements(split, self.predictions, self.metrics):
                content.append(f"{finding.what}. {finding.fix}")
                content.append(Gallery(cards([split], finding.examples, around=True), shown=8))
            return content
        found = surest(split, self.predictions)
        content = []
        for words, made in (
            ("Sure and wrong. Either the network is, or the label.", found.wrong),
            ("Sure and right.", found.right),
            ("The least sure.", found.unsure),
        ):
            if made:
                content += [words, Gallery(made)]
        return content

    def _looks(self) -> list[Block]:
        if self.attention.drawing is None:
            return []
        words = (
            "The attention of each layer from the centre of the surest detection"
            + (", over the whole image: it is not cut into tiles for this." if self._tile else ".")
            if self.run.is_detection
            else "Validation images beside the attention of the last layer from their centre, heads averaged."
        )
        return [ImageBlock(compact(self.attention.drawing, self.folder), words)]

    def _curves(self) -> list[Block]:
        if not self.run.journal:
            return []
        curves = self.run.out / "curves.png"
        if not curves.is_file():
            curves = self.folder / "curves.png"
            draw_curves(self.run.journal, curves)
        return [ImageBlock(curves, "Loss, learning rate and what was measured on the validation images.")]

    def _data(self) -> list[Block]:
        if not self.opened:
            return []
        counts = ", ".join(f"{len(split):,} to {_PURPOSE[split.name]}" for split in self.opened.splits)
        objects = "objects" if self.opened.is_detection else "images"
        bars = class_bars(self.opened)
        return [
            f"{self.data}: {self.opened.layout}; {counts}.",
            Gallery(cards(self.opened.splits, class_samples(self.opened, _SAMPLES))),
            f"The {objects} of each class, the most frequent first{_of_all(len(self.opened.class_names))}:",
            Bars(bars.series, bars.rows[:_CLASSES]),
        ]

    def _recipe(self) -> list[Block]:
        recipe, row = self.run.recipe, ROWS.get(self.run.recipe["model"]["name"])
        rows = [
            ("network", recipe["model"]["name"]),
            ("starts from", recipe["model"]["weights"] or "random weights"),
            ("pixels", str(recipe["images"]["size"])),
            ("epochs", f"{self.run.epochs_planned:.4g}"),
            ("batch", str(recipe["run"]["batch_size"])),
            ("optimiser", f"{recipe['optimizer']['name']}, learning rate {recipe['optimizer']['learning_rate']:g}"),
            ("precision", recipe["run"]["precision"]),
            ("seed", str(recipe["run"]["seed"])),
        ]
        if row is not None:
            counts = count(row, recipe["images"]["size"], num_classes=0)
            rows.insert(1, ("parameters of its backbone", f"{counts.parameters:,}"))
        content: list[Block] = [Table(("", ""), rows)]
        candidates = [each for each in self.run.plan.get("candidates", []) if isinstance(each, dict)]
        if candidates:
            minutes = self.run.plan.get("minutes")
            within = f"{minutes:g} minutes" if isinstance(minutes, int | float) else "no limit of time"
            names = list(candidates[0])
            content += [
                f"It was chosen from these, for {within}:",
                Table([name.replace("_", " ") for name in names], [_cells(each, names) for each in candidates]),
            ]
        content += [str(note) for note in self.run.plan.get("notes", [])]
        return content

    def _what_was_run(self) -> list[Block]:
        command = self._command()
        content: list[Block] = [Preformatted(str(command))] if command else []
        if command:
            content.append("What it planned, as a recipe of its own that any machine trains alike:")
        content.append(Preformatted(self._training_command()))
        rows = [(name, str(version)) for name, version in self.run.versions.items()]
        machine = [(name.replace("_", " "), str(value)) for name, value in hardware().items() if value]
        return [*content, Table(("made with", ""), rows), Table(("this page was made on", ""), machine)]

    def _command(self) -> str:
        """As it was typed; empty where nobody wrote it down."""
        data = str(self.run.plan.get("data") or "")
        return str(self.run.plan.get("command") or "").replace(data, public_name(data))

    def _training_command(self) -> str:
        return training_command(self.run.recipe, self.data or "DIR", str(self.run.out))

    def _next(self) -> list[Block]:
        out, data = shlex.quote(str(self.run.out)), shlex.quote(self.data or "DIR")
        if not self.run.finished:
            last = ("Go on where it stopped:", self._command() or self._training_command())
        else:
            schedule = self.run.recipe["schedule"]
            lengths = {name: _LONGER * schedule[name] for name in ("epochs", "steps") if name in schedule}
            longer = self.run.recipe | {"schedule": schedule | lengths}
            last = (
                "Train three times as long, which helps as long as the last curve still rises:",
                training_command(longer, self.data or "DIR", f"{self.run.out}-longer"),
            )
        return [
            "Use it on images of yours:",
            Preformatted(f"botformer predict IMAGES --checkpoint {out}"),
            "Look for labels that it contradicts; mending them helps more than most settings:",
            Preformatted(f"botformer data {data} --checkpoint {out}"),
            last[0],
            Preformatted(last[1]),
        ]

    def _drawing(self, name: str, caption: str) -> list[Block]:
        file = self.run.out / EVALUATION / name
        if not file.is_file():
            return []
        return [ImageBlock(compact(file, self.folder), caption)]


_PURPOSE = {"train": "train on", "validation": "validate on", "test": "test on"}


def _of_all(classes: int) -> str:
    """What a chart leaves out."""
    return f" ({_CLASSES} of {classes:,})" if classes > _CLASSES else ""


def _headline(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    if metrics["task"] != "detection":
        numbers = [("accuracy", metrics["top1"]), ("among the best five", metrics.get("top5"))]
        return [(name, f"{value:.1%}") for name, value in numbers if value is not None]
    kinds = [kind for kind in ("keypoints", "mask", "box") if kind in metrics]
    return [
        (f"{kind} {name}", f"{metrics[kind][name]:.3f}" if metrics[kind][name] >= 0 else "nothing to find")
        for kind in kinds
        for name in ("AP", "AP50")
    ]


def _cells(row: dict[str, Any], names: list[str]) -> list[str]:
    def text(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return [text(row.get(name)) for name in names]
