"""A place with images, whatever it is, and which of its splits training and evaluation take."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from botformer.data.classification.listing import Listing, below, wrapper
from botformer.data.classification.split_names import (
    SplitName,
    first_to_measure_on,
    paired,
    read_split,
    read_splits,
)
from botformer.errors import InputError
from botformer.text import and_more

LAYOUTS = """expected one of
  DIR/train/CLASS/*.jpg and DIR/validation/CLASS/*.jpg (also val, valid, dev or test)
  DIR/CLASS/*.jpg (a tenth of every class is held out for validation)
  DIR/train.tar and DIR/validation.tar, or folders of tars (inside: CLASS/*.jpg, or WebDataset's *.jpg and *.cls)
  http://HOST/PATH/{train-{0000..0127},validation-{0000..0006}}.tar, the same tars on a server
  DIR/train-*.parquet and DIR/validation-*.parquet with columns image and label
  hfds/OWNER/NAME, a data set of the hub with such columns"""

_SHOWN = 10


@dataclass(frozen=True)
class Splits:
    at: str
    """The folder, the tar or the addresses, for messages."""
    known: dict[str, SplitName]
    """Name -> what it says."""
    listing: Callable[[str], Listing]
    """Of a split, or of anything that `has` knows."""
    whole: Callable[[], Listing]
    """Everything, as one split."""
    entries: Callable[[], Iterable[str]]
    """What is there, for messages."""
    has: Callable[[str], bool] = lambda name: False
    """Whether a folder or a tar has this very name, though it says no split."""

    def train(self) -> str | None:
        return self._only([name for name, split in self.known.items() if split.kind == "train"])

    def to_measure_on(self) -> str | None:
        train = self.train()
        return first_to_measure_on(self.known, self.known[train] if train else None)

    def named(self, split: str) -> str | None:
        """A split, or any other folder or tar, by its own name or by one that says the same: test, Testing."""
        if self.has(split):
            return split
        asked = read_split(split)
        alike = [name for name in self.known if name.lower() == split.lower()]
        return self._only(alike or [name for name, found in self.known.items() if asked and found.kind == asked.kind])

    def _only(self, names: list[str]) -> str | None:
        if len(names) > 1:
            raise InputError(
                f"{self.at} has several splits of one kind, {and_more(sorted(names), _SHOWN)}; keep one of them there, "
                "or give a folder with the splits you mean (links will do)"
            )
        return names[0] if names else None

    def found(self) -> str:
        return f"found there: {and_more(sorted(self.entries()), _SHOWN) or 'nothing'}"


def splits_inside(inside: Listing, at: str) -> Splits:
    """Those of a single tar, which are folders in it."""
    prefix = wrapper(inside)
    tops = {path.removeprefix(prefix).split("/")[0] for path in inside.paths if path.count("/") > prefix.count("/")}
    deep = {top for top in tops if any(path.count("/") >= prefix.count("/") + 2 for path in inside.paths)}
    known = paired(read_splits(sorted(deep)))
    unwrapped = below(inside, prefix, at)
    return Splits(
        at,
        known,
        listing=lambda name: below(unwrapped, f"{name}/", f"{at}/{name}"),
        whole=lambda: unwrapped,
        entries=lambda: known,
    )
