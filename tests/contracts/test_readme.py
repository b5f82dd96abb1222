"""The README and the pages of docs/ promise nothing that does not run."""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

import botformer
from botformer import cli
from botformer.backbone.flops import count
from botformer.backbone.variants import PUBLISHED, ROWS
from botformer.data.synthetic.nuclei_crops import read_nuclei

from .command_lines import parse
from .test_tutorials import TUTORIALS
from .tutorial_text import blocks, logical_lines

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDERS = {"RECIPE": "nuclei", "PX": "512", "N": "0", "Y": "10", "X": "20"}


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def detector_block_runs(block: str) -> dict:
    """With a smaller canvas, and the images and targets that the page leaves to the reader."""
    masks = torch.zeros(1, 100, 128, dtype=torch.bool)
    masks[0, 20:60, 30:90] = True
    target = {"boxes": torch.tensor([[30.0, 20.0, 90.0, 60.0]]), "labels": torch.tensor([7]), "masks": masks}
    names: dict = {"botformer": botformer, "images": [torch.rand(3, 100, 128)], "targets": [target]}
    assert "image_size=1024" in block
    exec(block.replace("image_size=1024", "image_size=128"), names)
    assert names["losses"].keys() >= {"loss_mask", "loss_box_reg"}
    assert [detections.keys() for detections in names["detections"]] == [{"boxes", "labels", "scores", "masks"}]
    return names


def test_every_block_of_python_is_run_below():
    """Those of tutorials in test_tutorials.py, of how-tos in test_how_to.py."""
    others = [page for page in PAGES if page not in TUTORIALS and page.parent.name != "how_to"]
    blocks = {page.relative_to(ROOT).as_posix(): len(python_blocks(page)) for page in others}
    assert {name: number for name, number in blocks.items() if number} == {
        "README.md": 1,
        "docs/attention.md": 1,
        "docs/detection.md": 1,
        "docs/predict.md": 1,
        "docs/deploy.md": 1,
        "docs/doors.md": 5,
        "docs/ecosystem.md": 3,
        "docs/explain.md": 2,
        "docs/gallery.md": 13,  # run by docs/gallery/draw.py, looked at in test_gallery.py
        "docs/maths.md": 1,  # test_maths_page.py
        "docs/recipes.md": 2,
        "docs/which_blocks.md": 2,  # test_which_blocks.py
    }


def test_the_python_runs_and_gives_the_shapes_it_says():
    block = python_blocks(ROOT / "README.md")[0]
    names: dict = {}
    exec(block, names)
    assert names["logits"].shape == (2, 10)
    assert list(names["maps"]) == ["c2", "c3", "c4", "c5"]
    assert len(block.strip().splitlines()) == 6


def test_the_readme_is_one_screen():
    """Of a large window; its table is the longest part."""
    assert len(README.splitlines()) <= 56


def test_the_python_of_detectors_runs():
    names = detector_block_runs(python_blocks(ROOT / "docs/recipes.md")[0])
    assert names["config"]["categories"] == [[1, "nucleus"]]


def test_the_python_of_the_page_on_detectors_runs():
    detector_block_runs(python_blocks(ROOT / "docs/detection.md")[0])


def test_the_python_of_the_page_on_predicting_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("supervision")
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(read_nuclei()[0][:128, :128]).save("cells.png")
    exec(python_blocks(ROOT / "docs/predict.md")[0], {"botformer": botformer})
    assert Path("drawn.png").stat().st_size > 5000
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) > 5
    assert re.match(r"nucleus 0\.\d\d at \d+ \d+, \d+ px wide", printed[0])
    assert printed[-1] == "nowhere.png No such file or directory"


def test_the_python_of_the_copied_listing_runs():
    layer = botformer.MHSA2d(8, heads=2, size=(3, 4), position="blog")
    names: dict = {"botformer": botformer, "model": torch.nn.Sequential(layer)}
    exec(python_blocks(ROOT / "docs/attention.md")[0], names)
    assert names["model"][0].position == "relative"


