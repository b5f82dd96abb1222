"""Damage as disks, downloads, other programs and attackers do it, chosen by a seeded generator."""

import copy
import json
import os
import random
import string
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Random = random.Random

HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**63), -1, 0, 65536, 10**9)
"""Numbers at which something overflows, or which nobody should take for a size."""
ODD_TEXTS = (
    "", " ", "\n", "a\nb", "\0", "\x1b[31m", "../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "C:\\a\\b",
    "..", ".", "/", "~", "~nobody/x", "\udcff", "\ud800", "a" * 300, "x/" * 200 + "x", "nan", "NaN", "inf", "1e400",
    "-0", "0x10", "1_000", "\u0661", "\u202e", "e\u0301", "\U0001f600", "%s%n", "${HOME}", "{0}", "[red]", "[/]",
    "__import__('os')", "!!python/object/apply:os.system ['true']", "hf://a/b", "hfds/a/b", "file:///etc/passwd",
    "http://127.0.0.1:9/x", "null", "true", "-", "--", "-1", "@", "*", "**", "[", "a=b", "\ufeff", "\ufffe",
)  # fmt: skip
JUNK = (
    None, True, False, 0, -1, 1.5, -0.0, float("nan"), float("inf"), 1e308, "", "x", [], [[]], {}, {"": None}, [None],
)  # fmt: skip


def mutated_bytes(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """One to four faults. `other`: a piece of it may be spliced in."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_BYTE_FAULTS)(rng, content, other or data)
    return bytes(content[: 4 * len(data) + 4096])


def _flip(rng: Random, content: bytearray, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 3, 20))):
        if content:
            # Headers stand at the beginning, and decide most.
            end = len(content) if rng.random() < 0.5 else min(len(content), 64)
            content[rng.randrange(end)] ^= 1 << rng.randrange(8)


def _cut(rng: Random, content: bytearray, other: bytes) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _remove(rng: Random, content: bytearray, other: bytes) -> None:
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.choice((1, 2, 4, 16, 256))]


def _repeat(rng: Random, content: bytearray, other: bytes) -> None:
    start = rng.randrange(len(content) + 1)
    content[start:start] = content[start : start + rng.choice((1, 8, 64, 4096))] * rng.choice((1, 2, 10))


def _splice(rng: Random, content: bytearray, other: bytes) -> None:
    start, end = sorted(rng.randrange(len(other) + 1) for _ in range(2))
    at = rng.randrange(len(content) + 1)
    content[at : at + rng.choice((0, end - start))] = other[start:end]


def _number(rng: Random, content: bytearray, other: bytes) -> None:
    """A number of 1, 2, 4 or 8 bytes where one may stand."""
    form = rng.choice("BHIQ")
    number = rng.choice(HUGE) & (2 ** (8 * struct.calcsize(form)) - 1)
    at = rng.randrange(min(len(content), rng.choice((32, 128, 10**9))) + 1)
    content[at : at + struct.calcsize(form)] = struct.pack(rng.choice("<>") + form, number)


def _noise(rng: Random, content: bytearray, other: bytes) -> None:
    at = rng.randrange(len(content) + 1)
    content[at : at + rng.choice((1, 16, 200))] = rng.randbytes(rng.choice((1, 16, 200)))


_BYTE_FAULTS: tuple[Callable[[Random, bytearray, bytes], None], ...] = (
    _flip, _flip, _cut, _remove, _repeat, _splice, _number, _number, _noise,
)  # fmt: skip


# JSON


def mutated_json(rng: Random, value: Any, times: int = 0) -> Any:
    """The same content with one to three nodes of it exchanged, removed, repeated or renamed."""
    value = copy.deepcopy(value)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        value = _with_one_fault(rng, value)
    return value


def json_text(rng: Random, value: Any) -> bytes:
    """As programs write it, and in spellings that a reader has to refuse or to read."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7, indent=rng.choice((None, None, 2)))
    fault = rng.random()
    if fault < 0.04:
        text = text.replace("1", "1e400", 1)
    elif fault < 0.08:
        text = text.replace("0", "9" * 5000, 1)
    elif fault < 0.12:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    elif fault < 0.16:
        depth = rng.choice((900, 5000, 200_000))
        text = text.replace("1", "[" * depth + "]" * depth, 1) if rng.random() < 0.5 else "[" * depth
    elif fault < 0.2:
        text = text[: rng.randrange(len(text) + 1)]
    encoding = rng.choice(("utf-8",) * 12 + ("utf-16", "utf-8-sig", "latin-1", "utf-32"))
    return text.encode(encoding, errors=rng.choice(("surrogatepass", "replace")) if "utf" in encoding else "replace")


def _with_one_fault(rng: Random, root: Any) -> Any:
    places = list(_places(root))
    if not places or rng.random() < 0.03:
        return copy.deepcopy(rng.choice(JUNK))
    holder, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        holder[key] = other_value(rng, holder[key])
    elif kind < 0.75:
        del holder[key]
    elif kind < 0.85 and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(holder[key])] * rng.choice((1, 2, 50))
    elif kind < 0.95 and isinstance(holder, dict):
        holder[rng.choice((*ODD_TEXTS, f"{key}x", key.upper()))] = holder.pop(key)
    else:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other[place])
    return root


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        at = todo.pop()
        keys = at.keys() if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            found.append((at, key))
            todo.append(at[key])
    return found


