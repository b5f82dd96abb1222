"""The tutorials, run from their own text."""

from pathlib import Path

import pytest

from .tutorial_text import ROOT, TutorialError, blocks, compare, run

TUTORIALS = [ROOT / "docs/start.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]


@pytest.fixture(autouse=True)
def _scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page: Path) -> None:
    run(page.read_text(encoding="utf-8"), page.name)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_ends_with_what_to_change_and_leaves_little_out(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ending = text.rpartition("\n## ")[2]
    assert ending.startswith("In earnest\n" if page.parent.name == "tutorials" else "Where to go next\n")
    assert "](" in ending, "links"
    found = blocks(text)
    assert sum(not block.not_run for block in found) >= 3
    for block in found:
        assert block.not_run in ("", *REASONS), block.not_run


REASONS = (
    "it installs",
    "needs several machines",
    "needs COCO and several GPUs",
    "needs a cluster",
    "waits for people",
    "needs archives that are not ours, and hours",
)
"""Why a block may be left out."""


@pytest.mark.parametrize(
    "page",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n```\n",
        "```python\nassert False\n```\n",
        "```bash\nbotformer models --image-size -3\n```\n",
        "```bash\nfalse | true\n```\n",
        "```bash\nbotformer nonsense\n```\n",
        "<!-- not run: needs a cluster -->\n```bash\nbotformer predict x.jpg --nonsense\n```\n",
        "<!-- not run: needs a cluster -->\n```bash\nif true\n```\n",
        "<!-- not run: needs a cluster -->\n```python\nassert False\n```\n",
        "```\nbotformer nonsense\n```\n",
        "```text\n1\n```\n",
        "```python\nprint(1)\n",
    ],
)
def test_a_tutorial_that_is_wrong_fails(page: str) -> None:
    with pytest.raises((Exception, SystemExit)) as raised:
        run(page)
    assert not isinstance(raised.value, SyntaxError | TypeError | NameError)


def test_blocks_share_names_and_a_folder() -> None:
    run("```python\nx = 3\nopen('x.txt', 'w').write('three')\n```\n"
        "```bash\ncat x.txt; echo; python -c 'import botformer; print(botformer.__name__)'\n```\n"
        "```text\nthree\nbotformer\n```\n"
        "```python\nprint(x)\n```\n```text\n3\n```\n")  # fmt: skip


def test_masked_output() -> None:
    compare("top1 0.9... on 12\n...\nend\n", "top1   0.9321 on 12\n\na\nb\nend\n", "here")
    compare("...\nend\n", "end\n", "here")
    for printed in ("top1 0.8 on 12\nend\n", "top1 0.9 on 12\nend\nmore\n", "x\ntop1 0.9 on 12\nend\n"):
        with pytest.raises(TutorialError):
            compare("top1 0.9... on 12\nend\n", printed, "here")
