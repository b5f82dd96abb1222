"""Publish a trained network on the Hugging Face hub, with a model card: botformer push RUN OWNER/NAME."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from botformer.errors import InputError
from botformer.terminal import screen


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a training run (its best checkpoint), one of its checkpoints, a .safetensors file of
    botformer.save, or a folder that --folder wrote, which is uploaded as it is."""
    repository: Annotated[str, tyro.conf.Positional]
    """OWNER/NAME on the hub; made where there is none."""
    licence: str = ""
    """Of the weights, as the hub calls it: apache-2.0, cc-by-4.0, ... Without one the card says that none is stated."""
    data: str = ""
    """What it was trained on, for the card: in your words, or a data set of the hub as OWNER/NAME."""
    private: bool = False
    """Make the repository a private one, if it is made."""
    folder: Path | None = None
    """Only write the files into this folder, to look at them; nothing is uploaded."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer push", description=__doc__)
    # Heavy, and --help should not wait for it.
    from botformer.hub.publish import is_prepared, prepare_folder, push_to_hub, upload_folder

    if given.folder is not None:
        prepare_folder(given.run, given.folder, given.repository, given.licence, given.data)
        screen().print(
            f"{given.folder} is what would be published; read {given.folder / 'README.md'}. Next: botformer push "
            f"{shlex.quote(str(given.folder))} {given.repository}"
        )
    elif is_prepared(given.run):
        if given.licence or given.data:
            raise InputError(
                f"{given.run} has its card already; write the licence and the data into it, or leave them out"
            )
        screen().print(upload_folder(given.run, given.repository, given.private))
    else:
        address = push_to_hub(
            given.run, given.repository, licence=given.licence, data=given.data, private=given.private
        )
        screen().print(address)