@pytest.mark.parametrize("number", range(5))
def test_the_python_of_doors_runs(number):
    block = python_blocks(ROOT / "docs/doors.md")[number]
    if "segmentation_models_pytorch" in block:
        pytest.importorskip("segmentation_models_pytorch")
    names: dict = {}
    exec(block, names)
    shapes = {"logits": (2, 10), "masks": (1, 2, 97, 71), "p5": (1, 256, 10, 10), "mask": (1, 1, 45, 61)}
    for name in shapes.keys() & names.keys():
        assert names[name].shape == shapes[name]
    if "maps" in names:
        assert [each.shape[2] for each in names["maps"]] == [48, 24, 12, 6, 6]
    if "detections" in names:
        assert names["detections"][0].keys() == {"boxes", "labels", "scores", "masks"}


def test_the_python_of_explanations_runs(tmp_path, monkeypatch):
    """With a small network for the run that the page leaves to the reader."""
    monkeypatch.chdir(tmp_path)
    of_class, of_detection = python_blocks(ROOT / "docs/explain.md")
    shutil.copytree(ROOT / "tests/fixtures/classifier_run", "runs/photos", symlinks=True)
    Image.new("RGB", (60, 50), "teal").save("photo.jpg")
    Image.open(ROOT / "src/botformer/data/synthetic/bbbc038/nuclei.png").crop((0, 0, 200, 150)).save("cells.png")
    names: dict = {}
    exec(of_class, names)
    assert (tmp_path / "heads.png").stat().st_size > 10_000
    assert names["flow"].values.shape == (2, 2)
    names = {}
    exec(of_detection, names)
    assert names["cam"].level in ("p2", "p3", "p4", "p5")
    assert names["flow"].values.shape == (48, 64)


def test_the_python_of_the_page_on_deployment_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(python_blocks(ROOT / "docs/deploy.md")[0], names)
    assert names["logits"].shape == (1, 10)
    assert {"config.json", "run.py"} < {each.name for each in Path("deployed").iterdir()}


def test_the_python_of_speed_runs():
    block = python_blocks(ROOT / "docs/recipes.md")[1]
    names: dict = {"botformer": botformer, "torch": torch, "model": botformer.create_model("botnet_nano").eval()}
    exec(block, names)
    images = torch.randn(1, 3, 65, 48)
    expected = names["model"](images)
    torch.testing.assert_close(names["fast"](images), expected)
    assert names["faster"](images).dtype == torch.float32
    assert names["converted"].eval()(torch.randn(1, 3, 96, 160)).shape == (1, 1000)


