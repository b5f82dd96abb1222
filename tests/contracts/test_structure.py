"""The tree of files: no circles of imports, and names that mean one thing."""

import ast
from collections import defaultdict
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parents[2] / "src" / "botformer"

# Files of one name that hold the same thing for two tasks, what belongs to one data set, or a folder's own entry.
SAME_MEANING = {"__init__", "task", "dataset", "transforms", "batches", "classifier", "detector", "imagenet"}
ALIKE = {("fpn", "rpn")}  # the field's own abbreviations


def modules():
    return {
        ".".join(("botformer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
    }


def imports():
    """Module -> the modules of ours that it imports anywhere: at the top, in functions, for types."""
    known, found = modules(), defaultdict(set)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in known}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found[name] |= {whole} if whole in known else {node.module} & known.keys()
    return {name: found[name] - {name, "botformer"} for name in known if name != "botformer"}


def test_no_files_import_each_other_in_a_circle():
    graph = imports()
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    # What is left lies on a circle or leads to one; those nobody left imports only lead to it.
    while leading := [name for name in graph if not any(name in others for others in graph.values())]:
        for name in leading:
            del graph[name]
    assert sorted(graph) == []


def test_no_two_files_share_a_name_with_two_meanings():
    places = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        places[path.stem].append(path.relative_to(ROOT).as_posix())
    twice = {name: sorted(where) for name, where in places.items() if len(where) > 1 and name not in SAME_MEANING}
    assert {name: where for name, where in twice.items() if not _command_of(where)} == {}


def _command_of(where):
    """A command is called what it runs: commands/demo.py the recipes of recipes/demo.py."""
    return sum(not path.startswith(("commands/", "recipes/")) for path in where) <= 1 and any(
        path.startswith("commands/") for path in where
    )


def test_no_two_names_differ_by_one_letter():
    names = {path.stem for path in ROOT.rglob("*.py")} | {path.name for path in ROOT.rglob("*") if path.is_dir()}
    names -= {"__pycache__"}
    alike = [pair for pair in combinations(sorted(names), 2) if _one_letter_apart(*pair)]
    assert set(alike) - ALIKE == set()


def _one_letter_apart(one, other):
    if abs(len(one) - len(other)) > 1:
        return False
    if len(one) == len(other):
        return sum(a != b for a, b in zip(one, other, strict=True)) == 1
    short, long = sorted((one, other), key=len)
    return any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
