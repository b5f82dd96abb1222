"""The reference: every public name is on a page, and its docstring says what it takes, gives and refuses."""

import ast
import builtins
import dataclasses
import inspect
import re
import sys
import textwrap
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import botformer
from botformer import deploy, explain, hub
from botformer.errors import InputError

from .documentation_script import script_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "reference").glob("*.md"))
PUBLIC = sorted(
    {f"botformer.{name}" for name in botformer.__all__ if not inspect.ismodule(getattr(botformer, name))}
    | {f"{module.__name__}.{name}" for module in (deploy, explain, hub) for name in module.__all__}
)
TAUGHT = [DOCS.parent / "README.md", *(page for page in DOCS.rglob("*.md") if page.name != "gallery.md")]
ENTRY = re.compile(r"^\.\. auto(function|class|exception|data):: ([\w.]+)\n((?:   :.*\n)*)", re.MULTILINE)
SHAPE = re.compile(
    r"\((?:\d?[BCHKLNODWnh]|3|heads|height|classes|in_chans)(?:,| ?[-*/+])[^()]*(?:\([^()]*\)[^()]*)*\)|of any shape"
)
"""(B, 3, h, w), (L,), (2H-1, D), (height, width): of a letter of the legends, or a word for one."""


def found(name: str):
    """What a full name, such as botformer.explain.see, is."""
    thing, parts = botformer, name.split(".")[1:]
    for number, part in enumerate(parts, start=2):
        if not hasattr(thing, part):
            import_module(".".join(name.split(".")[:number]))
        thing = getattr(thing, part)
    return thing


def entries() -> list[tuple[str, str, str]]:
    """(directive, full name, its options) of everything on the pages."""
    return [match for page in PAGES for match in ENTRY.findall(page.read_text(encoding="utf-8"))]


def members(thing: type, options: str) -> list[str]:
    """The members that a page shows: those it lists, else all that are public and the class's own."""
    listed = re.search(r":members:(.*)", options)
    left_out = re.search(r":exclude-members:(.*)", options)
    if listed is None:
        return []
    if listed[1].strip():
        return re.findall(r"\w+", listed[1])
    own = [name for one in thing.__mro__ if "inherited" in options or one is thing for name in _own(one)]
    return [name for name in dict.fromkeys(own) if name not in re.findall(r"\w+", left_out[1] if left_out else "")]


def _own(thing: type) -> list[str]:
    if not thing.__module__.startswith("botformer."):
        return []
    return [name for name in {**thing.__annotations__, **vars(thing)} if not name.startswith("_")]


@dataclasses.dataclass(frozen=True)
class Documented:
    """A function, a method, or a class that programs make themselves."""

    name: str
    function: object
    own: str
    """Its docstring."""
    above: str = ""
    """Of a method: the docstring of the class, which is just above it."""


@cache
def fields() -> dict[str, tuple[object, str]]:
    """Full name -> (annotation, docstring) of the fields and attributes that the pages show."""
    shown = {}
    for _, name, options in entries():
        thing = found(name)
        if not isinstance(thing, type):
            continue
        for member in members(thing, options):
            if not callable(getattr(thing, member, None)) and not isinstance(_raw(thing, member), property):
                shown[f"{name}.{member}"] = _field(thing, member)
    return shown


def _raw(thing: type, member: str):
    return inspect.getattr_static(thing, member, None)


