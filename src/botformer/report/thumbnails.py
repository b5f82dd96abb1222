"""Images of a data set -> small JPEG files for a page, whole or around an object, with boxes."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from botformer.data.image_io import BadImage, decode_small
from botformer.plots.html_report import Card
from botformer.plots.instances import brightening
from botformer.report.finding import Example, ImageRef
from botformer.report.opened_data import Split

SIDE_PX = 240
_QUALITY = 82
_SMALL_BYTES = 250_000
_WIDEST_PX = 1620
"""Of a drawing: 900 px of the page, on a screen of nearly twice as many."""
_ANNOTATED, _DETECTED = (79, 184, 255), (255, 120, 40)
"""Bright on dark and on light, and told apart by readers who see no green."""
_AROUND = 1.5
"""Of an object that is shown alone: what is to be seen around it, as a multiple of its longer side."""


def cards(splits: Sequence[Split], examples: Sequence[Example], around: bool = False) -> list[Card]:
    """One card per example. `around`: show the part around the boxes instead of the whole image. An image that cannot
    be read is left out of its card, which then says so."""
    of_name = {split.name: split for split in splits}
    made = []
    for example in examples:
        jpegs = [thumbnail(of_name[ref.split], ref, around) for ref in example.images]
        lost = sum(jpeg is None for jpeg in jpegs)
        words = f"{example.text} (cannot be read)" if lost else example.text
        made.append(Card([jpeg for jpeg in jpegs if jpeg is not None], words))
    return made


def thumbnail(split: Split, ref: ImageRef, around: bool = False) -> bytes | None:
    """A JPEG file with a longer side of 240 px, boxes drawn. None where the image cannot be read."""
    side = SIDE_PX * 4 if around else SIDE_PX
    try:
        with split.open(ref.index) as file:
            header, image = decode_small(file, split.image_name(ref.index), side, max_megapixels=1000)
    except (BadImage, OSError):
        return None
    scale = image.width / header.width
    boxes = [
        (tuple(value * scale for value in box), colour)
        for group, colour in ((ref.annotated_xyxy, _ANNOTATED), (ref.detected_xyxy, _DETECTED))
        for box in group
    ]
    crop = _around([box for box, _ in boxes], image.size) if around and boxes else (0, 0, *image.size)
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    factor = min(SIDE_PX / max(width, height), 6.0)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = _brightened(image).resize(size, Image.Resampling.BICUBIC, crop)
    draw = ImageDraw.Draw(small)
    for box, colour in boxes:
        x1, y1, x2, y2 = (
            float(np.clip((value - crop[place % 2]) * factor, 0, size[place % 2] - 1))
            for place, value in enumerate(box)
        )
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=2 if len(boxes) < 20 else 1)
    return jpeg(small)


def jpeg(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def compact(drawing: Path, folder: Path) -> Path:
    """The drawing, or, where it is large because of the photographs in it, a JPEG file of a tenth of the size, in the
    folder."""
    if drawing.stat().st_size <= _SMALL_BYTES:
        return drawing
    with Image.open(drawing) as image:
        smaller = image.convert("RGB")
    smaller.thumbnail((_WIDEST_PX, 10 * _WIDEST_PX))
    out = folder / f"{drawing.stem}.jpg"
    out.write_bytes(jpeg(smaller))
    return out


def _around(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around all boxes, as far as the image goes; at its edge where they lie outside."""
    x1, y1, x2, y2 = (fold(box[place] for box in boxes) for place, fold in enumerate((min, min, max, max)))
    half = max(_AROUND * max(x2 - x1, y2 - y1), 32) / 2 + 4
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = (int(np.clip(at - half, 0, side - 1)) for at, side in zip((x, y), size, strict=True))
    return left, top, max(left + 1, min(size[0], int(x + half))), max(top + 1, min(size[1], int(y + half)))


def _brightened(image: Image.Image) -> Image.Image:
    """As drawings show dark micrographs."""
    gain = brightening(np.asarray(image.reduce(max(1, max(image.size) // 128))))
    return image if gain == 1 else image.point([min(255, int(value * gain)) for value in range(256)] * 3)
