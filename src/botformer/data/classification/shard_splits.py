"""Addresses of tars, and the splits that they say: train-{0000..0127}.tar and validation-{0000..0006}.tar."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from botformer.data.classification.listing import FoundText, Listing
from botformer.data.classification.remote_tars import list_remote, read_text
from botformer.data.classification.shard_addresses import expand, relative_names
from botformer.data.classification.split_names import SplitName, paired, read_shard, read_split
from botformer.data.classification.splits import Splits, splits_inside
from botformer.data.classification.tars import listing_of
from botformer.errors import InputError
from botformer.text import and_more

_SHOWN = 5


def open_addresses(data: str) -> Splits:
    """Tars over HTTP. The split of a tar is what its own name says, or else the first folder that tells it from the
    others. Where all are training images, or none says a split, they are one whole, of which a tenth can be held out.

    Raises:
        InputError: no addresses of tars, or tars of splits beside others of none.
    """
    addresses = expand(data)
    _, paths = relative_names(addresses)
    if len(addresses) == 1:
        return splits_inside(_listing(data, addresses), data)
    split_of = {address: _split_of(path) for address, path in zip(addresses, paths, strict=True)}
    names: dict[SplitName, str] = {}
    for split in split_of.values():
        if split:
            names.setdefault(split, "-".join((split.kind, *split.rest)))
    known = paired({name: split for split, name in names.items()})
    if {split.kind for split in known.values()} == {"train"}:
        known = {}
    at_home = {address for address, split in split_of.items() if split in known.values()}
    homeless = [path for address, path in zip(addresses, paths, strict=True) if address not in at_home]
    if known and homeless:
        raise InputError(
            f"{data}: of {len(homeless)} tars the names do not say whether they are to train or to validate on, such "
            f"as {and_more(homeless, _SHOWN)}, of others they do ({and_more(sorted(known), _SHOWN)})"
        )
    return Splits(
        data,
        known,
        listing=lambda name: _listing(
            f"{data} ({name})", [address for address in addresses if split_of[address] == known[name]]
        ),
        whole=lambda: _listing(data, addresses),
        entries=lambda: known or paths,
    )


def _split_of(path: str) -> SplitName | None:
    parts = PurePosixPath(path)
    return read_shard(parts.stem) or (read_split(parts.parts[0]) if len(parts.parts) > 1 else None)


def _listing(where: str, addresses: Sequence[str]) -> Listing:
    folder, _ = relative_names(addresses)

    def text_beside(names: Sequence[str]) -> FoundText | None:
        above = folder.rstrip("/").rpartition("/")[0] + "/"
        for place in (folder, above) if above.count("/") > 2 else (folder,):  # not above the host
            for name in names:
                text = read_text(place + name)
                if text is not None:
                    return FoundText(place + name, text)
        return None

    return listing_of(where, list_remote(addresses), len(addresses) > 1, text_beside)