def _field(thing: type, member: str) -> tuple[str, str]:
    """As the source has them, of whichever class declares it: the statement, and the text below it."""
    for one in thing.__mro__:
        if not one.__module__.startswith("botformer."):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        for body in (node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)):
            for place, node in enumerate(body):
                targets = getattr(node, "targets", [getattr(node, "target", None)])
                if any(member in (getattr(t, "id", None), getattr(t, "attr", None)) for t in targets):
                    after = body[place + 1] if place + 1 < len(body) else None
                    text = after.value.value if _is_text(after) else ""
                    return ast.unparse(getattr(node, "annotation", None) or node), text
    raise AssertionError(f"{thing.__name__}.{member} is nowhere in the source")


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def functions() -> list[Documented]:
    """What the pages show with a signature."""
    shown = []
    for kind, name, options in entries():
        thing = found(name)
        if kind == "function":
            shown.append(Documented(name, thing, inspect.getdoc(thing) or ""))
        elif kind == "class":
            above = thing.__doc__ or ""
            if "Args:" in above:
                shown.append(Documented(name, thing, inspect.getdoc(thing) or ""))
            for member in members(thing, options):
                raw = _raw(thing, member)
                function = raw.fget if isinstance(raw, property) else raw
                if inspect.isfunction(function):
                    shown.append(Documented(f"{name}.{member}", function, inspect.getdoc(function) or "", above))
    return shown


FUNCTIONS = functions()
by_name = pytest.mark.parametrize("shown", FUNCTIONS, ids=lambda shown: shown.name.removeprefix("botformer."))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_on_a_page(name):
    assert any(found(name) is found(other) for _, other, _ in entries())


def test_what_the_pages_import_is_on_a_page_of_the_reference():
    """The gallery also shows parts that are not public, which its images were made with."""
    taught = {name for page in TAUGHT for name in imported(page.read_text(encoding="utf-8"))}
    assert len(taught) > 5
    shown = [found(name) for _, name, _ in entries()]
    missing = [name for name in sorted(taught) if not any(found(name) is one for one in shown)]
    assert [name for name in missing if not inspect.ismodule(found(name))] == []


def imported(text: str) -> set[str]:
    """The full names of botformer's that blocks of Python import or write out."""
    names = set()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "botformer":
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute):
                names |= set(re.findall(r"^botformer(?:\.\w+)+$", ast.unparse(node)))
    return names


def test_imports_and_written_out_names_are_both_seen():
    block = "```python\nfrom botformer.deploy import optimize\nfast = botformer.explain.see(x).pixels\n```\n"
    assert imported(block) == {"botformer.deploy.optimize", "botformer.explain", "botformer.explain.see"}


def test_names_in_docstrings_become_links_or_literals():
    link_names = script_of(DOCS, "docstring_names")._link_names
    lines = ["`load` gave `model_config` and `c5`"]
    link_names(None, "function", "botformer.save", botformer.save, None, lines)
    assert lines == [":py:obj:`load <botformer.load>` gave ``model_config`` and ``c5``"], (
        "a parameter, not the function"
    )


def test_every_name_is_on_one_page_and_the_index_has_the_pages():
    names = [name for _, name, _ in entries()]
    assert len(names) == len(set(names)) > 60
    index = (DOCS / "reference/index.md").read_text(encoding="utf-8")
    listed = re.search(r"```\{toctree\}\n:hidden:\n(.*?)```", index, re.DOTALL)
    assert listed
    assert sorted(listed[1].split()) == [page.stem for page in PAGES if page.stem != "index"]


def test_every_class_and_every_member_has_a_docstring():
    silent = []
    for kind, name, options in entries():
        thing = found(name)
        if kind == "data" or name == "botformer.predictor":
            continue
        text = thing.__doc__ or ""
        if not text or text.startswith(f"{thing.__name__}("):  # what a dataclass makes up
            silent.append(name)
        for member in members(thing, options) if isinstance(thing, type) else ():
            raw = _raw(thing, member)
            function = raw.fget if isinstance(raw, property) else raw
            if inspect.isfunction(function) and not function.__doc__:
                silent.append(f"{name}.{member}")
    assert not silent


def test_every_field_is_explained():
    """By its docstring, or by that of the class that it is one of."""
    shown = fields()
    assert len(shown) > 150
    explained = {found(name).__name__ for _, name, _ in entries() if isinstance(found(name), type)}
    assert not [name for name, (annotation, text) in shown.items() if not text and annotation not in explained]


