"""Command lines of the documentation: parsed by the program itself, and not run."""

from collections.abc import Sequence
from unittest.mock import patch

import pytest
import tyro

from botformer import cli
from botformer.commands import train_planned
from botformer.create import train_recipe


class NotRunError(Exception):
    """The arguments were taken; nothing is to be run."""


def parse(words: Sequence[str]) -> list:
    """Verb, recipe, options and fields of `botformer WORDS` exist. Returns the recipes that would be trained."""
    verb, *arguments = words
    assert verb in cli.COMMANDS, verb
    trained: list = []
    if verb == "train" and arguments[0] in train_planned.VERBS:
        planned = arguments[0] if arguments[0] != "auto" else "classify"  # as the images would say
        assert train_planned.parse(planned, arguments[1:]).data
        return trained
    if verb == "train":
        with patch.object(train_recipe, "train_recipe", lambda recipe, *rest, **others: trained.append(recipe) or {}):
            assert cli.main([verb, *arguments]) == 0
        return trained
    tyros = tyro.cli

    def only_parse(*given, **options):
        tyros(*given, **options)
        raise NotRunError

    with patch.object(tyro, "cli", only_parse), pytest.raises(NotRunError):
        cli.main([verb, *arguments])
    return trained
