"""What people type after `botformer predict`, and names of files and classes that are anything but plain."""

import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

import botformer
from botformer import cli
from botformer.predict.files import from_standard_input, list_images

NOT_UTF_8 = os.fsdecode(b"gr\xf6\xdfe")
ODD = "[red]x[/] [/foo] :smile: [link=a]"


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """Of three classes, two of them with odd names; never trained."""
    import torch

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("network") / "random.safetensors"
    model = botformer.create_model("botnet_nano", num_classes=3, image_size=32)
    config = {
        "task": "classification", "model": "botnet_nano", "options": {}, "image_size": 32, "images": {"size": 32},
        "class_names": [ODD, "[/foo]", "cat"],
    }  # fmt: skip
    botformer.save(model, config, file)
    return file


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """scans/1.png, scans/deep/2.PNG, scans/3.jpg, and others that are no images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for name in ("1.png", "deep/2.PNG", "3.jpg"):
        Image.new("RGB", (32, 32)).save(tmp_path / "scans" / name)
    for name in ("notes.txt", "@eaDir/1.png/thumb.jpg", "deep/old.heic"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(b"?")
    return tmp_path


def predicted(network: Path, *arguments: str, status: int = 0) -> list[str]:
    assert cli.main(["predict", *arguments, "--checkpoint", str(network), "--out", "out", "--device", "cpu"]) == status
    return [record["file_name"] for record in json.loads(Path("out/predictions.json").read_text())]


def test_brackets_of_folders_that_exist_are_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [Path(name) for name in ("s [24]/x [1]/a.png", "s [24]/x 1/b.png", "s 2/x [1]/a.png", "t4/c.png")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    out = Path("out")
    assert list_images([Path("s [24]/*/*.png")], out) == [files[1], files[0]]
    assert list_images([tmp_path / "s [24]/x [1]/*.png"], out) == [tmp_path / files[0]]
    assert list_images([Path("s [24]/**/a.png")], out) == [files[0]]
    assert list_images([Path("s [2]/**/*.png")], out) == [files[2]], "there is no folder of that name"
    assert list_images([Path("t[24]/*.png"), Path("t[24]")], out) == [files[3]]
    drawing = Path("s [24]/x [1]/a.prediction.png")
    Image.new("RGB", (8, 8)).save(drawing)
    assert list_images([Path("s [24]/x [1]/*.png")], drawing.parent) == [files[0]]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("scans/*.png", ["scans/1.png"]),
        ("scans/**/*.[pP][nN][gG]", ["scans/1.png", "scans/deep/2.PNG"]),
        ("scans/*", ["scans/1.png", "scans/3.jpg"]),
        ("scans/**", ["scans/1.png", "scans/3.jpg", "scans/deep/2.PNG"]),
        ("sc*", ["scans/1.png", "scans/3.jpg", "scans/deep/2.PNG"]),
        ("scans/?.jpg", ["scans/3.jpg"]),
    ],
)
def test_patterns_that_the_shell_left(images, pattern, expected):
    assert [file.as_posix() for file in list_images([Path(pattern)], Path("out"))] == expected


def test_links_in_circles_are_followed_once(images):
    """To the folder above, to each other's, and to themselves: with two of the first kind `glob` never ends."""
    for name, target in (("up", ".."), ("top", ".."), ("self", "self"), ("a.png", "b.png"), ("b.png", "a.png")):
        os.symlink(target, f"scans/deep/{name}")
    found = [Path("scans", name) for name in ("1.png", "3.jpg", "deep/2.PNG")]
    circle = [Path("scans/deep/a.png"), Path("scans/deep/b.png")]
    assert sorted(list_images([Path("scans/**")], Path("out"))) == found
    assert sorted(list_images([Path("sc*/**/*.*")], Path("out"))) == found
    assert sorted(list_images([Path("scans")], Path("out"))) == sorted(
        [*found, *circle]
    )  # each is said to be unreadable


def test_drawings_of_an_earlier_prediction_do_not_fit_a_pattern(network, images):
    assert predicted(network, "**/1.p*") == ["scans/1.png"]
    assert predicted(network, "**/1.p*") == ["scans/1.png"]


@pytest.mark.parametrize("argument", ["scans", "scans/*", "scans/**/*.*"])
def test_drawings_may_lie_beside_the_images(network, images, argument):
    """Those of an earlier run are no images, also of one that was killed between a drawing and its line."""
    before = list_images([Path(argument)], Path("scans"))
    assert len(before) in (2, 3)
    for _ in range(2):
        assert cli.main(["predict", argument, "--checkpoint", str(network), "--out", "scans", "--device", "cpu"]) == 0
        assert len(list(Path("scans").glob("*.prediction*.png"))) == len(before)
        assert list_images([Path(argument)], Path("scans")) == before
    Path("scans/predictions.jsonl").unlink()
    Path("scans/deep/4.prediction.png").write_bytes(Path("scans/1.png").read_bytes())  # not drawn into scans
    found = list_images([Path("scans")], Path("scans"))
    assert Path("scans/deep/4.prediction.png") in found
    assert len(found) == 4