def other_value(rng: Random, value: Any) -> Any:
    """Of the same type and unusual, or of another one."""
    kind = rng.random()
    if kind < 0.35:
        return copy.deepcopy(rng.choice(JUNK))
    if kind < 0.6 and isinstance(value, (int, float)):
        floats = () if abs(value) > sys.float_info.max else (value * 1e300, float(value))
        return rng.choice((*HUGE, -value, value + 1, str(value), *floats))
    if kind < 0.6 and isinstance(value, str):
        return rng.choice(
            (value[:-1], value + "\n", value * 100, value.swapcase(), value.encode("utf-8", "surrogatepass").hex())
        )
    if kind < 0.8:
        return rng.choice(ODD_TEXTS)
    if kind < 0.9:
        return rng.choice(HUGE)
    return rng.choice(([value], [value] * 3, {"a": value}, [[[[value]]]]))


# Text


def mutated_text(rng: Random, text: str) -> bytes:
    """Words and lines exchanged for odd ones, and other encodings."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        words = text.split(" ") if rng.random() < 0.5 else text.split("\n")
        between = " " if len(words) == text.count(" ") + 1 else "\n"
        at = rng.randrange(len(words))
        fault = rng.random()
        if fault < 0.4:
            words[at] = rng.choice((*ODD_TEXTS, *map(str, HUGE)))
        elif fault < 0.55:
            del words[at]
        elif fault < 0.7:
            words[at:at] = [words[at]] * rng.choice((1, 3, 100))
        elif fault < 0.85:
            place = rng.randrange(len(words[at]) + 1)
            words[at] = words[at][:place] + rng.choice((*ODD_TEXTS, *string.punctuation)) + words[at][place + 1 :]
        else:
            rng.shuffle(words)
        text = between.join(words)
    encoding = rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig", "latin-1"))
    return text.encode(encoding, errors="surrogateescape" if encoding == "utf-8" and _escapes(text) else "replace")


def _escapes(text: str) -> bool:
    return not any("\ud800" <= each < "\udc80" or "\udcff" < each <= "\udfff" for each in text)


# Files


def mutated_file(rng: Random, name: str, data: bytes, other: bytes = b"") -> bytes:
    """As the ending says what it holds, or as bytes."""
    ending = os.path.splitext(name)[1].lower()
    if rng.random() < 0.3:
        return mutated_bytes(rng, data, other)
    try:
        if ending == ".json":
            return json_text(rng, mutated_json(rng, json.loads(data)))
        if ending == ".jsonl":
            lines = data.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json_text(rng, mutated_json(rng, json.loads(lines[at])))
            return b"\n".join(lines) + b"\n"
        if ending == ".safetensors":
            return mutated_safetensors(rng, data)
        if ending in (".txt", ".yaml", ".xml", ".cls", ".data", ".names", ""):
            return mutated_text(rng, data.decode("utf-8"))
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError, struct.error):  # damaged already
        pass
    return mutated_bytes(rng, data, other)


def mutated_safetensors(rng: Random, data: bytes) -> bytes:
    """Another header: names, types, shapes and offsets of tensors, and the model config in it."""
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.get("__metadata__", {})
    if "botformer" in metadata and rng.random() < 0.7:
        config = mutated_json(rng, json.loads(metadata["botformer"]))
        metadata["botformer"] = json_text(rng, config).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = json_text(rng, mutated_json(rng, header))
    size = len(text) if rng.random() < 0.9 else rng.choice(HUGE) % 2**64
    return struct.pack("<Q", size) + text + tensors


def damage_folder(rng: Random, folder: Path, faults: int = 0) -> None:
    """Damage one to three of the files below `folder`."""
    for _ in range(faults or rng.choice((1, 1, 2, 3))):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        if not files:
            return
        # Of many images and few annotation files, the latter as often.
        endings = sorted({path.suffix for path in files})
        ending = rng.choice(endings)
        file = rng.choice([path for path in files if path.suffix == ending])
        if rng.random() < 0.75:
            file.write_bytes(mutated_file(rng, file.name, file.read_bytes(), rng.choice(files).read_bytes()))
        else:
            rng.choice(_FILE_FAULTS)(rng, file)


def _gone(rng: Random, file: Path) -> None:
    file.unlink()


def _empty(rng: Random, file: Path) -> None:
    file.write_bytes(b"")


def _folder_in_its_place(rng: Random, file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(rng: Random, file: Path) -> None:
    if rng.random() < 0.5:
        file.unlink()
    else:
        file = file.with_name(f"pipe{file.suffix}")
    if not file.exists():
        os.mkfifo(file)


def _link(rng: Random, file: Path) -> None:
    """To itself, to nowhere, to a parent, or to a device without an end."""
    at = file.with_name(f"link{rng.randrange(3)}{file.suffix}")
    if rng.random() < 0.5:
        file.unlink()
        at = file
    if not at.is_symlink() and not at.exists():
        at.symlink_to(rng.choice((at.name, "nowhere", "..", ".", "/dev/zero", "/dev/full")))


def _renamed(rng: Random, file: Path) -> None:
    name = rng.choice(
        ("a\nb", "\x1b[31m", os.fsdecode(b"\xff\xfe"), "e\u0301", " ", "-rf", "[red]", "x" * 200, "%s", "$(id)")
    )
    file.rename(file.with_name(name + file.suffix))


def _other_ending(rng: Random, file: Path) -> None:
    file.rename(file.with_suffix(rng.choice((".json", ".txt", ".png", ".tar", ".xml", ".yaml", ".safetensors"))))


_FILE_FAULTS: Sequence[Callable[[Random, Path], None]] = (
    _gone, _empty, _folder_in_its_place, _pipe, _link, _renamed, _other_ending,
)  # fmt: skip
