"""Label Studio's run lengths of brush strokes: an image of red, green, blue and alpha as a stream of bits.

    32 bits         how many values follow: 4 per pixel, row by row
    5 bits          the width of a value, minus 1
    4 times 4 bits  the four widths that a length can have, minus 1
    then parts, until there are so many values: 1 bit (1: one value many times, 0: as many values), 2 bits (which of the
    four widths), the length minus 1, and the value or the values

The format is that of @thi.ng/rle-pack, whose description this follows. What is painted has an alpha above 0.
"""

from collections.abc import Iterator

import numpy as np

_WORD = 8
_LENGTHS = (3, 4, 8, 16)
"""Widths of lengths, as Label Studio writes them."""
_LONGEST = 2**16
_CHANNELS = 4


def decode_brush(rle: list[int], size: tuple[int, int]) -> np.ndarray:
    """Bytes as a list of numbers -> bool (height, width), of which `size` are the sides.

    Raises:
        ValueError: it is cut short, is of another size, or is no such list.
    """
    height, width = size
    try:
        data = bytes(rle)
    except (TypeError, ValueError):
        raise ValueError("a brush stroke that is no list of bytes") from None
    bits = _Bits(data)
    count = bits.read(32)
    if count != height * width * _CHANNELS:
        raise ValueError(f"a brush stroke of {count} values; an image of {width}x{height} has {height * width} times 4")
    word = bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=bool)
    place = 0
    while place < count:
        repeated = bits.read(1)
        end = place + 1 + bits.read(lengths[bits.read(2)])
        if end > count:
            raise ValueError("a brush stroke that is longer than its image")
        values[place:end] = bits.read(word) > 0 if repeated else bits.read_many(word, end - place)
        place = end
    return values.reshape(height, width, _CHANNELS)[..., 3].copy()


def encode_brush(mask: np.ndarray) -> list[int]:
    """The reverse: bool (height, width) -> bytes as a list of numbers. All four channels are 255 where it is true."""
    flat = np.ascontiguousarray(mask, dtype=bool).reshape(-1)
    parts = [f"{flat.size * _CHANNELS:032b}", f"{_WORD - 1:05b}", *(f"{width - 1:04b}" for width in _LENGTHS)]
    for length, value in _runs(flat):
        choice = next(number for number, width in enumerate(_LENGTHS) if length <= 2**width)
        parts.append(f"1{choice:02b}{length - 1:0{_LENGTHS[choice]}b}{255 * value:08b}")
    text = "".join(parts)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _runs(flat: np.ndarray) -> Iterator[tuple[int, int]]:
    """Lengths in values, at most `_LONGEST`, and 0 or 1."""
    edges = np.flatnonzero(np.diff(flat.view(np.int8))) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        left = (end - start) * _CHANNELS
        while left > 0:
            yield min(left, _LONGEST), int(flat[start])
            left -= _LONGEST


class _Bits:
    """Reads numbers of any width, highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._end = data, 0, 8 * len(data)

    def read(self, width: int) -> int:
        start, self._place = self._place, self._place + width
        if self._place > self._end:
            raise ValueError("a brush stroke that is cut short")
        first, last = start // 8, -(-self._place // 8)
        whole = int.from_bytes(self._data[first:last], "big")
        return whole >> (8 * last - self._place) & ((1 << width) - 1)

    def read_many(self, width: int, count: int) -> np.ndarray:
        """Whether each is above 0."""
        start, self._place = self._place, self._place + width * count
        if self._place > self._end:
            raise ValueError("a brush stroke that is cut short")
        first, last = start // 8, -(-self._place // 8)
        bits = np.unpackbits(np.frombuffer(self._data, np.uint8, last - first, first))
        skipped = start - 8 * first
        return np.asarray(bits[skipped : skipped + width * count].reshape(count, width).any(axis=1))
