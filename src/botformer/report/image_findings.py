"""What is wrong or odd with the image files of a data set: damaged, copied, blank, turned, deep, large."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from botformer.data.detection.dataset import DetectionDataset
from botformer.data.image_facts import ImageFacts
from botformer.data.image_io import ImageHeader
from botformer.data.near_duplicates import are_close, exact_groups, near_groups
from botformer.recipes.schema import Images
from botformer.report.finding import Example, Finding, ImageRef
from botformer.report.opened_data import Split
from botformer.text import printable

EXAMPLES = 12
LISTED = 20
_COMPARED = 200
"""Members of a group of copies that are compared one by one."""
_LARGE_MEGAPIXELS = 12.0
_SMALL_PX = 32
_LONG = 3.0
"""Longer side by shorter side."""
_LEFT_OUT = {
    "train": "; training leaves them out",
    "validation": "; training leaves them out",
    "test": "; an evaluation leaves them out",
}

Facts = Mapping[str, Sequence[ImageFacts]]
"""Split -> the facts of its images, in their order."""


@dataclass(frozen=True)
class _Image:
    split: Split
    index: int
    fact: ImageFacts

    @property
    def ref(self) -> ImageRef:
        return ImageRef(self.split.name, self.index)

    @property
    def name(self) -> str:
        return printable(self.split.image_name(self.index))

    @property
    def label(self) -> str:
        return self.split.label(self.index)

    @property
    def words(self) -> str:
        return f"{self.split.name}: {self.name}"


def image_findings(splits: Sequence[Split], facts: Facts) -> list[Finding]:
    """The worst first."""
    images = [
        _Image(split, index, _checked(split, index, fact))
        for split in splits
        for index, fact in enumerate(facts[split.name])
    ]
    return [
        *_unreadable(splits, images),
        *_copies(images),
        *_blank(images),
        *_odd(images),
    ]


def _checked(split: Split, index: int, fact: ImageFacts) -> ImageFacts:
    """Of a detector's data: an image of another size than its record says cannot be used."""
    if not isinstance(split.dataset, DetectionDataset) or fact.header is None:
        return fact
    record = split.dataset.image(index)
    if (fact.header.width, fact.header.height) == (record.width, record.height):
        return fact
    return ImageFacts(
        f"is {fact.header.width}x{fact.header.height} pixels upright, its record says {record.width}x{record.height}: "
        "boxes would not fit",
        None,
        None,
    )


def _unreadable(splits: Sequence[Split], images: Sequence[_Image]) -> Iterator[Finding]:
    tolerated = Images().max_bad_files
    for split in splits:
        bad = [image for image in images if image.split is split and image.fact.problem]
        if not bad:
            continue
        # Training opens no test images.
        stops = split.name != "test" and (len(bad) > tolerated or len(bad) == len(split))
        yield Finding(
            "error" if stops else "warning",
            f"{_count(len(bad), 'image')} of {len(split):,} cannot be read"
            + (f"; training stops at more than {tolerated}" if stops else _LEFT_OUT[split.name]),
            split.name,
            len(bad),
            "Copy them anew from where they came, or remove them."
            + (f" --images.max-bad-files {len(bad)} tolerates them." if stops and len(bad) < len(split) else ""),
            listed=listed([f"{image.name}: {image.fact.problem}" for image in bad]),
        )


# Copies


def _copies(images: Sequence[_Image]) -> Iterator[Finding]:
    hashes = [image.fact.hashes for image in images]
    if not any(hashes):
        return
    exact = [[images[place] for place in group] for group in exact_groups(hashes)]
    near = [[images[place] for place in group] for group in near_groups(hashes)]
    for groups, how, kind in ((exact, "byte for byte", "equal files"), (near, "nearly", "near copies")):
        yield from _leaks(groups, how)
        yield from _conflicts(groups, kind)
    for groups, kind in ((exact, "repeat another there byte for byte"), (near, "nearly repeat another there")):
        yield from _within(groups, kind)


def _leaks(groups: Sequence[Sequence[_Image]], how: str) -> Iterator[Finding]:
    """Images to measure by that are among those to train on."""
    for measured in ("validation", "test"):
        leaks = []
        for group in groups:
            train = [image for image in group if image.split.name == "train"][:_COMPARED]
            for image in group:
                copy = next((other for other in train if _are_copies(image, other)), None)
                if image.split.name == measured and copy is not None:
                    leaks.append((image, copy))
        if leaks:
            yield Finding(
                "warning",
                f"{_count(len(leaks), f'{measured} image')} {_are(len(leaks))} also among the training images ({how}): "
                "scores will be better than the network is",
                f"{measured} and train",
                len(leaks),
                "Remove one of each pair, or split anew so that all images of one thing are on one side.",
                listed=listed([f"{image.words} = {other.words}" for image, other in leaks]),
                examples=[
                    Example([image.ref, other.ref], f"{image.words} = {other.words}")
                    for image, other in leaks[:EXAMPLES]
                ],
            )


def _conflicts(groups: Sequence[Sequence[_Image]], kind: str) -> Iterator[Finding]:
    """One image with two labels: at least one of them is wrong."""
    pairs = []
    for group in groups:
        members = group[:_COMPARED] if len({image.label for image in group}) > 1 else []
        differing = ((one, other) for one, other in combinations(members, 2) if one.label != other.label)
        pairs += islice((pair for pair in differing if _are_copies(*pair)), 1)
    if pairs:
        yield Finding(
            "warning",
            f"{_count(len(pairs), 'group')} of {kind} {_have(len(pairs))} different labels",
            "classes",
            len(pairs),
            "Keep each in one class: whatever the network says, half of them count as wrong.",
            listed=listed([f"{one.words} ({one.label}) = {other.words} ({other.label})" for one, other in pairs]),
            examples=[
                Example([one.ref, other.ref], f"{one.words} · {one.label}  |  {other.words} · {other.label}")
                for one, other in pairs[:EXAMPLES]
            ],
        )