@pytest.mark.parametrize("argument", [".", "*.png", "~photo.png", "list.txt"])
def test_a_file_whose_name_begins_with_a_tilde_is_that_file(network, images, argument):
    shutil.rmtree("scans")
    Image.new("RGB", (32, 32)).save("~photo.png")
    Path("list.txt").write_text("~photo.png\n")
    assert predicted(network, argument) == ["~photo.png"]
    assert botformer.predictor(network, "cpu")(Path("~photo.png")).label


def test_a_home_that_nobody_has_is_a_file_that_is_not_there(network, images, capsys):
    assert cli.main(["predict", "~nobody here/a.png", "--checkpoint", str(network), "--out", "out"]) == 2
    assert "~nobody here/a.png does not exist" in capsys.readouterr().err
    (result,) = botformer.predictor(network, "cpu")([Path("~nobody here/a.png")])
    assert result.error == "No such file or directory"


def test_a_file_whose_name_is_a_pattern_is_that_file(network, images):
    shutil.copy("scans/1.png", "[13].png")
    shutil.copy("scans/1.png", "1.png")
    assert predicted(network, "[13].png") == ["[13].png"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("scans/*.gif", "no image fits scans/*.gif in"),
        ("scans/deep/*.heic", "what fits is 1 .heic"),
        ("https://example.com/cat.jpg", "is an address, and nothing is downloaded"),
        ("s3://images/*.jpg", "is an address, and nothing is downloaded"),
        ("scans/4.png", "scans/4.png does not exist; expected an image, a folder of images, or a pattern"),
    ],
)
def test_nothing_found_is_said_with_what_was_tried(network, images, argument, words, capsys):
    assert cli.main(["predict", argument, "--checkpoint", str(network), "--out", "out"]) == 2
    assert words in capsys.readouterr().err


def piped(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_an_image_s_bytes_on_standard_input(network, images, monkeypatch):
    content = Path("scans/3.jpg").read_bytes()
    name = f"out/stdin-{hashlib.sha256(content).hexdigest()[:12]}.jpeg"  # another image does not replace it
    piped(monkeypatch, content)
    assert predicted(network, "-") == [name]
    assert Path(name).read_bytes() == content


def test_paths_on_standard_input(network, images, monkeypatch):
    paths = [Path("scans/1.png"), Path("scans/3.jpg")]
    for content in (b"scans/1.png\nscans/3.jpg\n", b"scans/1.png\0scans/3.jpg\0"):
        assert from_standard_input(content, Path("out")) == paths
    for content in ("utf-16", "utf-16-be"):  # PowerShell
        mark = b"\xfe\xff" if content == "utf-16-be" else b""
        assert from_standard_input(mark + "scans/1.png\r\nscans/3.jpg\r\n".encode(content), Path("out")) == paths
    assert from_standard_input(b" a\nb.png\0c.png\0", Path("out")) == [Path(" a\nb.png"), Path("c.png")]
    piped(monkeypatch, b"\xef\xbb\xbfscans/1.png\r\nscans/3.jpg")
    assert predicted(network, "scans/deep/2.PNG", "-") == ["scans/deep/2.PNG", "scans/1.png", "scans/3.jpg"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "standard input is empty; expected the bytes of one image, or paths"),
        (b"\0\0\0\x18ftypheic", "standard input is neither an image that can be read (JPEG, PNG"),
        (b"nowhere.png\n", "nowhere.png does not exist"),
    ],
)
def test_standard_input_that_gives_nothing(network, images, monkeypatch, content, words, capsys):
    piped(monkeypatch, content)
    assert cli.main(["predict", "-", "--checkpoint", str(network), "--out", "out"]) == 2
    assert words in capsys.readouterr().err


