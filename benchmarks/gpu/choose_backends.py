"""What `auto` shall take on this card: the fastest of our backends in the attention suite, as a table."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import tables
from botformer.attention.backends import BACKENDS

OURS = "ours, "
DTYPE, HEAD = "bfloat16", 128
"""What the attention suite measures on a GPU."""


def write_choice(receipt: Path, results: Path, quick: bool) -> Path:
    """cuda_backends.json in the folder of receipts and, unless it was a quick run, in the package."""
    content = json.loads(receipt.read_text(encoding="utf-8"))
    card = {"card": content["hardware"]["gpu"], "torch": content["versions"]["torch"], "receipt": receipt.name}
    major, minor = (9, 0) if quick else torch.cuda.get_device_capability()
    entry = card | {"rows": choose(content["figures"])}
    path = tables.store(tables.CHOICE_FILE, f"{major}.{minor}", entry, results)
    if not quick:
        tables.install(results)
    return path


def choose(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per map and pass: the backend with the least time, geometric mean over the batch sizes.

    Only backends that ran, and were right, at every batch size of that map take part.
    """
    batches: dict[tuple[str, str], dict[Any, dict[str, float]]] = {}
    for row in figures:
        name = row["implementation"].removeprefix(OURS)
        if "map" in row and name in BACKENDS and "ms" in row:
            of_map = batches.setdefault((row["map"], row["pass"]), {})
            of_map.setdefault(row["batch"], {})[name] = row["ms"]
    chosen = []
    for (size, which), by_batch in batches.items():
        everywhere = set.intersection(*(set(times) for times in by_batch.values()))
        mean = {
            name: math.exp(sum(math.log(times[name]) for times in by_batch.values()) / len(by_batch))
            for name in sorted(everywhere)
        }
        if mean:
            height, width = map(int, size.split("x"))
            ms = {name: round(value, 4) for name, value in mean.items()}
            row = {"dtype": DTYPE, "head": HEAD, "height": height, "width": width, "pass": which}
            chosen.append(row | {"backend": min(mean, key=lambda name: mean[name]), "ms": ms})
    return chosen