def _within(groups: Sequence[Sequence[_Image]], kind: str) -> Iterator[Finding]:
    """Copies in one split."""
    parts: dict[str, list[list[_Image]]] = {}
    for group in groups:
        for split in {image.split.name: None for image in group}:
            part = [image for image in group if image.split.name == split]
            if len(part) > 1:
                parts.setdefault(split, []).append(part)
    for split, found in parts.items():
        spare = sum(len(group) - 1 for group in found)
        yield Finding(
            "note",
            f"{_count(spare, 'image')} in {split} {_verb(spare, kind)}",
            split,
            spare,
            "Harmless in training where it is a few, which then count twice; in validation they make the score less "
            "sure than the number of images says. Keep those of one group together when you split.",
            listed=listed([" = ".join(image.name for image in group[:4]) for group in found]),
            examples=[
                Example([image.ref for image in group[:3]], " = ".join(image.name for image in group[:3]))
                for group in found[:EXAMPLES]
            ],
        )


def _are_copies(one: _Image, other: _Image) -> bool:
    """Members of a large group may be linked by others alone."""
    assert one.fact.hashes is not None
    assert other.fact.hashes is not None
    return one.fact.hashes.content == other.fact.hashes.content or are_close(one.fact.hashes, other.fact.hashes)


# Oddities


def _blank(images: Sequence[_Image]) -> Iterator[Finding]:
    found = [image for image in images if image.fact.hashes is not None and image.fact.hashes.blank]
    if found:
        yield _of_images(
            "warning", f"{_count(len(found), 'image')} {_show(len(found))} nothing: one colour all over", found,
            "Remove them unless an empty image belongs to the task.",
        )  # fmt: skip


_ODD: tuple[tuple[Callable[[ImageHeader], bool], str, str], ...] = (
    (
        lambda header: header.orientation != 1,
        "turned or mirrored by EXIF, and read upright as viewers show them",
        "Nothing to do, unless boxes were drawn with a program that ignores EXIF: look at them.",
    ),
    (
        lambda header: header.deep,
        "with more than 8 bits per channel, of which the upper 8 are used",
        "If they look black, their values fill a small part of the range: stretch them before training.",
    ),
    (lambda header: header.mode == "CMYK", "in CMYK, meant for print", "They are converted to RGB; colours may shift."),
    (
        lambda header: header.mode in ("RGBA", "LA", "PA", "La", "RGBa"),
        "with transparency, which is put on white",
        "If that is the wrong ground, flatten them yourself.",
    ),
    (
        lambda header: header.width * header.height > _LARGE_MEGAPIXELS * 1e6,
        f"larger than {_LARGE_MEGAPIXELS:g} megapixels: most of a training's time may go into reading them",
        "Save them once at twice the size that the network sees; for small objects cut them into tiles instead.",
    ),
    (
        lambda header: min(header.width, header.height) < _SMALL_PX,
        f"narrower or lower than {_SMALL_PX} px: enlarged, they show little",
        "Take larger ones if there are any, or a small --images.size for all.",
    ),
    (
        lambda header: max(header.width, header.height) > _LONG * min(header.width, header.height),
        f"more than {_LONG:g} times as long as wide: a square crop of the middle leaves out most of them",
        "Crop them to what matters, or see that the plan letterboxes.",
    ),
)
"""What is odd about a header, in words, and what to do."""


def _odd(images: Sequence[_Image]) -> Iterator[Finding]:
    for is_odd, words, fix in _ODD:
        found = [image for image in images if image.fact.header is not None and is_odd(image.fact.header)]
        if found:
            yield _of_images("note", f"{_count(len(found), 'image')} {_are(len(found))} {words}", found, fix)
    grey = [image for image in images if image.fact.header and image.fact.header.mode in ("L", "1", "I;16", "I", "F")]
    if 0 < len(grey) < sum(image.fact.header is not None for image in images):
        yield _of_images(
            "note", f"{_count(len(grey), 'image')} {_are(len(grey))} grey among coloured ones", grey,
            "Fine if both occur in all classes alike; if one class alone is grey, the network learns that instead.",
        )  # fmt: skip


def _of_images(severity: str, what: str, images: Sequence[_Image], fix: str) -> Finding:
    splits = list(dict.fromkeys(image.split.name for image in images))
    return Finding(
        "warning" if severity == "warning" else "note",
        what,
        " and ".join(splits),
        len(images),
        fix,
        listed=listed([f"{image.words}{_size(image)}" for image in images]),
        examples=[Example([image.ref], f"{image.words}{_size(image)}") for image in images[: EXAMPLES // 2]],
    )


def _size(image: _Image) -> str:
    header = image.fact.header
    return f", {header.width}x{header.height} {header.mode}" if header else ""


def listed(lines: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    return [*lines[:LISTED], f"and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else list(lines)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _verb(count: int, words: str) -> str:
    """ "repeat another", "repeats another" where it is one."""
    return words if count > 1 else words.replace("repeat", "repeats", 1)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _show(count: int) -> str:
    return "shows" if count == 1 else "show"