def test_one_bad_name_costs_nothing_else(network, images, capsys):
    """Bytes that are not UTF-8, a name as long as a file system allows, markup, and control characters."""
    odd = [f"{NOT_UTF_8}.png", f"{'n' * 251}.png", f"{'ü' * 125}.png", f"{ODD.replace('/', '')}.png", "a\x1b[31mb.png"]
    for name in odd:
        shutil.copy("scans/1.png", f"scans/{name}")
    shutil.copy("scans/1.png", f"scans/deep/{'n' * 251}.png")
    found = predicted(network, "scans")
    assert sorted(os.fsencode(name) for name in found) == sorted(
        os.fsencode(f"scans/{name}") for name in [*odd, "1.png", "3.jpg", "deep/2.PNG", f"deep/{'n' * 251}.png"]
    )
    drawings = [image["drawing"] for image in json.loads(Path("out/images.json").read_text())["images"]]
    assert len(set(drawings)) == len(drawings) == 9
    assert all(Path("out", drawing).stat().st_size > 5000 for drawing in drawings)
    printed = capsys.readouterr().out
    assert r"scans/gr\xf6\xdfe.png" in printed
    assert ODD.replace("/", "") in printed
    assert r"a\x1b[31mb.png" in printed
    assert "[/foo]" in printed  # a class


def test_bad_names_train_and_evaluate(images, capsys):
    """Of a class folder, of images, and of the run."""
    for split in ("train", "val"):
        for number, name in enumerate((NOT_UTF_8, "[red]x[", "cat")):
            folder = Path("data", split, name)
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (32, 32), (80 * number, index, 0)).save(folder / f"{index}{NOT_UTF_8}.png")
    Path("data/train/cat/broken[red].png").write_bytes(b"?")
    quick = [
        "--images.size=32", "--schedule.epochs=2", "--schedule.warmup-epochs=1", "--run.batch-size=6",
        "--run.workers=0", "--run.device=cpu",
    ]  # fmt: skip
    run = "run [/foo]"
    assert cli.main(["train", "digits", "--data", "data", "--out", run, *quick]) == 0
    assert cli.main(["evaluate", run, "--data", "data", "--workers=0", "--out", "e", "--device", "cpu"]) == 0
    metrics = json.loads(Path("e/metrics.json").read_text())
    assert sorted(metrics["per_class"]) == ["[red]x[", "cat", r"gr\xf6\xdfe"]
    names = [record["file_name"] for record in json.loads(Path("e/predictions.json").read_text())]
    assert len(names) == 12
    assert all(Path("data/val", name).is_file() for name in names)
    assert "[red]x[ " in capsys.readouterr().out


def test_a_run_s_folder_that_no_checkpoint_can_be_written_into_is_said_at_once(images, capsys):
    """The first checkpoint comes after an epoch, which may take hours."""
    for name in ("cat", "dog"):
        Path("data", name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32)).save(f"data/{name}/{index}.png")
    arguments = ["train", "digits", "--data", "data", "--out", f"run{NOT_UTF_8}", "--run.batch-size=2"]
    assert cli.main(arguments) == 2
    assert r"rungr\xf6\xdfe is not UTF-8" in capsys.readouterr().err
    assert not Path(f"run{NOT_UTF_8}").exists()


@pytest.mark.parametrize(("size", "batch", "accumulation"), [(32, 1, 1), (32, 4, 4)])
def test_one_image_per_batch_norm_part_is_said(images, capsys, size, batch, accumulation):
    for name in ("cat", "dog"):
        Path("data", name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32)).save(f"data/{name}/{index}.png")
    arguments = [
        "train", "imagenet_botnet50_100", "--data", "data", "--out", "run", f"--images.size={size}",
        f"--run.batch-size={batch}", f"--run.accumulation={accumulation}", "--run.workers=0", "--run.device=cpu",
        "--images.rand-augment-layers=0",
    ]  # fmt: skip
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert f"a batch of {batch} images, of 32x32 pixels, in {accumulation} parts (run.accumulation)" in printed
    assert "its map here is 1x1" in printed


def test_no_text_passes_through_markup():
    """Consoles and columns of text are made in one file, and whatever takes markup by itself gets plain text."""
    import ast

    root = Path(botformer.__file__).parent
    for path in root.rglob("*.py"):
        if path == root / "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            where = f"{path.relative_to(root)}:{node.lineno}"
            assert called not in ("Console", "TextColumn", "RichHandler", "Panel", "from_markup", "Prompt"), where
            if called == "Progress":
                assert any(isinstance(argument, ast.Starred) for argument in node.args), where  # not rich's own columns
            if called == "status" or (called == "update" and "status" in ast.dump(node.func)):
                assert all(isinstance(a, ast.Call) and a.func.id == "plain" for a in node.args), where


def test_a_progress_bar_shows_its_title_as_it_is(capsys, monkeypatch):
    from rich.progress import Task

    from botformer.terminal import text_column

    task = Task(0, ODD, None, 0, _get_time=lambda: 0.0)  # pyright: ignore
    assert text_column("{task.description}").render(task).plain == ODD