@by_name
def test_the_docstring_explains_every_parameter(shown):
    """Where there is a list of arguments, there, or in words with its name as code; else by its name, also in the
    docstring of the class. Or the function has the arguments of another one, of which the same holds."""
    others = re.findall(r"Arguments as in `(\w+)`", shown.own)
    texts = [shown.own, *(one.own for one in FUNCTIONS if one.name.rpartition(".")[2] in others)]
    for name in inspect.signature(shown.function).parameters:
        if not arguments(texts):
            assert name == "self" or re.search(rf"\b{name}\b", f"{shown.own}\n{shown.above}"), name
        elif name not in (*arguments(texts), "self"):
            assert any(re.search(rf"`(?:\w+\()?{name}\b", text) for text in texts), name


@by_name
def test_arguments_that_a_docstring_lists_exist(shown):
    assert set(arguments([shown.own])) <= set(inspect.signature(shown.function).parameters)


def arguments(texts: list[str]) -> list[str]:
    """The names in the lists of arguments."""
    lists = [re.search(r"^Args:\n((?: {4}.*\n?)+)", text, re.MULTILINE) for text in texts]
    rows = [row for one in lists if one for row in re.findall(r"^ {4}(\w+(?:, \w+)*):", one[1], re.MULTILINE)]
    return [name for row in rows for name in row.split(", ")]


@by_name
def test_tensors_and_arrays_have_a_shape(shown):
    signature = inspect.signature(shown.function)
    annotations = [one.annotation for one in signature.parameters.values()] + [signature.return_annotation]
    if any(re.search(r"\b(Tensor|ndarray)\b", str(annotation)) for annotation in annotations):
        assert SHAPE.search(shown.own)


def test_fields_of_tensors_and_arrays_have_a_shape():
    arrays = {
        name: text
        for name, (annotation, text) in fields().items()
        if re.search(r"\b(Tensor|ndarray)\b", annotation) and "Callable" not in annotation
    }
    assert len(arrays) > 10
    assert not [name for name, text in arrays.items() if not SHAPE.search(text)]


@by_name
def test_what_raises_an_input_error_says_so(shown):
    if refuses(shown.function):
        assert re.search(r"Raises:\n(?:.*\n)*? *InputError: |Raises `InputError`", shown.own)


@by_name
def test_errors_that_a_docstring_names_exist(shown):
    for row in re.findall(r"^ *((?:\w+, )*\w*(?:Error|Exception|Warning)): ", shown.own, re.MULTILINE):
        for name in row.split(", "):
            error = getattr(botformer if name == "InputError" else builtins, name)
            assert issubclass(error, Exception)


def refuses(function: object) -> bool:
    """Whether the function, or one of its module that it calls, raises an `InputError`."""
    module = sys.modules[function.__module__]
    nodes = _functions_of(module.__name__)
    own = f"{function.__qualname__}.__init__" if isinstance(function, type) else function.__qualname__
    node = nodes[own]
    called = {call.func for call in ast.walk(node) if isinstance(call, ast.Call)}
    names = {one.id for one in called if isinstance(one, ast.Name)}
    of_self = {f"{own.rpartition('.')[0]}.{one.attr}" for one in called if _is_of_self(one)}
    return any(_raises(nodes[name], module) for name in {own, *names, *of_self} & nodes.keys())


def _is_of_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


@cache
def _functions_of(module: str) -> dict[str, ast.FunctionDef]:
    nodes = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.FunctionDef):
            nodes[node.name] = node
        if isinstance(node, ast.ClassDef):
            nodes |= {f"{node.name}.{one.name}": one for one in node.body if isinstance(one, ast.FunctionDef)}
    return nodes


def _raises(node: ast.FunctionDef, module: object) -> bool:
    for one in ast.walk(node):
        if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call) and isinstance(one.exc.func, ast.Name):
            error = getattr(module, one.exc.func.id, None)
            if one.exc.func.id == "unknown" or (isinstance(error, type) and issubclass(error, InputError)):
                return True
    return False


def test_a_helper_that_refuses_is_seen():
    assert refuses(botformer.create_model), "its name and its counts are checked by helpers"
    assert refuses(explain.SeenImage.pixel)
    assert not refuses(botformer.list_models)
