"""What is generated in README.md and docs/: the tables of results, models and layouts of data, the index of decisions.

python docs/write_tables.py            # write them
python docs/write_tables.py --check    # fail if a page is not what it would write
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "docs")]  # rows of the tests, of the scaling page

import command_line  # noqa: E402
import paper_tables  # noqa: E402
import scaling_tables  # noqa: E402

from botformer.commands.models import rows as model_rows  # noqa: E402
from tests.data.classification.layout_examples import CLASSIFICATION_LAYOUTS  # noqa: E402
from tests.data.detection.layout_examples import LAYOUTS  # noqa: E402
from tests.data.layout_row import markdown_table  # noqa: E402

README, MODELS, DECISIONS = ROOT / "README.md", ROOT / "docs/models.md", ROOT / "docs/decisions/README.md"
DATA, DEPLOY, PREDICT = ROOT / "docs/data.md", ROOT / "docs/deploy.md", ROOT / "docs/predict.md"
SCALING, PAPER, BLOCKS = ROOT / "docs/scaling.md", ROOT / "docs/paper.md", ROOT / "docs/which_blocks.md"
CLI, RESULTS_PAGE, SERVE = ROOT / "docs/cli.md", ROOT / "docs/results.md", ROOT / "docs/serve.md"

Labels = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """One line of the table of results. A receipt's figure is found by its column and by the labels of its row."""

    what: str
    """{gpu} is the receipt's."""
    receipt: str
    column: str
    form: str
    """How a figure is written."""
    ours: Labels = field(default_factory=dict)
    others: Mapping[str, Labels] = field(default_factory=dict)
    """Name -> labels that differ from those of `ours`."""
    paper: str = ""
    in_readme: bool = False


_MAP = {"map": "64x64", "batch": 1, "implementation": "ours, tiled"}
_OTHERS = {name: {"implementation": name} for name in ("timm", "lucidrains", "FlexAttention")}
_PX = {"px": 1024, "batch": 1, "implementation": "botnet50, ours"}
_CLASSIFIER = {"network": "classifier", "px": 224, "batch": 1}
_WITH = {
    f"attention of {name}": {"implementation": f"botnet50, attention of {name}"} for name in ("timm", "lucidrains")
}

