"""Many images: a line per image as it goes, on from where it stopped, whatever is bad among them."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import botformer
from botformer import cli
from botformer.errors import InputError
from botformer.predict.bulk import predict_files
from botformer.predict.files import list_images
from botformer.predict.prediction_log import UNFINISHED, free_folder, without_numbered
from botformer.predict.prediction_records import BulkOptions

NO_DRAWINGS = BulkOptions(draw=0)


@pytest.fixture(scope="module")
def predictor(classifier):
    return botformer.predictor(classifier, batch_size=3)


def png(number: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Twelve images, one of them broken, and a tar of three more in the middle."""
    folder = tmp_path / "data"
    folder.mkdir()
    paths = []
    for number in range(12):
        paths.append(folder / f"ö {number:02}.png")
        paths[-1].write_bytes(png(number)[: 50 if number == 4 else None])
    shard = write_tar(folder / "shard-0001.tar", {f"{n:06}.{e}": png(90 + n) if e == "png" else b"7"
                                                  for n in range(3) for e in ("png", "cls")})  # fmt: skip
    return [*paths[:6], shard, *paths[6:]]


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def content(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


class Stop(Exception):  # noqa: N818
    pass


def stopped_after(count: int):
    calls = []

    def progress(fraction):
        calls.append(fraction)
        if len(calls) >= count:
            raise Stop

    return progress


def test_a_line_per_image_and_what_is_made_of_them(predictor, files, tmp_path):
    seen = []
    summary = predict_files(predictor, files, tmp_path / "out", BulkOptions(draw=2), seen.append)
    assert (summary.images, summary.unreadable, summary.drawn, summary.earlier) == (15, 1, 2, 0)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    records = lines(tmp_path / "out")
    shard = files[6].as_posix()
    names = [file.as_posix() for file in files]
    assert [each["file_name"] for each in records] == [
        *names[:6], f"{shard}/000000.png", f"{shard}/000001.png", f"{shard}/000002.png", *names[7:],
    ]  # fmt: skip
    assert [each["id"] for each in records] == list(range(1, 16))
    assert [("error" in each) for each in records] == [number == 4 for number in range(15)]
    assert dict(records[6]["top5"]) == pytest.approx(dict(predictor(png(90)).top5), abs=2e-6)
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert predictions == [{key: each[key] for key in ("file_name", "top5")} for each in records if "top5" in each]
    images = json.loads((tmp_path / "out" / "images.json").read_text(encoding="utf-8"))
    assert [each["id"] for each in images["images"]] == [number for number in range(1, 16) if number != 5]
    assert [each["drawing"] is not None for each in images["images"]] == [True, True] + [False] * 12
    assert images["unreadable"] == [{"file_name": names[4], "reason": records[4]["error"]}]
    assert [each["name"] for each in images["categories"]] == predictor.names
    assert not (tmp_path / "out" / UNFINISHED).exists()


@pytest.mark.parametrize("half", [b"", b'{"id": 99, "file_na', b'{"id": 99}', b"\0\0\0\n", b"[1]\n"])
def test_a_stopped_run_goes_on_and_ends_like_one_that_was_not(predictor, files, tmp_path, half):
    options = BulkOptions(draw=3)
    predict_files(predictor, files, tmp_path / "whole", options)
    out = tmp_path / "out"
    for count in (1, 3, 5):  # several times
        with pytest.raises(Stop):
            predict_files(predictor, files, out, options, stopped_after(count))
        with (out / "predictions.jsonl").open("ab") as file:
            file.write(half)
        assert not (out / "predictions.json").exists()
    done = (out / "predictions.jsonl").read_bytes().count(b'"file_name"')
    summary = predict_files(predictor, files, out, options)
    assert 5 < summary.earlier == done < summary.images == 15
    # Batches are others after a stop; probabilities are rounded to six digits.
    ours, whole = content(out), content(tmp_path / "whole")
    assert ours.keys() == whole.keys()
    assert ours["images.json"] == whole["images.json"]
    for one, other in zip(lines(out), lines(tmp_path / "whole"), strict=True):
        assert {**one, "top5": 0} == {**other, "top5": 0}
        for (name, p), (other_name, q) in zip(one.get("top5", ()), other.get("top5", ()), strict=True):
            assert name == other_name
            assert p == pytest.approx(q, abs=2e-6)


def test_a_stopped_run_of_something_else_is_not_lost(predictor, files, detector, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        predict_files(predictor, files, out, NO_DRAWINGS, stopped_after(4))
    before = content(out)
    with pytest.raises(InputError, match="began with another draw 0, now 5"):
        predict_files(predictor, files, out, BulkOptions(draw=5))
    with pytest.raises(InputError, match="began with another network"):
        predict_files(botformer.predictor(detector), files, out, NO_DRAWINGS)
    with pytest.raises(InputError, match=r"its image 2 is .*ö 01.png, now it is .*ö 11.png"):
        predict_files(predictor, [files[0], *files[:0:-1]], out, NO_DRAWINGS)
    with pytest.raises(InputError, match="now it is none"):
        predict_files(predictor, files[:2], out, NO_DRAWINGS)
    assert content(out) == before
    (out / UNFINISHED).unlink()
    assert predict_files(predictor, files[:2], out, BulkOptions(draw=5)).images == 2


def test_finished_predictions_of_other_images_are_not_lost(predictor, files, tmp_path):
    """Those of the same images, and of more, are made anew: also a tar's, whose members have names of their own."""
    out = tmp_path / "out"
    predict_files(predictor, [*files[:2], files[6]], out, NO_DRAWINGS)
    before = content(out)
    with pytest.raises(InputError, match="has finished predictions of other images, such as .*ö 01.png, which would"):
        predict_files(predictor, [files[0], files[6]], out, NO_DRAWINGS)
    with pytest.raises(InputError, match=r"such as .*/000000.png, which would"):
        predict_files(predictor, files[:2], out, NO_DRAWINGS)
    assert content(out) == before
    assert free_folder(out, files[:1]) == tmp_path / "out-2"
    (tmp_path / "out-2").mkdir()
    assert free_folder(out, files[:1]) == tmp_path / "out-2"
    predict_files(predictor, files[3:4], tmp_path / "out-2", NO_DRAWINGS)
    assert free_folder(out, files[:1]) == tmp_path / "out-3"
    assert free_folder(out, files) == out
    drawing = tmp_path / "out-2" / "a.prediction.png"
    assert without_numbered([*files[:2], drawing, tmp_path / "out-3" / "b.png"], out) == [
        *files[:2], tmp_path / "out-3" / "b.png",
    ]  # fmt: skip
    assert predict_files(predictor, files, out, BulkOptions(draw=1)).images == 15
    (out / "predictions.jsonl").unlink()
    assert predict_files(predictor, files[:1], out, NO_DRAWINGS).images == 1


def test_what_had_not_begun_is_begun_with_other_options(predictor, files, tmp_path):
    with pytest.raises(Stop):
        predict_files(predictor, files, tmp_path / "out", NO_DRAWINGS, stopped_after(1))
    (tmp_path / "out" / "predictions.jsonl").write_bytes(b"")
    assert predict_files(predictor, files[:2], tmp_path / "out", BulkOptions(draw=1)).drawn == 1


def test_two_at_once_do_not_write_into_one_folder(predictor, files, tmp_path):
    pytest.importorskip("fcntl")
    refused = []

    def progress(fraction):
        with pytest.raises(InputError, match="another process is predicting into"):
            predict_files(predictor, files, tmp_path / "out", NO_DRAWINGS)
        refused.append(fraction)

    assert predict_files(predictor, files[:3], tmp_path / "out", NO_DRAWINGS, progress).images == 3
    assert refused
    assert len(lines(tmp_path / "out")) == 3


def test_a_finished_run_is_made_anew(predictor, files, tmp_path):
    for count, named in ((5, 5), (15, 13), (15, 13)):
        summary = predict_files(predictor, files[:named], tmp_path / "out", NO_DRAWINGS)
        assert (summary.images, summary.earlier) == (count, 0)
        assert len(lines(tmp_path / "out")) == count


def test_a_killed_process_loses_nothing_that_was_said(classifier, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number:03}.png").write_bytes(png(number, (300, 200)))
    out = tmp_path / "out"
    command = ["predict", str(folder), "--checkpoint", str(classifier), "--out", str(out), "--batch-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "botformer.cli", *command, "--draw", "0"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log, deadline = out / "predictions.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = log.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 3 <= before.count(b"\n") < 400
    assert cli.main([*command, "--draw", "0"]) == 0
    assert log.read_bytes().startswith(before)
    assert [each["file_name"] for each in lines(out)] == [f"{folder.as_posix()}/{n:03}.png" for n in range(400)]


def test_what_is_drawn_is_said(classifier, files, tmp_path, capsys):
    assert cli.main(["predict", str(files[0].parent), "--checkpoint", str(classifier), "--draw", "3",
                     "--out", str(tmp_path / "out")]) == 2  # fmt: skip
    captured = capsys.readouterr()
    printed = " ".join(captured.out.split())
    assert "3 of 12 images are drawn; --draw all draws every one" in printed
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    assert "1 of 12 images could not be read" in captured.err
    assert "ö 04.png: " in captured.err
    assert cli.main(["predict", str(files[0]), "--checkpoint", str(classifier), "--draw", "-1"]) == 2
    assert "--draw takes a number of images, or all" in capsys.readouterr().err


def test_detections_are_written_as_coco_s_results(detector, images, tmp_path):
    predictor = botformer.predictor(detector)
    predict_files(predictor, images[5:7], tmp_path / "out", NO_DRAWINGS)
    expected = [record for number, file in enumerate(images[5:7], 1) for record in predictor(file).to_coco(number)]
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(said) == len(expected) > 10
    for one, other in zip(said, expected, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize("damage", ["cut in data", "cut in a header", "a broken header", "no tar", "empty", "gz cut"])
def test_a_damaged_tar_is_a_line_after_what_could_be_read(predictor, tmp_path, damage):
    path = tmp_path / ("shard.tar.gz" if damage == "gz cut" else "shard.tar")
    write_tar(path, {f"{number}.png": png(number) for number in range(4)}, "w:gz" if damage == "gz cut" else "w")
    data = path.read_bytes()
    member = 512 + -(-len(png(0)) // 512) * 512
    data = {
        "cut in data": data[: 2 * member + 1000],
        "cut in a header": data[: 2 * member + 200],
        "a broken header": data[: 2 * member] + b"?" * 512 + data[2 * member + 512 :],
        "no tar": b"no tar" * 1000,
        "empty": b"",
        "gz cut": data[: len(data) // 2],
    }[damage]
    path.write_bytes(data)
    other = tmp_path / "other.png"
    other.write_bytes(png(5))
    summary = predict_files(predictor, [path, other], tmp_path / "out", NO_DRAWINGS)
    records = lines(tmp_path / "out")
    assert summary.unreadable == 1
    assert records[-1]["file_name"] == other.as_posix()
    assert records[-2]["file_name"] == path.as_posix()
    assert "the tar is damaged after" in records[-2]["error"]
    expected = {"no tar": 0, "empty": 0, "gz cut": 1}.get(damage, 2)
    assert len(records) - 2 == expected if damage != "gz cut" else len(records) - 2 < 4


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_in_a_tar_are_the_files_that_they_name(predictor, tmp_path, mode):
    path = tmp_path / ("a.tar" if mode == "w" else "a.tar.gz")
    with tarfile.open(path, mode) as tar:
        for name, data in {"d/1.png": png(1), "d/2.png": png(2), "note": b"?"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind, target in (
            ("hard.png", tarfile.LNKTYPE, "d/2.png"),
            ("e/soft.png", tarfile.SYMTYPE, "../d/1.png"),
            ("e/of hard.png", tarfile.SYMTYPE, "../hard.png"),
            ("gone.png", tarfile.SYMTYPE, "../elsewhere.png"),
            ("round.png", tarfile.SYMTYPE, "round.png"),
            ("note.txt", tarfile.SYMTYPE, "note"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    predict_files(predictor, [path], tmp_path / "out", NO_DRAWINGS)
    found = {record["file_name"].removeprefix(f"{path.as_posix()}/"): record for record in lines(tmp_path / "out")}
    assert list(found)[:2] == ["d/1.png", "d/2.png"]
    assert found["hard.png"]["top5"] == found["e/of hard.png"]["top5"] == found["d/2.png"]["top5"]
    assert found["e/soft.png"]["top5"] == found["d/1.png"]["top5"] != found["d/2.png"]["top5"]
    assert found["gone.png"]["error"] == "is a link to ../elsewhere.png, which the tar does not hold"
    assert "is a link to" in found["round.png"]["error"]
    assert len(found) == 7


def test_tars_of_a_folder_and_of_a_pattern_and_tars_without_images(predictor, tmp_path):
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", {f"a/{number}.JPG": png(number), "._b.png": b"?", "c.json": b"{}"})
    write_tar(tmp_path / "2.tgz", {"notes.txt": b"?"}, "w:gz")
    tars = [tmp_path / name for name in ("0.tar", "1.tar")]
    assert list_images([tmp_path], tmp_path / "out") == tars
    assert list_images([tmp_path / "*.t*"], tmp_path / "out") == [*tars, tmp_path / "2.tgz"]
    summary = predict_files(predictor, [*tars, tmp_path / "2.tgz"], tmp_path / "out", BulkOptions())
    assert (summary.images, summary.unreadable) == (3, 1)
    assert summary.first_unreadable[0]["error"] == "the tar holds no images"
    assert [each["drawing"] for each in summary.first] == ["0.prediction.png", "1.prediction.png"]


def test_a_list_names_images_folders_and_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists" / "deep").mkdir(parents=True)
    for name in ("here.png", "lists/beside.png", "lists/deep/1.png"):
        (tmp_path / name).write_bytes(png(1))
    listing = tmp_path / "lists" / "all.txt"
    listing.write_text("\ufeffhere.png\r\nbeside.png\n\nlists/deep\ngone.png\n", encoding="utf-8")
    expected = ["here.png", "lists/beside.png", "lists/deep/1.png", "gone.png"]
    assert [file.as_posix() for file in list_images([Path("lists/all.txt")], Path("out"))] == expected
    assert [file.as_posix() for file in list_images([Path("-")], Path("out"), listing.read_bytes)] == [
        "here.png", "beside.png", "lists/deep/1.png", "gone.png",
    ]  # fmt: skip
    listing.write_text("gone.png\n")
    with pytest.raises(InputError, match=r"gone.png does not exist"):
        list_images([listing], Path("out"))
    listing.write_bytes(png(1))
    with pytest.raises(InputError, match=r"all.txt is neither an image that can be read"):
        list_images([listing], Path("out"))


@pytest.mark.parametrize(
    "change",
    [{"top5": [["cat"]]}, {"top5": []}, {"top5": 7}, {"top5": None}, {"file_name": 7}, {"width": "9"}, {"drawing": 1}],
)
def test_a_damaged_line_and_those_after_it_are_predicted_again(predictor, files, tmp_path, change):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        predict_files(predictor, files, out, NO_DRAWINGS, stopped_after(4))
    whole = lines(out)
    assert len(whole) > 2
    damaged = [whole[0], whole[1] | change, *whole[2:]]
    (out / "predictions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in damaged), encoding="utf-8")
    assert predict_files(predictor, files, out, NO_DRAWINGS).earlier == 1
    assert [each["file_name"] for each in lines(out)][: len(whole)] == [each["file_name"] for each in whole]


def test_a_line_with_a_category_of_another_network_is_named(detector, images, tmp_path):
    network, out = botformer.predictor(detector), tmp_path / "out"
    with pytest.raises(Stop):
        predict_files(network, images, out, NO_DRAWINGS, stopped_after(1))
    first, *_ = lines(out)
    first["detections"][0]["category_id"] = 123
    (out / "predictions.jsonl").write_text(json.dumps(first) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="objects of category 123, which the network does not know"):
        predict_files(network, images, out, NO_DRAWINGS)


@pytest.mark.timeout(60)  # reading a pipe waits for ever
@pytest.mark.parametrize("name", ["predictions.jsonl", "shard.tar"])
def test_a_pipe_is_not_waited_for(predictor, files, tmp_path, name):
    (tmp_path / "out").mkdir()
    os.mkfifo(pipe := tmp_path / "out" / name)
    if name == "shard.tar":
        assert predict_files(predictor, [pipe, files[0]], tmp_path / "out", NO_DRAWINGS).unreadable == 1
    else:
        with pytest.raises(OSError, match="is a pipe"):
            predict_files(predictor, files, tmp_path / "out", NO_DRAWINGS)


@pytest.mark.parametrize("content", ["[]", "7", "null", "[" * 10**5])
def test_what_an_unreadable_note_says_is_another_run(predictor, files, tmp_path, content):
    with pytest.raises(Stop):
        predict_files(predictor, files, tmp_path, NO_DRAWINGS, stopped_after(1))
    (tmp_path / UNFINISHED).write_text(content)
    with pytest.raises(InputError, match="began with another"):
        predict_files(predictor, files, tmp_path, NO_DRAWINGS)


@pytest.mark.parametrize("name", ["predictions.jsonl", "predictions.json", "images.json"])
def test_what_a_person_or_an_evaluation_wrote_is_not_replaced(name, predictor, files, tmp_path):
    out = tmp_path / "own"
    out.mkdir()
    (out / name).write_text('{"mine": 1}\n')
    with pytest.raises(
        InputError, match=rf"own/{name} was not written by predict, which would replace it; name another"
    ):
        predict_files(predictor, files[:2], out, NO_DRAWINGS)
    assert (out / name).read_text() == '{"mine": 1}\n'
    assert free_folder(out, files[:2]) == tmp_path / "own-2"
