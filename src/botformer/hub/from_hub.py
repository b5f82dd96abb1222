"""A trained network by the name of its repository, or from a copy of one."""

from pathlib import Path

from botformer.create.from_checkpoint import Loaded, load, load_hub
from botformer.errors import InputError
from botformer.weights.hub_file import HUB, is_hub_address, read_address


def from_pretrained(
    source: str | Path,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Loaded:
    """The network and its model config, as `botformer.load` gives them.

    Only model.safetensors is read: tensors and text, of which nothing is run.

    Args:
        source: "owner/name" or hf://owner/name on the hub, or a folder such as `prepare_folder` writes. What is there
            as a folder or a file is taken first.
        revision: a branch, a tag or a commit of the repository.
        cache_dir: a folder in the layout of the hub's cache; by default the hub's own.
        local_files_only: take it from the cache, and do not ask the hub.

    Raises:
        InputError: no such network, no right to read it, no connection and nothing in the cache, or a file that
            botformer did not write.
    """
    local = not is_hub_address(source)
    if local and (Path(source).exists() or str(source).count("/") != 1):
        if revision is not None:
            raise InputError(f"{source} is on this machine, where there are no revisions; leave revision out")
        return load(source)
    address = read_address(f"{HUB}{source}" if local else source)
    if revision is not None and address.revision not in (None, revision):
        raise InputError(f"{address} names another revision than {revision!r}; give one of them")
    return load_hub(str(address._replace(revision=revision or address.revision)), cache_dir, local_files_only)