RESULTS = (
    Result(
        "attention, 64x64 positions, forward: ms",
        "attention_cpu",
        "ms",
        ".4g",
        _MAP | {"pass": "forward"},
        _OTHERS,
    ),
    Result(
        "attention, 64x64 positions, forward and backward: ms",
        "attention_cpu",
        "ms",
        ".4g",
        _MAP | {"pass": "both"},
        {name: _OTHERS[name] for name in ("timm", "lucidrains")},
        in_readme=True,
    ),
    Result(
        "the same, peak memory: MiB",
        "attention_cpu",
        "peak_mib",
        ".4g",
        _MAP | {"pass": "both"},
        {name: _OTHERS[name] for name in ("timm", "lucidrains")},
        in_readme=True,
    ),
    Result(
        "BoTNet-50, inference at 1024 px: time / ResNet-50's",
        "model_cpu",
        "ratio",
        ".2f",
        _PX | {"mode": "inference"},
        _WITH,
    ),
    Result(
        "BoTNet-50, training step at 1024 px: time / ResNet-50's",
        "model_cpu",
        "ratio",
        ".2f",
        _PX | {"mode": "training step"},
        _WITH,
        "1.31 (TPU-v3)",
        in_readme=True,
    ),
    Result(
        "BoTNet-50, inference, 8 images of 224 px, compiled, bfloat16: ms",
        "model_cpu",
        "ms",
        ".4g",
        {"mode": "deployed in bfloat16", "implementation": "botnet50, deployed and compiled"},
        {
            "torchvision's ResNet-50 in eager float32": {"implementation": "torchvision resnet50, eager, float32"},
            "ResNet-50 likewise": {"implementation": "resnet50, deployed and compiled"},
        },
    ),
    Result(
        "EfficientNet-B7 at 600 px, training step: time / BoTNet-T7's at 384 px",
        "headline_cpu",
        "ratio",
        ".2f",
        {"group": "botnet_t7", "implementation": "efficientnet_b7, 600 px"},
        paper="up to 1.64 (TPU-v3)",
    ),
    Result(
        "Mask R-CNN with BoTNet-50, training step at 1024 px: time / with ResNet-50",
        "detection_cpu",
        "ratio",
        ".2f",
        {"px": 1024, "mode": "training step", "implementation": "Mask R-CNN, botnet50"},
    ),
    Result(
        "nuclei, 1,040 steps from random weights, mean of three seeds: mask AP",
        "nuclei_proof",
        "mask AP",
        ".3f",
        {"predictor": "botnet50", "seed": "mean"},
        {"ResNet-50": {"predictor": "resnet50"}},
    ),
    Result(
        "nuclei, half width, ImageNet weights at a fifth of the learning rate, 4 epochs, three seeds: mask AP in "
        "points",
        "evidence_detection",
        "mask_AP",
        ".1f",
        {"arm": "nuclei BoT50", "seed": "mean"},
        {"ResNet-50": {"arm": "nuclei R50"}},
    ),
    Result(
        "nuclei, half width, ImageNet weights at a fifth of the learning rate, 8 epochs, three seeds that do not "
        "tell them apart: mask AP in points",
        "evidence_detection",
        "mask_AP",
        ".1f",
        {"arm": "nuclei BoT50 x2", "seed": "mean"},
        {"ResNet-50": {"arm": "nuclei R50 x2"}},
    ),
    Result(
        "nuclei, half width, ImageNet weights at a fifth of the learning rate, 16 epochs, three seeds that do not "
        "tell them apart: mask AP in points",
        "evidence_long-schedule",
        "mask_AP",
        ".1f",
        {"arm": "nuclei BoT50 x4", "seed": "mean"},
        {"ResNet-50": {"arm": "nuclei R50 x4"}},
        in_readme=True,
    ),
    Result(
        "nuclei likewise, 4 epochs with all weights at the full rate, five seeds: mask AP in points",
        "evidence_detection",
        "mask_AP",
        ".1f",
        {"arm": "nuclei BoT50 one rate", "seed": "mean"},
        {"ResNet-50": {"arm": "nuclei R50 one rate"}},
    ),
    Result(
        "photographs of six classes, half width and weights likewise, 4 epochs, three seeds that do not tell them "
        "apart: top-1 in percent",
        "evidence_classification",
        "top1",
        ".1f",
        {"arm": "photos BoT50", "seed": "mean"},
        {"ResNet-50": {"arm": "photos R50"}},
        in_readme=True,
    ),
    Result(
        "BoTNet-50 in OpenVINO, int8 (a graph of before "
        "[decision 99](decisions/0099-no-answer-depends-on-its-batch.md)), one image of 224 px: ms",
        "deploy_cpu",
        "ms",
        ".3g",
        _CLASSIFIER | {"implementation": "botnet50, OpenVINO, int8"},
        {
            "torchvision's ResNet-50 in eager float32": {"implementation": "torchvision resnet50, eager, float32"},
            "ResNet-50 likewise": {"implementation": "resnet50, OpenVINO, int8"},
        },
    ),
    Result(
        "Mask R-CNN with BoTNet-50 in OpenVINO, int8, one image of 800 px: ms",
        "deploy_cpu",
        "ms",
        ".4g",
        {"network": "Mask R-CNN", "implementation": "Mask R-CNN, botnet50, OpenVINO, int8"},
        {
            "torchvision's with ResNet-50 in eager float32": {
                "implementation": "torchvision's Mask R-CNN, resnet50, eager, float32"
            },
            "ours in PyTorch in bfloat16": {"implementation": "Mask R-CNN, botnet50, optimized, bfloat16"},
        },
        in_readme=True,
    ),
    Result(
        "{gpu}, attention, 8 images of 64x64 positions, forward and backward: ms",
        "attention_gpu",
        "ms",
        ".3g",
        {"map": "64x64", "batch": 8, "pass": "both", "implementation": "ours, triton"},
        {
            **_OTHERS,
            "flash attention without positions": {"implementation": "no position, flash"},
            "cuDNN's without positions": {"implementation": "no position, cuDNN"},
        },
        in_readme=True,
    ),
    Result(
        "{gpu}, BoTNet-50, training step at 1024 px, eager: time / ResNet-50's",
        "model_gpu",
        "ratio",
        ".2f",
        _PX | {"batch": 4, "mode": "training step"},
        _WITH,
        "1.31 (TPU-v3)",
        in_readme=True,
    ),
    Result(
        "the same as a CUDA graph: ms",
        "model_gpu",
        "ms",
        ".3g",
        {"px": 1024, "mode": "training step, CUDA graph", "implementation": "botnet50, ours, CUDA graph"},
        {"ResNet-50": {"implementation": "resnet50, CUDA graph"}},
    ),
    Result("nuclei, the network of the package: mask AP", "nuclei_shipped", "mask/AP", ".3f"),
    Result(
        "`train classify --minutes 15`, one core, 2,018 photographs of six classes, ResNet-50 of half width, the best "
        "checkpoint on the images it is measured on: top-1",
        "own_images_cpu",
        "top1",
        ".3f",
        {"row": "photos, 15 minutes"},
        {"botnet_mini from random weights": {"row": "photos, 15 minutes, random weights"}},
        in_readme=True,
    ),
    Result(
        "`train segment --minutes 45`, one core, nuclei, ResNet-50 of half width, best checkpoint likewise: mask AP",
        "own_images_cpu",
        "mask_AP",
        ".3f",
        {"row": "nuclei, 45 minutes"},
        in_readme=True,
    ),
    Result(
        "`train segment --minutes 20`, one core, 61 photographs of balloons, ResNet-50 of half width, best checkpoint "
        "likewise: mask AP50",
        "own_images_cpu",
        "mask_AP50",
        ".3f",
        {"row": "balloons, 20 minutes"},
        {"botnet_nano from random weights": {"row": "balloons, 20 minutes, random weights"}},
    ),
    Result("`make demo`, digits on photographs: top-1", "demo", "digits top1", ".3f"),
)


