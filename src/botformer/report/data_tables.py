"""The numbers of a data set as tables and bars, for the terminal and for a page."""

from collections import Counter

import numpy as np

from botformer.data.detection.dataset import DetectionDataset
from botformer.plots.html_report import Bars, Table
from botformer.report.image_findings import Facts
from botformer.report.label_findings import label_counts, records
from botformer.report.opened_data import OpenedData

_CANVASES = (320, 512, 640, 800, 1024, 1333)
_SEEN_PX = (4, 16, 32)
MOST_CLASSES = 100
"""In a chart."""


def split_table(data: OpenedData, facts: Facts) -> Table:
    """A row per split."""
    detection = data.is_detection
    header = ["split", "images", "unreadable", *(["objects", "crowds", "empty images"] if detection else ["classes"])]
    rows = []
    for split in data.splits:
        row = [split.name, f"{len(split):,}", f"{sum(bool(fact.problem) for fact in facts[split.name]):,}"]
        if isinstance(split.dataset, DetectionDataset):
            empty = sum(not record.annotations for record in records(split.dataset))
            row += [f"{split.dataset.objects:,}", f"{split.dataset.crowds:,}", f"{empty:,}"]
        else:
            row.append(f"{np.count_nonzero(label_counts(split, len(data.class_names))):,}")
        rows.append(row)
    return Table(header, rows)


def class_bars(data: OpenedData) -> Bars:
    """Images, or objects, of each class in each split; of very many classes the most and the least frequent."""
    counts = [label_counts(split, len(data.class_names)) for split in data.splits]
    order = np.argsort(-counts[0], kind="stable").tolist()
    if len(order) > MOST_CLASSES:
        order = [*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]]
    return Bars(
        [split.name for split in data.splits],
        [(data.class_names[place], [int(of_split[place]) for of_split in counts]) for place in order],
    )


def bars_left_out(data: OpenedData) -> str:
    """Which classes `class_bars` shows, where it does not show all."""
    count, half = len(data.class_names), MOST_CLASSES // 2
    return f"The {half} most and the {half} least frequent of {count:,} classes." if count > MOST_CLASSES else ""


def size_table(data: OpenedData, facts: Facts) -> Table:
    """Of the images, in pixels."""
    rows = []
    for split in data.splits:
        headers = [fact.header for fact in facts[split.name] if fact.header is not None]
        if headers:
            sizes = np.array([(header.width, header.height) for header in headers])
            area = np.argsort(sizes.prod(1), kind="stable")
            low, middle, high = (f"{w}x{h}" for w, h in sizes[area[[0, len(area) // 2, -1]]].tolist())
            ratio = sizes[:, 0] / sizes[:, 1]
            rows.append(
                [split.name, low, middle, high, f"{ratio.min():.2f}", f"{np.median(ratio):.2f}", f"{ratio.max():.2f}"]
            )
    return Table(("split", "smallest", "median", "largest", "least width/height", "median", "greatest"), rows)


def format_table(data: OpenedData, facts: Facts) -> Table:
    """How many images are of each format and mode, all splits together."""
    headers = [fact.header for split in data.splits for fact in facts[split.name] if fact.header is not None]
    counts = Counter((header.format, header.mode) for header in headers)
    return Table(("format", "mode", "images"), [(*key, f"{count:,}") for key, count in counts.most_common()])


def canvas_table(data: OpenedData, canvas: float) -> Table:
    """How large objects come out on canvases of several sizes, of all splits together."""
    sizes = np.concatenate([_object_sizes(split.dataset) for split in data.splits])
    sides, longest = sizes.astype(np.float64).T
    rows = []
    for size in sorted({*_CANVASES, int(canvas)}):
        seen = sides / longest * size
        fractions = [f"{np.mean(seen < limit):.1%}" if len(seen) else "-" for limit in _SEEN_PX]
        median = f"{np.median(seen):.0f}" if len(seen) else "-"
        rows.append([f"{size} px{' (judged by)' if size == int(canvas) else ''}", *fractions, median])
    return Table(("canvas", *(f"under {limit} px" for limit in _SEEN_PX), "median px"), rows)


def objects_table(data: OpenedData) -> Table:
    """Objects per image."""
    rows = []
    for split in data.splits:
        assert isinstance(split.dataset, DetectionDataset)
        counts = np.array(
            [sum(not each.crowd for each in record.annotations) for record in records(split.dataset)] or [0]
        )
        rows.append(
            [split.name, f"{counts.min()}", f"{np.median(counts):g}", f"{counts.mean():.1f}", f"{counts.max()}"]
        )
    return Table(("objects per image", "least", "median", "mean", "most"), rows)


def _object_sizes(dataset: object) -> np.ndarray:
    return dataset.object_sizes if isinstance(dataset, DetectionDataset) else np.empty((0, 2), dtype=np.float32)
