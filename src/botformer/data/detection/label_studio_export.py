"""Label Studio's exports, JSON and JSON_MIN: tasks, the image of each, and the one annotation of it that counts."""

import base64
import binascii
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.parse import parse_qs, unquote, urlsplit

from botformer.data.detection.image_paths import match_endings
from botformer.data.image_files import find_files, is_image
from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_OF_MIN = {"annotation_id", "annotator"}
"""What JSON_MIN says of every task, besides the data and the values of the controls."""
_NO_CONTROL = {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time"}
_IMAGE_KEYS = ("image", "img", "picture", "photo")
"""What the image of a task is called, if several fields of its data could be one."""
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
"""What Label Studio makes of the names of uploaded files."""


@dataclass(frozen=True)
class Task:
    """An annotated image."""

    id: Any
    image: str
    """As the export has it: a path or an address."""
    regions: list[dict[str, Any]]
    """The values that were drawn or chosen, each with "type", "value", "original_width", "original_height"."""


def is_label_studio(content: Any) -> TypeGuard[list[Any]]:
    """Whether a JSON file's content is an export of Label Studio."""
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        return False
    first = content[0]
    full = isinstance(first.get("data"), dict) and _annotations(first) is not None
    return full or first.keys() >= _OF_MIN


def read_tasks(content: Sequence[Any], where: str) -> list[Task]:
    """The tasks that somebody has annotated, in their order.

    Of several annotations of a task the ground truth counts, else the latest; cancelled ones do not, nor do
    predictions. The others, and tasks without any, are counted in the log.

    Raises InputError where no task has an image.
    """
    tasks, several = [], []
    left_out: Counter[str] = Counter()
    for data, annotations in _grouped(content):
        image = _image(data)
        if image is None:
            left_out["without an image"] += 1
            continue
        valid = [each for each in annotations if not each.get("was_cancelled") and not each.get("skipped")]
        if not valid:
            left_out["that were skipped" if annotations else "that nobody has annotated"] += 1
            continue
        chosen = max(valid, key=_rank)
        if len(valid) > 1:
            several.append(image)
        drawn = chosen.get("result")
        regions = [each for each in drawn if isinstance(each, dict)] if isinstance(drawn, list) else []
        tasks.append(Task(data.get("id"), image, regions))
    if left_out:
        counts = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())
        log.warning("%s: tasks left out: %s", where, counts)
    if several:
        log.warning(
            "%s: %d tasks have several annotations; the ground truth is taken, else the latest: %s",
            where, len(several), and_more(several, 3),
        )  # fmt: skip
    if not tasks:
        raise InputError(f"{where}: none of its {len(content)} tasks has an image and an annotation of it")
    return tasks


def image_files(images: Iterable[str], root: Path, where: str) -> dict[str, str]:
    """Images as an export names them -> paths below `root`, with slashes; without those that are not there.

    An uploaded image is found with the eight letters that Label Studio puts in front of its name, or without, where
    blanks have become underscores.

    Raises InputError as `image_paths.match_endings`.
    """
    names = list(dict.fromkeys(images))
    files = {file for file in find_files(root).files if is_image(file)}
    addresses = {name: _address(name) for name in names}
    found = {address: address for address in addresses.values() if address in files}
    others = list(dict.fromkeys(address for address in addresses.values() if address not in found))
    found |= match_endings(others, sorted(files - set(found)), root, where)
    result = {name: found[address] for name, address in addresses.items() if address in found}
    by_upload: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files - set(result.values())):
        by_upload[_as_uploaded(PurePosixPath(file).name)].append(file)
    for name in names:
        uploaded = _UPLOADED.fullmatch(PurePosixPath(addresses[name]).name)
        if name not in result and uploaded and len(by_upload.get(uploaded[1], ())) == 1:
            result[name] = by_upload.pop(uploaded[1])[0]
    return result


def _annotations(task: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    found = task.get("annotations", task.get("completions"))
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else None


def _grouped(content: Sequence[Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The data of each task, and its annotations. JSON_MIN has one record per annotation."""
    groups: dict[Any, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for place, task in enumerate(content):
        if not isinstance(task, dict):
            continue
        full = _annotations(task)
        if full is not None and isinstance(task.get("data"), dict):
            groups["full", place] = task["data"] | {"id": task.get("id")}, full
        elif task.keys() >= _OF_MIN:
            annotation = {name: task.get(name) for name in _NO_CONTROL} | {
                "result": [each for name, value in task.items() for each in _of_control(name, value)]
            }
            number = task.get("id")
            key = number if isinstance(number, int | str) else place
            groups.setdefault(("min", key), (task, []))[1].append(annotation)
    return list(groups.values())


def _of_control(name: str, value: Any) -> list[dict[str, Any]]:
    """What JSON_MIN has of a control, as the full export would have it."""
    if name in _NO_CONTROL:
        return []
    if isinstance(value, list):
        regions = [each for each in value if isinstance(each, dict)]
        return [{"value": each} | {side: each.get(side) for side in _SIZES} for each in regions]
    if isinstance(value, str):
        return [{"type": "choices", "from_name": name, "value": {"choices": [value]}}]
    chosen = value.get("choices") if isinstance(value, dict) else None
    return [{"type": "choices", "from_name": name, "value": {"choices": chosen}}] if isinstance(chosen, list) else []


_SIZES = ("original_width", "original_height")


def _rank(annotation: Mapping[str, Any]) -> tuple[bool, str, str]:
    """The ground truth first, then the latest; times are texts whose order is that of time."""
    times = [str(annotation.get(name) or "") for name in ("updated_at", "created_at")]
    return bool(annotation.get("ground_truth")), max(times), str(annotation.get("id") or "").zfill(20)


def _image(data: Mapping[str, Any]) -> str | None:
    likely = {
        name: value
        for name, value in data.items()
        if isinstance(value, str) and is_image(_address(value).split("?")[0])
    }
    named = [name for key in _IMAGE_KEYS for name in likely if name.lower() == key]
    return likely[named[0]] if named else next(iter(likely.values()), None)


def _address(image: str) -> str:
    """What an address means: of what Label Studio fetches from a store, the address there."""
    query = parse_qs(urlsplit(image).query) if "?" in image else {}
    if "fileuri" in query:
        try:
            return base64.b64decode(query["fileuri"][0], validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return image
    if image.startswith("/data/upload/"):  # folders of Label Studio's, which nobody else has
        return unquote(PurePosixPath(image).name)
    return query["d"][0] if "d" in query else image


def _as_uploaded(name: str) -> str:
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