def results_table(rows: Iterable[Result], results: str) -> str:
    """`results`: where the receipts are, from the page."""
    lines = ["| what | ours | others | paper | receipt |", "|---|---|---|---|---|"]
    for result in rows:
        receipt = json.loads((ROOT / f"results/{result.receipt}.json").read_text(encoding="utf-8"))

        def shown(
            labels: Labels,
            result: Result = result,
            figures: Any = receipt["figures"],
            gpu: Any = receipt["hardware"]["gpu"],
        ) -> str:
            figure = _figure(figures, result.column, labels)
            assert figure is not None or gpu, (result.what, labels)
            return "not measured" if figure is None else f"{figure:{result.form}}"

        what = result.what.format(gpu=_card(receipt["hardware"]["gpu"]))
        others = ", ".join(f"{name} {shown({**result.ours, **labels})}" for name, labels in result.others.items())
        link = f"[{result.receipt}]({results}/{result.receipt}.json)"
        lines.append(f"| {what} | {shown(result.ours)} | {others} | {result.paper} | {link} |".replace("  ", " "))
    return "\n".join(lines)


def _figure(figures: Any, column: str, labels: Labels) -> float | None:
    """None where the receipt has no such row: a GPU's receipts are measured in several calls."""
    if isinstance(figures, dict):
        return figures[column]
    found = [row[column] for row in figures if labels.items() <= row.items()]
    assert len(found) < 2, (column, labels)
    return found[0] if found else None


def _card(gpu: str | None) -> str:
    """H100 of "NVIDIA H100 80GB HBM3"; other names whole."""
    name = (gpu or "no GPU").removeprefix("NVIDIA ")
    of_a_server = re.match(r"[A-Z]+\d+(?= )", name)
    return of_a_server[0] if of_a_server else name


def models_table() -> str:
    lines, notes = model_rows()
    table = ["| model | pixels | parameters | paper | multiply-adds | paper |", "|---|---|---|---|---|---|"]
    table += ["| " + " | ".join(cell.replace("*", "\\*") for cell in line) + " |" for line in lines]
    text = "\n".join(table).replace("  ", " ")
    return "\n\n".join([text, *(note.replace("*", "\\*") for note in notes)])


def decisions_index() -> str:
    pages = sorted(DECISIONS.parent.glob("[0-9]*.md"))
    titles = [page.read_text(encoding="utf-8").splitlines()[0] for page in pages]
    return "\n".join(
        f"* {page.name[:4]} [{re.sub(r'^# [0-9]+[.] ', '', title)}]({page.name})"
        for page, title in zip(pages, titles, strict=True)
    )


def figures_of(receipt: str) -> list[dict[str, Any]]:
    """No rows where nothing was measured yet."""
    file = ROOT / f"results/{receipt}.json"
    return json.loads(file.read_text(encoding="utf-8"))["figures"] if file.is_file() else []


def formats_table() -> str:
    """Networks that give the same cells share a line."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in figures_of("export_matrix"):
        cells = ("sizes", "meaning", "differences, traced", "differences, not traced")
        shown = (row["format"], row["precision"], *(row.get(cell, "") for cell in cells), row.get("refused", ""))
        lines.setdefault(shown, []).append(row["network"])
    return _markdown(
        ["format", "network", "precision", "sizes", "what it means", "difference, traced", "not traced", "refused"],
        [[shown[0], ", ".join(networks), *shown[1:]] for shown, networks in lines.items()],
    )


def speed_table() -> str:
    """Milliseconds, and how many times as fast as the first of the case, which is torchvision's in eager mode."""
    rows = [
        [
            f"{row['network']}, {row['px']} px, batch {row['batch']}",
            row["implementation"],
            f"{row['ms']:.4g}" if "ms" in row else "",
            f"{1 / row['ratio']:.2f}" if "ratio" in row else "",
            row.get("left_out", ""),
        ]
        for row in figures_of("deploy_cpu")
    ]
    return _markdown(["network", "how it runs", "ms", "times as fast as torchvision's", "left out"], rows)


