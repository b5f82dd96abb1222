"""Names of splits as people write them: train, Training, training_set, seg_train, train2017, TestSet, valid, dev."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

Kind = Literal["train", "validation", "test"]

_SPELT: dict[Kind, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "validation": (
        "validation", "validate", "valid", "val", "vali", "dev", "devel", "development", "eval", "evaluation",
    ),
    "test": ("test", "testing", "tst", "holdout"),
}  # fmt: skip
_KINDS: dict[str, Kind] = {word: kind for kind, words in _SPELT.items() for word in words}
_FILLERS = ("dataset", "data", "sets", "set", "split", "images", "image", "imgs", "img", "files", "folder", "photos")
"""Words that say nothing about which split it is."""

_MEASURED_ON: tuple[Kind, ...] = ("validation", "test")
"""Kinds of splits that training is validated on; the first that exists is taken."""

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_WITH_FILLER = re.compile(rf"(\w+?)(?:{'|'.join(_FILLERS)})")


class SplitName(NamedTuple):
    """What a name says. Splits with one `rest` belong together: seg_train and seg_test, train2017 and val2017."""

    kind: Kind
    rest: tuple[str, ...]


def read_split(name: str) -> SplitName | None:
    """None where a name does not say one split: dog, train_or_test. "train_station" is the split train of "station"."""
    words = [token.lower() for token in _TOKEN.findall(name)]
    words = [match[1] if (match := _WITH_FILLER.fullmatch(word)) and match[1] in _KINDS else word for word in words]
    kinds: list[Kind] = [_KINDS[word] for word in words if word in _KINDS]
    if len(kinds) != 1:
        return None
    return SplitName(kind=kinds[0], rest=tuple(word for word in words if word not in _KINDS and word not in _FILLERS))


def read_shard(stem: str) -> SplitName | None:
    """As `read_split`, for the tars of one split: train-000017, imagenet-val-000000-of-000064."""
    name = read_split(stem)
    return name and SplitName(
        kind=name.kind, rest=tuple(word for word in name.rest if not word.isdigit() and word != "of")
    )


def read_splits(names: Iterable[str]) -> dict[str, SplitName]:
    return {name: split for name in names if (split := read_split(name))}


def paired(splits: dict[str, SplitName]) -> dict[str, SplitName]:
    """Without those that are splits only as a pair, such as seg_train and seg_test: train_station may be a class."""
    kinds: dict[tuple[str, ...], set[Kind]] = defaultdict(set)
    for split in splits.values():
        kinds[split.rest].add(split.kind)
    return {
        name: split
        for name, split in splits.items()
        if not split.rest or ("train" in kinds[split.rest] and len(kinds[split.rest]) > 1)
    }


def first_to_measure_on(splits: dict[str, SplitName], beside: SplitName | None) -> str | None:
    """The split to validate on, of those that belong to the train split `beside`."""
    for kind in _MEASURED_ON:
        names = [
            name for name, split in splits.items() if split.kind == kind and (not beside or split.rest == beside.rest)
        ]
        if names:
            return min(names, key=lambda name: (name.lower() not in ("validation", "test"), name))
    return None


def is_numbered(stems: list[str]) -> bool:
    """Whether names of tars are the numbers of shards, 00000 or part-7, and not those of classes."""
    return all(re.fullmatch(r"0\d+|\d{3,}|.*[a-zA-Z][-_.]?\d+(?:[-_]of[-_]\d+)?", stem) for stem in stems)
