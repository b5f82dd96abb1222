import io
import pickle
import re
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from botformer.data.image_io import BadImage, decode, open_image, upright_size
from botformer.errors import InputError
from tests.data.png import write_png

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = np.array([[0, 1, 128, 129, 257, 4000], [30000, 32896, 65278, 65406, 65407, 65535]], dtype=np.uint16)


def encoded(image: Image.Image, format: str, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    stream.seek(0)
    return stream


def pixels(stream: io.BytesIO) -> np.ndarray:
    image = decode(stream, "image")
    assert image.mode == "RGB"
    return np.asarray(image)


def rounded(values: np.ndarray) -> np.ndarray:
    """Grey -> three equal channels of the nearest integers."""
    return np.repeat(np.floor(values.astype(np.float64) + 0.5)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_colours_of_a_lossless_format_are_exact(format: str) -> None:
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(COLOURS), format)), COLOURS)


def test_a_path_reads_as_a_stream_does(tmp_path: Path) -> None:
    path = tmp_path / "größe ü.jpg"
    Image.fromarray(COLOURS).save(path)
    np.testing.assert_array_equal(np.asarray(decode(path, "x")), pixels(io.BytesIO(path.read_bytes())))


def test_grey_becomes_three_equal_channels() -> None:
    grey = COLOURS[..., 0]
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_becomes_0_and_255() -> None:
    mask = COLOURS[..., 0] > 127
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(mask), "PNG")), rounded(mask * 255))


def test_palette_is_looked_up() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 2]], dtype=np.uint8), "L")
    image = image.convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = np.array([[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]])
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), expected)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=1))[0], [[10, 20, 30], [255, 255, 255]])
    half = pixels(encoded(image, "PNG", transparency=bytes([255, 0, 51])))
    np.testing.assert_array_equal(half[0], [[10, 20, 30], [255, 255, 255]])
    np.testing.assert_array_equal(half[1, 1], 255 - (255 - np.array([70, 80, 90])) * 51 / 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    alpha = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    colours = COLOURS if mode == "RGBA" else COLOURS[..., :1]
    image = Image.fromarray(np.dstack((colours, alpha)))
    assert image.mode == mode
    opacity = alpha[..., None] / 255
    expected = np.broadcast_to(colours * opacity + 255 * (1 - opacity), COLOURS.shape)
    assert np.abs(pixels(encoded(image, "PNG")) - expected).max() <= 1


def test_a_transparent_colour_becomes_white() -> None:
    red, key = (255, 0, 0), (1, 2, 3)
    image = Image.new("RGB", (2, 1), red)
    image.putpixel((1, 0), key)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=key))[0], [red, (255, 255, 255)])


def test_cmyk_white_is_no_ink_and_black_is_all_of_it() -> None:
    for inks, colour in (((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 255, 255, 0), 0)):
        for format in ("JPEG", "TIFF"):
            assert np.abs(pixels(encoded(Image.new("CMYK", (8, 8), inks), format)).astype(int) - colour).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(DEEP), format)), rounded(DEEP / 257))


def test_16_bit_grey_of_either_byte_order_is_the_same(tmp_path: Path) -> None:
    swapped = Image.frombytes("I;16B", (6, 2), DEEP.astype(">u2").tobytes())
    stream = encoded(swapped, "TIFF")
    with Image.open(stream) as image:
        assert image.mode == "I;16B"
    np.testing.assert_array_equal(pixels(stream), rounded(DEEP / 257))


def test_16_bit_colour_is_scaled(tmp_path: Path) -> None:
    colours = np.array([[0, 257, 65535], [30000, 128 * 257, 4000]], dtype=np.uint16)
    write_png(tmp_path / "deep.png", 2, 3, 16, "rgb", colours.astype(">u2").tobytes())
    got = np.asarray(decode(tmp_path / "deep.png", "deep.png")).astype(float)
    assert np.abs(got - colours / 257).max() <= 1


def test_32_bit_integers_are_read_as_16_bit_where_they_fit() -> None:
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF")), rounded(DEEP / 257))


