import io
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu.data_packs import PACKS, pack_path, unpack, write_pack, write_quick_packs
from botformer.data.classification.dataset import open_classification_datasets
from botformer.data.detection.layouts import open_detection_datasets
from botformer.errors import InputError

FEW = {"cifar10": 200, "nuclei": 12}  # images, and all annotations


def zipped(file: Path, contents: dict[str, bytes]) -> Path:
    with ZipFile(file, "w") as written:
        for name, content in contents.items():
            written.writestr(name, content)
    return file


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("name", PACKS)
def test_real_images_come_back_with_the_same_pixels(name: str, real_data: Path, tmp_path: Path) -> None:
    if not (real_data / PACKS[name].source).is_file():
        pytest.skip(f"{real_data / PACKS[name].source} is not there")
    with ZipFile(real_data / PACKS[name].source) as source:
        files = [entry for entry in source.namelist() if not entry.endswith("/")]
        chosen = {entry: source.read(entry) for entry in files[:: len(files) // FEW[name]] if entry[-4:] != "json"}
        chosen |= {entry: source.read(entry) for entry in files if entry.endswith(".json")}
    pack = write_pack(name, zipped(tmp_path / "some.zip", chosen), tmp_path)
    assert pack.stat().st_size < 0.9 * sum(map(len, chosen.values()))
    folder = unpack(pack, tmp_path / "unpacked")
    if name == "cifar10":
        for dataset, split in zip(open_classification_datasets(str(folder)), ("train", "test"), strict=True):
            there = {f"{split}/{dataset.name(index)}": index for index in range(len(dataset))}
            assert there.keys() == {entry for entry in chosen if entry.startswith(split)}
            for entry, index in there.items():
                with dataset.read(index)[0] as file:
                    assert file.read() == chosen[entry]
                assert dataset.class_names[dataset.labels[index]] == entry.split("/")[1]
        return
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == chosen.keys()
    for entry, content in chosen.items():
        if entry.endswith(".json"):
            assert (folder / entry).read_bytes() == content
        else:
            with Image.open(folder / entry) as image, Image.open(io.BytesIO(content)) as original:
                assert np.array_equal(image.convert("RGB"), original.convert("RGB"))


def test_a_changed_pixel_is_noticed_and_leaves_no_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    changed = pixels.copy()
    changed[3, 5] ^= 1
    source = zipped(tmp_path / "dsb2018.zip", {"train/a.png": png(pixels), "train/b.png": png(pixels)})
    write_pack("nuclei", source, tmp_path / "good")
    monkeypatch.setattr("benchmarks.gpu.data_packs.as_webp", lambda file: (file[0], png(changed)))
    with pytest.raises(InputError, match=r"train/a\.png .* changed in the pack"):
        write_pack("nuclei", source, tmp_path / "bad")
    assert list((tmp_path / "bad").iterdir()) == []


def test_the_same_data_give_the_same_bytes_in_both_layouts(tmp_path: Path) -> None:
    for out in ("one", "other"):
        write_quick_packs(tmp_path / out)
    for name in PACKS:
        assert pack_path(tmp_path / "one", name).read_bytes() == pack_path(tmp_path / "other", name).read_bytes()
    train, test = open_classification_datasets(
        str(unpack(pack_path(tmp_path / "one", "cifar10"), tmp_path / "data" / "cifar10"))
    )
    assert (len(train), len(test)) == (24, 12)
    train, validation = open_detection_datasets(
        str(unpack(pack_path(tmp_path / "one", "nuclei"), tmp_path / "data" / "nuclei"))
    )
    assert (len(train), len(validation)) == (8, 4)


def test_a_damaged_pack_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_quick_packs(tmp_path / "packs")
    pack = pack_path(tmp_path / "packs", "nuclei")
    pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])
    with pytest.raises(InputError, match=r"nuclei\.tar\.xz is damaged"):
        unpack(pack, tmp_path / "data" / "nuclei")
    assert list((tmp_path / "data").iterdir()) == []
    with pytest.raises(InputError, match=r"none\.tar\.xz is missing; make it with"):
        unpack(pack_path(tmp_path, "none"), tmp_path / "data" / "none")


def test_what_a_killed_unpacking_left_is_not_taken_for_the_data(tmp_path: Path) -> None:
    write_quick_packs(tmp_path)
    killed = tmp_path / "data" / ".cifar10.0123abcd.partial"
    killed.mkdir(parents=True)
    (killed / "train.tar").write_bytes(b"half")
    folder = unpack(pack_path(tmp_path, "cifar10"), tmp_path / "data" / "cifar10")
    assert sorted(path.name for path in folder.iterdir()) == ["test.tar", "train.tar"]
    assert list((tmp_path / "data").iterdir()) == [folder]
