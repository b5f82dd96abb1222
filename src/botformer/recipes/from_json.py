"""Recipes out of JSON, and with single fields changed: a recipe is data."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from botformer.errors import InputError, unknown
from botformer.recipes.check import from_keywords

T = TypeVar("T")


def recipe_from_json(kind: type[T], content: Mapping[str, Any]) -> T:
    """A recipe, or a group of its fields, as recipe.json has it. A field that is missing has its default value.

    Raises `InputError` naming a field that does not exist or whose value is not allowed.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"a {kind.__name__} of a recipe is {content!r:.80}; expected an object of its fields")
    hints = get_type_hints(kind)
    values = {
        name: recipe_from_json(hints[name], value) if is_dataclass(hints.get(name)) else value
        for name, value in content.items()
    }
    return from_keywords(kind, values, "field of a recipe")


def with_fields(recipe: T, changes: Mapping[str, Any]) -> T:
    """The recipe with other values of the fields named as on the command line, such as "run.batch_size".

    Raises `InputError` for a field that does not exist or a value that is not allowed.
    """
    groups: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for name, value in changes.items():
        group, dot, field = name.partition(".")
        if dot:
            groups.setdefault(group, {})[field] = value
        else:
            own[name] = value
    known = {field.name for field in fields(recipe)}  # pyright: ignore[reportArgumentType]
    for name in own.keys() | groups.keys():
        if name not in known:
            raise unknown("field of a recipe", name, known)
    own |= {group: with_fields(getattr(recipe, group), values) for group, values in groups.items()}
    return replace(recipe, **own)  # pyright: ignore[reportArgumentType]


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"run": {"seed": 0}} as {"run.seed": 0}, which is what `with_fields` takes."""
    items: dict[str, Any] = {}
    for name, value in content.items():
        items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return items