@pytest.mark.parametrize("values", [[-5, 0, 5], [0, 500_000, 1_000_000]])
def test_other_32_bit_integers_are_stretched(values: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF")), rounded(np.array([[0, 127.5, 255]])))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.25, 0.5, 0.75], [63.75, 127.5, 191.25]), ([0.0, 100.0, 200.0], [0, 127.5, 255]), ([-3.0] * 3, [0, 0, 0])],
)
def test_floats_are_0_to_1_or_stretched(values: list[float], expected: list[float]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF")), rounded(np.array([expected])))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(BadImage, match="not finite"):
        pixels(encoded(Image.fromarray(np.array([[0.0, value]], dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = encoded(Image.fromarray(COLOURS), format, exif=exif.tobytes())
    with Image.open(stream) as image:
        expected = np.asarray(ImageOps.exif_transpose(image.convert("RGB") if format == "WEBP" else image))
    assert expected.shape == ((7, 5, 3) if orientation >= 5 else (5, 7, 3))
    np.testing.assert_array_equal(pixels(stream), expected)


@pytest.mark.parametrize("orientation", [*range(10), 255, 9859, 65535])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_by_the_header_is_that_of_the_decoded_image(tmp_path: Path, format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a"
    path.write_bytes(encoded(Image.fromarray(COLOURS), format, exif=exif.tobytes()).read())
    with path.open("rb") as file:
        image, _ = open_image(file, "a").decode()
    size = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    assert upright_size(path) == decode(path, "a").size == size
    assert size == ((5, 7) if orientation in range(5, 9) else (7, 5))


def test_a_size_that_cannot_be_read_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"none")
    for name, what in (("a.png", "not an image"), ("b.png", "No such file")):
        with pytest.raises(BadImage, match=f"{name}: {what}"):
            upright_size(tmp_path / name)


def test_exif_orientation_of_16_bit_grey_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # what was the left edge is the top
    stream = encoded(Image.fromarray(DEEP), "PNG", exif=exif.tobytes())
    np.testing.assert_array_equal(pixels(stream), np.rot90(rounded(DEEP / 257), -1))


@pytest.mark.parametrize("junk", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0"])
def test_damaged_exif_does_no_harm_and_no_warning_leaks(junk: bytes) -> None:
    stream = encoded(Image.fromarray(COLOURS), "JPEG", exif=junk)
    plain = pixels(encoded(Image.fromarray(COLOURS), "JPEG"))
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(pixels(stream), plain)
    assert not leaked


def test_pillow_would_have_warned() -> None:
    stream = encoded(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    with pytest.warns(UserWarning, match="EXIF"), Image.open(stream) as image:
        image.getexif().get(0x0112)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_one_pixel_is_an_image(format: str) -> None:
    assert pixels(encoded(Image.new("RGB", (1, 1), "white"), format)).shape == (1, 1, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9])
def test_a_file_that_was_cut_short_is_bad(format: str, fraction: float) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, format).getvalue()
    with pytest.raises(BadImage, match=r"^cut\.x: .+"):
        decode(io.BytesIO(whole[: int(len(whole) * fraction)]), "cut.x")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged TIFF tags
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_random_damage_gives_an_image_or_bad_image_and_nothing_else(format: str) -> None:
    whole = encoded(Image.fromarray(RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)), format).getvalue()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        damaged[rng.integers(0, min(len(damaged), 400), 6)] = rng.integers(0, 256, 6)
        try:
            assert decode(io.BytesIO(damaged.tobytes()), "x", max_megapixels=1).mode == "RGB"
        except BadImage as error:
            assert error.reason  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("content", [b"", b"no image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_is_named_so(content: bytes) -> None:
    with pytest.raises(BadImage, match=r"notes\.jpg: not an image that can be read \(JPEG, PNG"):
        decode(io.BytesIO(content), "notes.jpg")


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "a pointer of Git LFS; `git lfs pull`"),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "it is HEIC, as phones take them, whatever it is called; convert it to JPEG",
        ),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "it is AVIF"),
        (b"\xff\x0a", "it is JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it is JPEG 2000"),
        (b"\n <!DOCTYPE HTML><html>", "it is a web page, as a download that failed leaves one"),
        (b'<?xml version="1.0"?><svg>', "it is XML, such as SVG"),
        (b"%PDF-1.7", "it is PDF"),
        (b"PK\x03\x04", "it is a zip archive; unpack it"),
        (b"BM and no more", "it begins as BMP, but is damaged, or of a rare kind"),
    ],
)
def test_what_is_called_an_image_and_is_something_else_is_named(start: bytes, what: str) -> None:
    with pytest.raises(BadImage, match=rf"1\.jpg: not an image that can be read \(JPEG.*PPM\): .*{re.escape(what)}"):
        decode(io.BytesIO(start), "1.jpg")


def test_a_missing_file_is_bad(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"cat/1\.jpg: No such file"):
        decode(tmp_path / "1.jpg", "cat/1.jpg")


def test_bad_image_is_an_input_error_and_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(BadImage("cat/1.jpg", "truncated")))
    assert issubclass(BadImage, InputError)
    assert isinstance(copy, BadImage)
    assert (copy.name, copy.reason, str(copy)) == ("cat/1.jpg", "truncated", "cat/1.jpg: truncated")


