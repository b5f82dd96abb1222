"""Facts of image files, and groups of copies."""

import io

import numpy as np
import pytest
from PIL import Image

from botformer.data.image_facts import Hashes, read_image_facts
from botformer.data.near_duplicates import GRADIENT_BITS, PERCEPTUAL_BITS, exact_groups, near_groups

from .pages import scene

pytest.importorskip("imagehash")


def facts_of(*files: bytes, **options):
    return read_image_facts(lambda index: io.BytesIO(files[index]), [f"{n}.img" for n in range(len(files))], **options)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def test_groups_are_those_of_comparing_all_pairs():
    """Random hashes, and chains of neighbours that differ by a known number of bits."""
    draw = np.random.default_rng(0)

    def flipped(value: int, bits: int) -> int:
        return value ^ sum(1 << int(place) for place in draw.choice(64, bits, replace=False))

    hashes = []
    for number in range(300):
        one, other = (int(value) for value in draw.integers(0, 2**63, 2))
        for bits in (0, *draw.integers(0, 8, int(draw.integers(0, 4)))):
            one, other = flipped(one, int(bits)), flipped(other, int(bits))
            hashes.append(Hashes(f"{number} {len(hashes)}".encode(), one, other, False))
    owner = list(range(len(hashes)))  # union-find, the slow way
    for i, a in enumerate(hashes):
        for j, b in enumerate(hashes[:i]):
            if (a.perceptual ^ b.perceptual).bit_count() <= PERCEPTUAL_BITS and (
                a.gradient ^ b.gradient
            ).bit_count() <= GRADIENT_BITS:
                owner = [owner[j] if each == owner[i] else each for each in owner]
    expected = [[i for i, each in enumerate(owner) if each == name] for name in set(owner)]
    expected = sorted(group for group in expected if len(group) > 1)
    assert len(expected) > 30
    assert sorted(near_groups(hashes)) == expected


def test_thousands_of_alike_images_are_neither_work_nor_memory_of_squares():
    """Twenty thousand of three hashes, and 256 that all differ and are all close."""
    many = [Hashes(f"{number}".encode(), number % 3, 0, False) for number in range(20_000)]
    close = [Hashes(f"close {number}".encode(), 2**60 - 1, number << 40, False) for number in range(256)]
    groups = near_groups([*many, *close])
    assert groups == [list(range(20_000)), list(range(20_000, 20_256))]


def test_copies_are_found_whatever_was_done_to_the_file():
    original = scene(1, 320, 240)
    files = [
        saved(original),
        saved(original),  # the same bytes
        saved(original, "JPEG", quality=60),
        saved(original.resize((200, 150))),
        saved(original.point(lambda value: int(0.85 * value))),
        saved(scene(2, 320, 240)),
        saved(Image.new("RGB", (320, 240), "white")),
        saved(Image.new("RGB", (300, 240), "white")),
    ]
    hashes = [fact.hashes for fact in facts_of(*files)]
    assert exact_groups(hashes) == [[0, 1]]
    assert near_groups(hashes) == [[0, 2, 3, 4]]
    assert [each.blank for each in hashes] == [False] * 6 + [True] * 2


def test_headers_say_what_decoding_would_give():
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        saved(scene(1, 90, 60), "JPEG", exif=turned),
        saved(Image.fromarray(np.arange(5000, dtype=np.uint16).reshape(50, 100))),
        saved(scene(1, 90, 60).convert("CMYK"), "JPEG"),
        saved(scene(1, 1200, 900), "JPEG"),
    ]
    for headers_only in (False, True):
        headers = [fact.header for fact in facts_of(*files, headers_only=headers_only)]
        assert [(each.width, each.height) for each in headers] == [(60, 90), (100, 50), (90, 60), (1200, 900)]
        assert [each.orientation for each in headers] == [6, 1, 1, 1]
        assert [each.deep for each in headers] == [False, True, False, False]
        assert headers[2].mode == "CMYK"


@pytest.mark.parametrize("large", [False, True])
def test_what_is_damaged_is_said_and_stops_nothing(large):
    """A large JPEG file, which is decoded at an eighth of its size, is read to its end all the same."""
    whole = saved(scene(1, 2000, 1500) if large else scene(1), "JPEG")
    problems = [fact.problem for fact in facts_of(whole, whole[: len(whole) // 2], b"no image", b"")]
    assert problems[0] == ""
    assert "truncated" in problems[1]
    assert all("not an image" in problem for problem in problems[2:])


def test_progress_counts_every_image():
    done = []
    facts_of(saved(scene(1)), b"", on_image=lambda: done.append(1))
    assert len(done) == 2