def figures_of(content) -> list[float]:
    if isinstance(content, dict | list):
        return [
            figure
            for item in (content.values() if isinstance(content, dict) else content)
            for figure in figures_of(item)
        ]
    return [content] if isinstance(content, int | float) and not isinstance(content, bool) else []


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_every_printed_result_is_a_figure_of_its_receipt(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(
        r"^\| (.*?) \| ([\d.]+) \| (.*?) ?\| (.*?) ?\| \[(\w+)\]\((?:\.\./)?results/(\w+)\.json\) \|$",
        text,
        re.MULTILINE,
    )
    assert len(lines) == len(re.findall(r"\]\((?:\.\./)?results/\w+\.json\)", text)) >= 9
    for what, ours, others, _, receipt, file in lines:
        assert receipt == file
        content = json.loads((ROOT / f"results/{receipt}.json").read_text(encoding="utf-8"))
        printed = [ours, *(other.rsplit(" ", 1)[1] for other in others.split(", ") if other)]
        for figure in printed:
            decimals = len(figure.partition(".")[2])
            measured = figures_of(content["figures"])
            assert any(abs(float(figure) - value) <= 0.5 * 10**-decimals + 1e-9 for value in measured), (what, figure)
        hardware = content["hardware"]
        if hardware["gpu"]:
            assert what.startswith("H100") or what.startswith("the same as a CUDA graph")
            assert hardware["gpu"].startswith("NVIDIA H100")
        else:
            assert f"{ {2: 'two'}[hardware['cores']] } cores of an {hardware['processor']}" in " ".join(text.split())


def test_the_papers_figures_stand_in_the_papers_column_alone():
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    table = re.search(r"^\| what \|.*?(?=\n[^|])", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    columns = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    assert columns[0].index("paper") == 3
    for figure in ("1.31", "1.64"):
        found = [line for line in columns if any(figure in cell for cell in line)]
        assert found
        for line in found:
            assert [figure in cell for cell in line].count(True) == 1
            assert line[3].endswith(f"{figure} (TPU-v3)")


def test_the_table_of_models_is_what_is_counted_and_what_the_paper_prints():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    lines = re.findall(
        r"^\| (\w+)(?:\\\*)* \| (\d+) \| ([\d,]+) \| (\S*) ?\| ([\d.]+e9) \| (\S*) ?\|$", page, re.MULTILINE
    )
    assert [name for name, *_ in lines] == list(ROWS)
    for name, size, parameters, paper_parameters, multiply_adds, paper_multiply_adds in lines:
        counts = count(ROWS[name], int(size))
        published = {p.image_size: p for p in PUBLISHED.get(name, ())}.get(int(size))
        assert f"{counts.parameters:,}" == parameters
        assert f"{counts.multiply_adds / 1e9:.3f}e9" == multiply_adds
        assert paper_parameters == (published.parameters if published else "")
        assert paper_multiply_adds == (published.multiply_adds if published else "")


def indented(page: Path) -> list[str]:
    """The lines of code blocks by indentation, without their comments."""
    return re.findall(r"^ {4}(\S.*?)(?: {2,}#.*)?$", page.read_text(encoding="utf-8"), re.MULTILINE)


def commands(page: Path) -> list[str]:
    return [line for line in indented(page) if line.startswith("botformer ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_line_is_one_that_the_program_takes(page):
    """Verbs, recipes, options and fields exist; nothing is run. What stands in brackets is taken, too."""
    trained = []
    for command in commands(page):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(re.sub(r"[\[\]]|\.\.\.", "", command))]
        trained += parse(words[1:])
    if page.name == "recipes.md":
        assert {recipe.model.weights for recipe in trained} == {"", "imagenet", "nuclei"}
        assert {getattr(recipe, "detector", None) for recipe in trained} == {"mask_rcnn", "keypoint_rcnn"}


def test_a_tutorial_runs_each_command_of_the_readme():
    """The same command with the same options, on data and runs of its own; tests/serve runs the page."""
    run = [shaped(line) for page in TUTORIALS for line in commands_run(page)]
    for line in commands(ROOT / "README.md"):
        verb, options = shaped(line)
        assert verb == "serve" or any(verb == other and options <= others for other, others in run), line


def shaped(line: str) -> tuple[str, set[str]]:
    """Its verb, and the names of its options."""
    words = shlex.split(line, comments=True)[1:]
    return " ".join(words[: 2 if words[0] == "train" else 1]), {word for word in words if word.startswith("--")}


def commands_run(page: Path) -> list[str]:
    found = [block for block in blocks(page.read_text(encoding="utf-8")) if block.kind == "bash" and not block.not_run]
    return [line for block in found for line in logical_lines(block.text) if line.startswith("botformer ")]


def test_commands_within_the_text_have_verbs_that_exist():
    for page in PAGES:
        for verb in re.findall(r"`botformer ([a-z]+)", page.read_text(encoding="utf-8")):
            assert verb in cli.COMMANDS, page


def test_what_is_installed_exists():
    """Every `pip install` is of this folder with extras that pyproject.toml has, and comes before anything else."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = [line for line in indented(ROOT / "README.md") if "pip install" in line]
    assert lines == [indented(ROOT / "README.md")[0]]
    for page in PAGES:
        for given in re.findall(r'pip install (?:-e )?"(.*?)"', page.read_text(encoding="utf-8")):
            assert re.fullmatch(r"\.(\[[\w,]+\])?", given), given
            assert set(re.findall(r"\w+", given)) <= extras.keys()


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^ {4}|`)make ([\w-]+)", text, re.MULTILINE)) <= targets


def test_every_indented_line_is_checked_by_something():
    known = ("botformer ", "make ", "uv pip install ")
    assert all(line.startswith(known) for line in indented(ROOT / "README.md"))