def test_a_bomb_is_refused_before_its_pixels_are_decoded(tmp_path: Path) -> None:
    write_png(tmp_path / "bomb.png", 30000, 30000, 1, "grey", bytes(3750))
    program = """
import resource, sys, time
from pathlib import Path
from botformer.data.image_io import BadImage, decode, open_image, upright_size
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
try:
    decode(Path(sys.argv[1]), "bomb.png")
except BadImage as error:
    print(error)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 20_000, f"{grown} KiB"  # the pixels would be 900,000
assert time.perf_counter() - start < 1
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.png")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "30000x30000 pixels are more than 100 megapixels (max_megapixels)" in run.stdout
    assert "warning" not in run.stderr.lower()


def test_our_limit_counts_and_pillows_own_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # Pillow would refuse 35 pixels
    good, text = encoded(Image.fromarray(COLOURS), "PNG"), io.BytesIO(b"text")
    np.testing.assert_array_equal(pixels(good), COLOURS)
    with pytest.raises(BadImage, match="7x5 pixels are more than 3e-05 megapixels"):
        decode(good, "x", max_megapixels=30e-6)
    with pytest.raises(BadImage):
        decode(text, "x")
    assert Image.MAX_IMAGE_PIXELS == 4


def test_eight_threads_decode_without_changing_what_a_bystander_sees(tmp_path: Path) -> None:
    """Neither Pillow's limit nor the filters of warnings, also while somebody else enters and leaves filters."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        encoded(Image.fromarray(COLOURS), "JPEG", exif=exif.tobytes()).getvalue(),
        encoded(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01").getvalue(),
        encoded(Image.fromarray(COLOURS), "PNG").getvalue(),
        encoded(Image.fromarray(COLOURS), "GIF").getvalue(),
        b"no image",
    ]
    path = tmp_path / "a.jpg"
    path.write_bytes(files[0])
    before, seen, errors = (Image.MAX_IMAGE_PIXELS, list(warnings.filters)), [], []
    done, start = threading.Event(), threading.Barrier(9)

    def read(number: int) -> None:
        start.wait()
        try:
            for turn in range(60):
                content = files[(number + turn) % len(files)]
                try:
                    assert decode(io.BytesIO(content), "x").mode == "RGB"
                except BadImage:
                    assert content == b"no image"
                assert upright_size(path) == (5, 7)
        except Exception as error:
            errors.append(error)

    def watch() -> None:
        start.wait()
        while not done.is_set():
            seen.append((Image.MAX_IMAGE_PIXELS, list(warnings.filters)))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    bystander = threading.Thread(target=watch)
    for thread in (bystander, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    bystander.join()
    assert errors == []
    assert len(seen) > 10
    assert [state for state in seen if state != before] == []
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


@pytest.mark.parametrize("kind", ["raw profile", "xmp attribute", "xmp element"])
def test_the_orientation_is_found_wherever_pillow_finds_it(kind: str) -> None:
    exif, info = Image.Exif(), PngInfo()
    exif[0x0112] = 8
    if kind == "raw profile":
        info.add_text("Raw profile type exif", "\nexif\n40\n" + exif.tobytes().hex())
    text = 'tiff:Orientation="8"' if kind == "xmp attribute" else "<tiff:Orientation>8</tiff:Orientation>"
    if kind != "raw profile":
        info.add_itxt("XML:com.adobe.xmp", text)
    stream = encoded(Image.fromarray(COLOURS), "PNG", pnginfo=info)
    with Image.open(stream) as image:
        assert image.getexif()[0x0112] == 8
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(pixels(stream), expected)


@pytest.mark.parametrize("kind", ["B", "H", "I", "d"])
@pytest.mark.parametrize("order", "<>")
def test_the_orientation_is_read_in_either_byte_order_and_as_any_integer(order: str, kind: str) -> None:
    number = {"B": 1, "H": 3, "I": 4, "d": 12}[kind]
    value = struct.pack(order + kind, 6).ljust(4, b"\0")[:4]
    entries = [struct.pack(order + "HHI4s", 0x010E, 2, 1, b"a"), struct.pack(order + "HHI", 0x0112, number, 1) + value]
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    exif = b"Exif\0\0" + header + struct.pack(order + "H", 2) + b"".join(entries) + bytes(4)
    upright = pixels(encoded(Image.fromarray(COLOURS), "JPEG", exif=exif)).shape == (7, 5, 3)
    assert upright == (kind != "d")


def test_pillows_own_limit_is_named_where_it_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = encoded(Image.fromarray(COLOURS), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(BadImage, match=r"x: .*exceeds limit.*PIL\.Image\.MAX_IMAGE_PIXELS"):
        decode(stream, "x")
