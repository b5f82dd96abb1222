"""THE TABLE of docs/gallery.md: what each image shows, the lines that make it, and the function that draws it.

The lines are run as they stand, commands and Python alike, in a folder that has the files they name; `prepare.py` makes
it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import attention
import classification
import segmentation

Draw = Callable[[dict[str, Any]], Any]
"""Names that the Python lines leave behind -> a figure of matplotlib or an image of Pillow."""


@dataclass(frozen=True)
class Row:
    file: str
    """Of the image: .jpg for photographs, .png for charts."""
    title: str
    sentence: str
    code: str
    """Commands, a line each, or lines of Python."""
    draw: Draw
    by_hand: bool = False
    """The command takes minutes: its result is an argument of the script, which does not run it again."""

    @property
    def is_python(self) -> bool:
        return not self.code.startswith("botformer ")

    @property
    def lines(self) -> list[str]:
        return self.code.splitlines()


SECTIONS: dict[str, tuple[Row, ...]] = {
    "Find and outline": (
        Row(
            "dense.jpg",
            "Hundreds of nuclei",
            "The network of the package outlines what is in focus; most blurred nuclei, which people outlined too, are "
            "missed.",
            "botformer predict dense.png --out drawn",
            segmentation.dense,
        ),
        Row(
            "sparse.jpg",
            "A few faint ones",
            "Seven are found, the seven that people outlined. Dark images are brightened for the drawing alone.",
            'import botformer\n\nresult = botformer.predictor("nuclei")("sparse.png")',
            segmentation.beside,
        ),
        Row(
            "large.jpg",
            "Large nuclei, ten times the area",
            "One network for all of these images. Below right, where nuclei lie side by side, the outlines tangle.",
            'import botformer\n\nresult = botformer.predictor("nuclei")("large.png")',
            segmentation.beside,
        ),
        Row(
            "histology.jpg",
            "Where it fails: crowded histology",
            "Of 98 annotated nuclei many are missed or merged. Five sixths of the training images are grey, "
            "bright nuclei on black; stained tissue has dark ones, side by side.",
            'import botformer\n\nresult = botformer.predictor("nuclei")("histology.png")',
            segmentation.beside,
        ),
        Row(
            "truth.jpg",
            "Truth beside prediction",
            "`evaluate` measures, and draws what people outlined beside what was found: large nuclei, and "
            "crowded histology.",
            "botformer evaluate nuclei --data mixed --out measured",
            segmentation.truth,
        ),
        Row(
            "tiles.jpg",
            "Tiles on a large image",
            "A large image is cut into tiles that overlap by a quarter or more, so that whatever is small enough lies "
            "whole in one of them.",
            "from botformer.tile_grid import tile_grid\n\n"
            "tiles = tile_grid((603, 1272), 320)  # (left, top, right, bottom) each",
            segmentation.tiles,
        ),
        Row(
            "sliced.jpg",
            "Whole, and in tiles",
            "A fruit fly's embryo: fitted to the network's canvas its nuclei are a few pixels wide and most of "
            "the 199 are missed; in tiles most are found, and four squares that are none.",
            "botformer predict embryo.png --out whole\nbotformer predict embryo.png --tile 320 --out in_tiles",
            segmentation.sliced,
        ),
        Row(
            "precision_recall.png",
            "Precision and recall",
            "`evaluate` draws it, too: of the same two images, by how much a box or mask must overlap.",
            "botformer evaluate nuclei --data mixed --out measured",
            segmentation.precision_recall,
        ),
    ),
    "What attention looks at": (
        Row(
            "heads.jpg",
            "Four heads, from one nucleus",
            "From the ring: heads 1 and 2 rest on a few cells, head 3 looks at many, most of them between nuclei, and "
            "head 4 almost everywhere alike.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("nuclei")\n'
            'seen = explain.see(config, "cells.png")\n'
            "query = seen.pixel(248, 307)  # y, x\n"
            "(layer,) = explain.attention_heads(model, seen.pixels, query)",
            attention.heads,
        ),
        Row(
            "terms.jpg",
            "Content against position",
            "A logit of head 1 has two terms: what a cell contains, and how far above or below, left or right it lies. "
            "Here content decides most.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("nuclei")\n'
            'seen = explain.see(config, "cells.png")\n'
            "query = seen.pixel(248, 307)\n"
            "(layer,) = explain.attention_heads(model, seen.pixels, query)\n"
            "layer.content_alone, layer.position_alone, layer.attention  # (heads, height, width) each",
            attention.terms,
        ),
        Row(
            "positions.png",
            "What the position tables have learnt",
            "The position term over the offsets of up to 23 cells that were trained, from the query (the ring): orange "
            "attracts, violet repels.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("nuclei")\n'
            'seen = explain.see(config, "cells.png")\n'
            "layers = explain.position_maps(model, seen.pixels)",
            attention.positions,
        ),
        Row(
            "grad_cam.jpg",
            "What raises the score of a detection",
            "Grad-CAM on the level of the pyramid from which the detection was read.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("nuclei")\n'
            'seen = explain.see(config, "cells.png")\n'
            "(found,) = model(model.preprocess([seen.pixels]))\n"
            'box, label = found["boxes"][20].tolist(), int(found["labels"][20])\n'
            "cam = explain.grad_cam_of_detection(model, seen.pixels, box, label)",
            attention.grad_cam,
        ),
        Row(
            "layers.jpg",
            "A classifier by layer and head",
            "The three blocks of BoTNet's last stage, from the middle of a photograph. After three passes over "
            "the data "
            "the third looks everywhere alike: it averages.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("runs/photos")\n'
            'seen = explain.see(config, "can.jpg")\n'
            "query = seen.pixel(128, 96)\n"
            "layers = explain.attention_heads(model, seen.pixels, query)",
            attention.layers,
        ),
        Row(
            "rollout.jpg",
            "Rollout, and Grad-CAM of a class",
            "What the answer is made of through all attention layers, and what speaks for the class in the last map.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("runs/photos")\n'
            'seen, name = explain.see(config, "bottle.jpg"), "glass"\n'
            "flow = explain.rollout(model, seen.pixels)\n"
            'cam = explain.grad_cam(model, seen.pixels, config["class_names"].index(name))',
            attention.rollout,
        ),
        Row(
            "sizes.jpg",
            "Any height and width",
            "One set of position tables for every shape: long, small, odd, one row of cells. The mean of the "
            "heads, from "
            "the middle.",
            "import botformer\nfrom botformer import explain\n\n"
            'model, config = botformer.load("nuclei")\n'
            'pixels, looked = explain.see(config, "cells.png").pixels, {}\n'
            "for height, width in (512, 512), (333, 97), (301, 203), (77, 77), (129, 480), (64, 320), (96, 301):\n"
            "    part, query = pixels[:, :height, :width], (height / 2, width / 2)\n"
            "    looked[height, width] = part, query, *explain.attention_heads(model, part, query)",
            attention.sizes,
        ),
        Row(
            "listing.jpg",
            "The paper's layer, and a copied listing",
            "On an even map nothing but positions can tell cells apart. The widely copied single-file version "
            "multiplies "
            "its table with the wrong factor, so its positions change nothing here, wherever it looks from.",
            "import torch\nimport botformer\n\n"
            "torch.manual_seed(3)\n"
            "even, looked = torch.randn(1, 64, 1, 1).expand(1, 64, 14, 14), {}\n"
            'for position in "relative", "blog":\n'
            "    layer = botformer.MHSA2d(64, heads=1, size=(14, 14), position=position)\n"
            "    torch.nn.init.normal_(layer.qkv.weight, std=0.3)\n"
            "    cells = (2, 2), (6, 9), (12, 4), (7, 7)\n"
            "    looked[position] = [(cell, layer.attention_from(even, cell)[0, 0].numpy(force=True)) for cell "
            "in cells]",
            attention.listing,
        ),
    ),
    "Classify": (
        Row(
            "bars.jpg",
            "A photograph, its classes, and where each layer looks",
            "`predict` draws this of each of the first hundred images. This is one of which the network is sure.",
            "botformer predict can.jpg --checkpoint runs/photos --out classes",
            classification.bars,
        ),
        Row(
            "confusion.png",
            "Which classes are confused",
            "On 503 photographs of waste: truth in rows, predictions in columns.",
            "botformer evaluate runs/photos --data photos --out confused",
            classification.confusion,
        ),
        Row(
            "digits.jpg",
            "Digits that nobody has seen",
            "The small classifier of `botformer demo`, right in nine of ten: handwriting and photographs are new "
            "to it.",
            "botformer predict 'digits/*.jpg' --checkpoint runs/digits --out read",
            classification.digits,
        ),
        Row(
            "curves.png",
            "A training",
            "Losses, learning rate and scores; the journal beside it has every number.",
            "botformer train classify --data photos --minutes 20 --model.name botnet50_half --images.size 160 "
            "--out runs/photos",
            classification.curves,
            by_hand=True,
        ),
    ),
    "Look at data and runs": (
        Row(
            "duplicates.jpg",
            "Near copies",
            "`data` reads every image before a network is trained: four of the pairs of photographs that show "
            "one thing.",
            "botformer data photos --out looked_at.html",
            classification.duplicates,
        ),
        Row(
            "report.jpg",
            "The page of a run",
            "One file with figures, curves, images and commands, for a browser.",
            "botformer report runs/photos --data photos",
            classification.report,
        ),
    ),
    "Deploy": (
        Row(
            "precision.jpg",
            "bfloat16 beside float32",
            "Both in OpenVINO: what the float network says above, the one that computes in bfloat16 below.",
            "botformer export runs/photos --format openvino --out in_float32\n"
            "botformer export runs/photos --format openvino --precision bfloat16 --out in_bfloat16",
            classification.precision,
        ),
        Row(
            "models.png",
            "The table of networks",
            "Parameters and multiply-adds of every row, exact; `botformer models` prints them beside the paper's "
            "figures.",
            "from botformer.commands.models import rows\n\n"
            "lines, notes = rows(image_size=224)  # what `botformer models --image-size 224` prints",
            classification.models,
        ),
    ),
}
ROWS = [row for rows in SECTIONS.values() for row in rows]
