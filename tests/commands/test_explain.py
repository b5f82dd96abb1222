"""botformer explain as a command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botformer.commands.explain import main
from botformer.errors import InputError

from ..report.pages import Page

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "bild ü.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)).save(file)
    return file


@pytest.mark.parametrize(
    ("checkpoint", "options", "words"),
    [
        ("classifier_run", ["--class", "red"], "class red"),
        ("classifier_run", ["--pixel", "25", "30"], "the pixel that was asked for (y 25, x 30)"),
        ("detector_run", ["--pixel", "49", "0"], "the pixel that was asked for"),
        ("keypoint_rcnn.safetensors", ["--pixel", "3", "4"], "the pixel that was asked for"),
    ],
)
def test_runs_and_files(checkpoint, options, words, image, tmp_path, capsys):
    main([str(image), "--checkpoint", str(FIXTURES / checkpoint), "--out", str(tmp_path / "a b.html"), *options])
    printed = capsys.readouterr().out
    assert words in printed
    assert "layer4.0.conv2" in " ".join(printed.split())
    assert "the page: " in printed
    text = Page(tmp_path / "a b.html").text
    assert "Every head of every attention layer" in text
    assert "bild ü.jpg" in text


def test_the_page_lies_in_the_run_by_default(image, tmp_path):
    run = shutil.copytree(FIXTURES / "classifier_run", tmp_path / "run", symlinks=True)
    main([str(image), "--checkpoint", str(run)])
    assert (run / "explain" / "bild ü.html").is_file()
    main([str(image), "--checkpoint", str(run), "--out", str(tmp_path / "new")])
    assert (tmp_path / "new" / "bild ü.html").is_file()


def test_of_a_file_the_page_lies_in_runs(image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([str(image), "--checkpoint", str(FIXTURES / "keypoint_rcnn.safetensors"), "--pixel", "0", "0"])
    assert (tmp_path / "runs/explain/keypoint_rcnn/bild ü.html").is_file()


def test_a_page_with_other_options_is_not_replaced(image, tmp_path):
    run = shutil.copytree(FIXTURES / "classifier_run", tmp_path / "run", symlinks=True)
    for options in (["--pixel", "25", "30"], [], ["--pixel", "25", "30"], []):
        main([str(image), "--checkpoint", str(run), *options])
    assert sorted(page.name for page in (run / "explain").iterdir()) == ["bild ü-2.html", "bild ü.html"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--class", "rad"], "unknown class 'rad'; did you mean red"),
        (["--detection", "0"], "is a classifier"),
        (["--detection", "-1"], "counts from the best, which is 0; got -1"),
        (["--detection", "0", "--class", "red"], "leave --pixel and --class out"),
        (["--pixel", "50", "0"], "outside the image, which is 60x50 px: y from 0 to 49, x from 0 to 59"),
        (["--pixel", "-1", "0"], "outside the image"),
    ],
)
def test_options_that_do_not_fit(options, words, image):
    with pytest.raises(InputError, match=words):
        main([str(image), "--checkpoint", str(FIXTURES / "classifier_run"), *options])


def test_the_image_is_never_overwritten(image):
    before = image.read_bytes()
    with pytest.raises(InputError, match="is the image itself"):
        main([str(image), "--checkpoint", str(FIXTURES / "classifier_run"), "--out", str(image)])
    assert image.read_bytes() == before


def test_an_image_that_cannot_be_read_leaves_no_page(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"broken\.png: "):
        main([str(tmp_path / "broken.png"), "--checkpoint", str(FIXTURES / "classifier_run"), "--out", str(tmp_path)])
    assert not (tmp_path / "broken.html").exists()