def accuracy_table() -> str:
    keys = ("network", "format", "precision", "metric", "score", "difference", "over", "left_out")
    rows = [[str(row.get(key, "")) for key in keys] for row in figures_of("deployed_accuracy_cpu")]
    return _markdown([key.replace("_", " ") for key in keys], rows)


def predictor_table() -> str:
    return _markdown(
        ["network", "bare loop: images/s", "predictor: images/s", "ratio within a round, median", "lowest", "highest"],
        [
            [
                f"{row['network']}, {row['side_px']} px, batches of {row['batch_size']}",
                *(f"{row[f'{way}_images_per_s']:.1f}" for way in ("bare", "predictor")),
                *(f"{row[name]:.2f}" for name in ("ratio", "ratio_low", "ratio_high")),
            ]
            for row in figures_of("predictor_cpu")
        ],
    )


def ray_table() -> str:
    rows = figures_of("ray_overhead_cpu")
    numbers = [name.partition("_")[2] for name in (rows[0] if rows else ()) if re.fullmatch(r"seconds_\d+", name)]
    return _markdown(
        ["engine", *(f"{int(number):,} images: s" for number in numbers), "start: s", "then: images/s"],
        [
            [
                f"{row['engine']}, {row['model']}, {row['cores']} cores",
                *(f"{row[f'seconds_{number}']:.1f}" for number in numbers),
                f"{row['start_s']:.1f}",
                f"{row['images_per_s']:.1f}",
            ]
            for row in rows
        ],
    )


def serve_table() -> str:
    rows = []
    for row in figures_of("serve_cpu"):
        latency = [f"{row[name] / 1000:.2f}" if name in row else "" for name in ("p50_ms", "p95_ms")]
        memory = f"{row['memory_mib_first']} to {row['memory_mib_last']}" if "memory_mib_first" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        counts = [str(row.get(name, "")) for name in ("images_per_batch", "broken", "not_theirs")]
        way = f"{row['way']}, {row['network']}, {row['cores']} cores"
        rows.append([way, f"{row['images_per_s']:.1f}", ratio, *latency, *counts, memory])
    return _markdown(
        ["", "images/s", "of the predictor's", "p50: s", "p95: s", "images per batch", "broken images",
         "errors that were not theirs", "memory: MiB"],
        rows,
    )  # fmt: skip


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table without the columns that are empty; nothing where there are no rows."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    if not rows:
        return "Not measured yet."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line[place].replace("|", "\\|") for place in kept) + " |" for line in lines)


PARTS: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (README, "results", lambda: results_table([row for row in RESULTS if row.in_readme], "results")),
    (RESULTS_PAGE, "results", lambda: results_table(RESULTS, "../results")),
    (CLI, "commands", command_line.sections),
    (DATA, "class folders", lambda: markdown_table(CLASSIFICATION_LAYOUTS).rstrip()),
    (DATA, "objects", lambda: markdown_table(LAYOUTS).rstrip()),
    (MODELS, "models", models_table),
    (PREDICT, "speed", predictor_table),
    (PREDICT, "ray", ray_table),
    (SERVE, "serve", serve_table),
    (DEPLOY, "formats", formats_table),
    (DEPLOY, "speed", speed_table),
    (DEPLOY, "accuracy", accuracy_table),
    (SCALING, "check", lambda: _markdown(*scaling_tables.check_table())),
    (SCALING, "parts", lambda: _markdown(*scaling_tables.parts_table())),
    (SCALING, "hours", lambda: _markdown(*scaling_tables.hours_table())),
    (SCALING, "steps", lambda: _markdown(*scaling_tables.step_table())),
    (SCALING, "networks", lambda: _markdown(*scaling_tables.network_table())),
    (SCALING, "bulk", lambda: _markdown(*scaling_tables.bulk_table())),
    (PAPER, "imagenet", lambda: _markdown(*paper_tables.imagenet_table())),
    (PAPER, "coco", lambda: _markdown(*paper_tables.coco_table())),
    (PAPER, "counts", lambda: _markdown(*paper_tables.counts_table())),
    (BLOCKS, "blocks", lambda: _markdown(*paper_tables.blocks_table())),
    (DECISIONS, "index", decisions_index),
)


def main(check: bool) -> None:
    for path, name, make in PARTS:
        text = path.read_text(encoding="utf-8")
        start, end = f"<!-- {name}: python docs/write_tables.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        assert after, f"{path} lacks the marks of {name}"
        written = before + start + make() + "\n" + end + after
        if check and written != text:
            sys.exit(f"{path.relative_to(ROOT)} is out of date: python docs/write_tables.py")
        path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main(check="--check" in sys.argv)
