"""The generated tables of docs/paper.md and docs/which_blocks.md, for `write_tables.py`."""

import torch

from botformer.backbone.blocks import NonLocal
from botformer.backbone.flops import count
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import PUBLISHED, ROWS, Row
from botformer.create import create_backbone
from botformer.recipes import EXPERIMENTS
from botformer.recipes.experiment import NOT_IN_THE_PAPER, Experiment
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe

Table = tuple[list[str], list[list[str]]]
"""Head and lines."""

_OF_THE_PAPER = ("resnet50", "resnet1", "resnet2", "botnet50", "botnet1", "botnet2", "botnet_", "se_resnet")
_OURS = ("_half", "_cifar", "_mini", "_nano")


def counts_table() -> Table:
    """The rows of the paper, at the sizes for which it has a figure and at those for which a row is made."""
    lines = []
    for name, row in ROWS.items():
        if not name.startswith(_OF_THE_PAPER) or name.endswith(_OURS):
            continue
        published = {each.image_size: each for each in PUBLISHED.get(name, ())}
        for size in sorted({row.image_size, *published} | ({320} if name == "botnet_t7" else set())):
            counts, without, paper = count(row, size), count(row, size, tables=False), published.get(size)
            parameters = (f"{counts.parameters:,}", f"{without.parameters:,}", paper.parameters if paper else "")
            products = (f"{counts.multiply_adds / 1e9:.3f}e9", paper.multiply_adds if paper else "")
            lines.append([name, str(size), *parameters, *products])
    head = "model, pixels, parameters, without tables, paper: parameters, multiply-adds, paper: multiply-adds"
    return head.split(", "), lines


def imagenet_table() -> Table:
    lines = []
    for experiment in _experiments(ClassificationRecipe):
        recipe = experiment.recipe
        numbers = (recipe.images.size, recipe.schedule.epochs, f"{recipe.run.batch_size:,}")
        lines.append([experiment.name, *map(str, numbers), experiment.expect.removeprefix("paper: "), experiment.cost])
    return ["recipe", "pixels", "epochs", "batch", "paper", "ours"], lines


def coco_table() -> Table:
    lines = []
    for experiment in _experiments(DetectionRecipe):
        recipe = experiment.recipe
        assert isinstance(recipe, DetectionRecipe)
        low, high = recipe.images.scale_jitter
        place = experiment.paper.replace("table number unknown, ", "")
        printed = experiment.expect.removeprefix("paper: ").removesuffix(" box / mask AP")
        numbers = (recipe.images.size, recipe.schedule.epochs, f"{low} to {high}")
        lines.append([experiment.name, *map(str, numbers), place, printed, experiment.cost])
    return ["recipe", "pixels", "epochs", "scale jitter", "paper: where", "paper: box / mask AP", "ours"], lines


def _experiments(kind: type[ClassificationRecipe] | type[DetectionRecipe]) -> list[Experiment]:
    rows = [row for row in EXPERIMENTS.values() if row.paper != NOT_IN_THE_PAPER]
    return [row for row in rows if isinstance(row.recipe, kind)]


def blocks_table() -> Table:
    """Which blocks of a row attend, and to which maps at its image size, as the built network says it."""
    lines = []
    for name, row in ROWS.items():
        attention, maps, pools = _attention_of(name, row) if row.c5 == "attention" or row.inserted else ([], [], [])
        if row.c5 == "attention":
            attention = [f"all {row.blocks[3]} of c5" if row.blocks[3] > 1 else "the one of c5"]
        blocks, se = ",".join(map(str, row.blocks)), "convolution blocks" if row.squeeze_excite else ""
        where = (", ".join(attention) or "none", ", ".join(dict.fromkeys(maps)), ", ".join(pools))
        lines.append([name, str(row.image_size), blocks, *where, se])
    head = ["model", "pixels", "blocks of c2 to c5", "attention in", "on maps of", "average pool after", "SE in"]
    return head, lines


def _attention_of(name: str, row: Row) -> tuple[list[str], list[str], list[str]]:
    """Blocks with attention, the map of each, and those after whose attention a pool follows."""
    with torch.device("meta"):
        backbone = create_backbone(name)
    blocks, maps, pools = [], [], []
    for place, module in backbone.named_modules():
        block = place.removesuffix(".conv2")
        if isinstance(module, MHSA2d):
            height, width = module.size
            pools += [block] if module.pool else []
        elif isinstance(module, NonLocal):
            height = width = -(-row.image_size // module.key_stride)
        else:
            continue
        blocks.append(block)
        maps.append(f"{height}x{width}")
    return blocks, maps, pools
