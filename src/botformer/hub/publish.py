"""A folder that can be published, and its way to the hub: two steps, so that people can look in between."""

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from botformer import __version__
from botformer.atomic_write import write_json
from botformer.create.from_checkpoint import Loaded, load, weights_file
from botformer.errors import InputError
from botformer.hub.model_card import write_card
from botformer.weights import save
from botformer.weights.hub_file import SAFETENSORS

log = logging.getLogger(__name__)

CARD, CONFIG = "README.md", "config.json"
FILES = (SAFETENSORS, CONFIG, CARD)
"""Of a repository; nothing else is written or uploaded."""


def prepare_folder(
    source: str | Path, folder: str | Path, repository: str = "", licence: str = "", data: str = ""
) -> Path:
    """Write what a repository of the hub needs into `folder`, which is made, and return it.

    model.safetensors is what `botformer.save` writes: the best weights, with their model config inside.
    config.json says the same to people. README.md is the model card; one that is there stays, for somebody may have
    written in it. Nothing is uploaded.

    Args:
        source: as for `botformer.load`; the folder of a run, whose journal fills the card, says most.
        repository: "owner/name", for the lines in the card that say how the network is used.
        licence: of the weights, as the hub calls it ("apache-2.0", "cc-by-4.0"). Empty: the card says that nobody
            stated one.
        data: what it was trained on, in your words or as a data set of the hub ("owner/name").

    Raises:
        InputError: no such network, a repository or a licence that cannot be one, or a card in `folder` that is of
            another network or would have to change.
    """
    if repository:
        check_repository(repository)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder to write to")
    file = Path(weights_file(source)) if Path(source).exists() else None
    if file is not None and file.resolve() == (folder / SAFETENSORS).resolve():
        raise InputError(f"{folder} holds {source} itself; name another folder to write to")
    loaded = load(source)
    has_card = (folder / CARD).exists()
    if has_card and not _holds(folder / SAFETENSORS, loaded):
        raise InputError(f"{folder / CARD} is the card of another network; remove it, or name another folder")
    if has_card and (licence or data):
        raise InputError(
            f"{folder / CARD} is there and is not written anew; write the licence and the data into it yourself, or "
            "remove it"
        )
    foreign = [name for name in (SAFETENSORS, CONFIG) if not has_card and (folder / name).exists()]
    if foreign and not _holds(folder / SAFETENSORS, loaded):
        raise InputError(f"{folder} has another {' and '.join(foreign)}; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    save(loaded.model, loaded.model_config, folder / SAFETENSORS)
    about = {
        "library_name": "botformer",
        "botformer_version": __version__,
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "model_config": loaded.model_config,
    }
    write_json(folder / CONFIG, about)
    if has_card:
        log.info("%s is there and stays as it is", folder / CARD)
    else:
        write_card(source, folder / CARD, repository, licence, data)
    return folder


def upload_folder(
    folder: str | Path, repository: str, private: bool = False, message: str = "", token: str | None = None
) -> str:
    """Upload what `prepare_folder` wrote, and return the address of the repository.

    The repository is made where there is none. Only `FILES` are uploaded, whatever else lies in the folder.

    Args:
        folder: what `prepare_folder` returned.
        repository: "owner/name".
        private: of a repository that is made; of one that is there nothing changes.
        message: of the commit.
        token: of the hub; by default that of `hf auth login`.

    Raises:
        InputError: a folder that `prepare_folder` did not write, or no right or no way to write there.
    """
    check_repository(repository)
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} has no {', '.join(missing)}; botformer.hub.prepare_folder writes {', '.join(FILES)}"
        )
    from huggingface_hub import HfApi  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # The base is an error of the HTTP client that this version of the hub's library uses.
    unreachable: Any = (OfflineModeIsEnabled, OSError, HfHubHTTPError.__mro__[1])
    api = HfApi(token=token, library_name="botformer", library_version=__version__)
    try:
        where = str(api.create_repo(repository, private=private or None, exist_ok=True))
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message=message or f"By botformer {__version__}",
        )
    except (LocalTokenNotFoundError, HfHubHTTPError, ValueError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
            raise InputError(
                f"{repository}: you may not write there. Log in with a token that may (hf auth login), and check the "
                "owner's name"
            ) from error
        raise InputError(f"{repository}: the hub refused it: {_first_line(error)}") from error
    except unreachable as error:
        raise InputError(
            f"{repository}: the hub cannot be reached ({_first_line(error)}); {folder} is complete, so only the upload "
            "has to be done again"
        ) from error
    return where


def push_to_hub(
    source: str | Path,
    repository: str,
    *,
    licence: str = "",
    data: str = "",
    private: bool = False,
    token: str | None = None,
) -> str:
    """`prepare_folder` and `upload_folder` one after the other; returns the address of the repository.

    To look at the files, or to write in the card, before they are published, take the two steps yourself.

    Args:
        source: as for `botformer.load`; the folder of a run, whose journal fills the card, says most.
        repository: "owner/name"; it is made where there is none.
        licence: of the weights, as the hub calls it ("apache-2.0", "cc-by-4.0"). Empty: the card says that nobody
            stated one.
        data: what it was trained on, in your words or as a data set of the hub ("owner/name").
        private: of a repository that is made; of one that is there nothing changes.
        token: of the hub; by default that of `hf auth login`.

    Raises:
        InputError: no such network, a repository or a licence that cannot be one, or no right or no way to write there.
    """
    check_repository(repository)
    with TemporaryDirectory() as folder:
        prepare_folder(source, folder, repository, licence, data)
        return upload_folder(folder, repository, private, token=token)


def is_prepared(folder: Path) -> bool:
    """Whether it holds what `upload_folder` needs."""
    return all((folder / name).is_file() for name in FILES)


def _holds(file: Path, loaded: Loaded) -> bool:
    try:
        other, own = load(file), loaded.model.state_dict()
    except InputError:  # nothing there, or no network of ours
        return False
    there = other.model.state_dict()
    return (
        other.model_config == loaded.model_config
        and there.keys() == own.keys()
        and all(torch.equal(tensor, there[name]) for name, tensor in own.items())
    )


def check_repository(repository: str) -> None:
    """Raises `InputError` where it is not owner/name."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII) or ".." in repository or "--" in repository:
        raise InputError(
            f"{repository!r} cannot be a repository of the hub; expected owner/name of letters, digits, - _ and ."
        )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
