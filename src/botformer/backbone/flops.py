"""Parameters and multiply-adds of a row, counted as the paper does. Standard library only: no network is built.

Multiply-adds are those of convolutions and matrix products, without the final linear layer; the position term counts
N H W D (2H-1 + 2W-1) per layer. A counter that watches tensors would count the work of one implementation instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from botformer.backbone.variants import EXPANSION, STEMS, Row


@dataclass(frozen=True)
class Counts:
    parameters: int = 0
    multiply_adds: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


def count(
    row: Row, image_size: int | tuple[int, int] | None = None, num_classes: int = 1000, tables: bool = True
) -> Counts:
    """Exact counts of a classifier (`num_classes` 0: of the backbone).

    `image_size` in pixels, the row's own by default; `tables` False leaves out the position tables, the only
    parameters that depend on it.
    """
    size = image_size if image_size is not None else row.image_size
    total = sum(_layers(row, size if isinstance(size, tuple) else (size, size), tables), Counts())
    return total + Counts(parameters=num_classes * (row.width * 8 * EXPANSION + 1) if num_classes else 0)


def _layers(row: Row, image: tuple[int, int], tables: bool) -> Iterator[Counts]:
    kernel, stride = STEMS[row.stem]
    size = _down(image, stride)
    yield _convolution(3, row.stem_channels, kernel, size) + _norm(row.stem_channels)
    if row.stem == "7x7":
        size = _down(size, 2)
    channels = row.stem_channels
    for stage, blocks in enumerate(row.blocks):
        name, mid = f"c{stage + 2}", row.width * 2**stage
        attends = name == "c5" and row.c5 == "attention"
        for block in range(blocks):
            if block == blocks - 1:
                for kind in (kind for place, kind in row.inserted if place == name):
                    if kind == "non_local":
                        yield _non_local(channels, size)
                    else:
                        yield _bottleneck(channels, mid, size, (1, 1), True, tables)
            strides = row.strides(stage, block, attends)
            yield _bottleneck(channels, mid, size, strides, attends, tables)
            size, channels = _down(size, strides[0] * strides[1]), mid * EXPANSION
            if row.squeeze_excite and not attends:
                yield _squeeze_excite(channels)


def _down(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _convolution(inputs: int, outputs: int, kernel: int, out_size: tuple[int, int]) -> Counts:
    weights = inputs * outputs * kernel**2
    return Counts(weights, weights * out_size[0] * out_size[1])


def _norm(channels: int) -> Counts:
    return Counts(2 * channels)


def _bottleneck(
    inputs: int,
    mid: int,
    size: tuple[int, int],
    strides: tuple[int, int],
    attends: bool,
    tables: bool,
    heads: int = 4,
) -> Counts:
    mid_size = _down(size, strides[0])
    out_size, outputs = _down(mid_size, strides[1]), mid * EXPANSION
    middle = _mhsa(mid, heads, size, tables) if attends else _convolution(mid, mid, 3, out_size)
    main = _convolution(inputs, mid, 1, mid_size) + middle + _convolution(mid, outputs, 1, out_size)
    norms = _norm(mid) + _norm(mid) + _norm(outputs)
    if strides == (1, 1) and inputs == outputs:
        return main + norms
    return main + norms + _convolution(inputs, outputs, 1, out_size) + _norm(outputs)


def _mhsa(channels: int, heads: int, size: tuple[int, int], tables: bool) -> Counts:
    (H, W), D = size, channels // heads
    entries = (2 * H - 1) + (2 * W - 1)
    products = 2 * (H * W) ** 2 * channels + heads * H * W * D * entries
    return _convolution(channels, 3 * channels, 1, size) + Counts(entries * D if tables else 0, products)


def _non_local(channels: int, size: tuple[int, int]) -> Counts:
    inner, positions = channels // 2, size[0] * size[1]
    biases = Counts(3 * inner + channels)
    projections = _convolution(channels, 3 * inner, 1, size) + _convolution(inner, channels, 1, size)
    return projections + biases + _norm(channels) + Counts(0, 2 * positions**2 * inner)


def _squeeze_excite(channels: int) -> Counts:
    reduced = channels // 16
    return Counts(2 * channels * reduced + reduced + channels, 2 * channels * reduced)
