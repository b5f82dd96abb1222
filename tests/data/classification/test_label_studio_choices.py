import json
import logging

import pytest
from PIL import Image

from botformer import cli
from botformer.data.classification.label_studio_choices import read_choices
from botformer.errors import InputError
from tests.data.detection.label_studio.exports import region, task


def choice(*names, control="choice"):
    return region("choices", {"choices": list(names)}, from_name=control)


def images(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)


def test_each_image_has_the_class_that_was_chosen(tmp_path, caplog):
    images(tmp_path, "photos/a 1.jpg", "b.jpg", "c.jpg")
    content = [
        task("/data/upload/1/0a1b2c3d-a_1.jpg", choice("cat"), number=1),
        task("b.jpg", choice("dog"), number=2),
        task("c.jpg", choice("cat", "dog"), number=3),
        task("gone.jpg", choice("cat"), number=4),
        task("none.jpg", number=5),
    ]
    with caplog.at_level(logging.WARNING, "botformer.data"):
        found = read_choices(content, tmp_path / "x.json", tmp_path)
    assert found == {"photos/a 1.jpg": "cat", "b.jpg": "dog"}
    assert "1 images have several classes" in caplog.text
    assert "1 images have no class" in caplog.text
    assert "gone.jpg" in caplog.text


def test_the_short_export(tmp_path):
    images(tmp_path, "a.jpg", "b.jpg")
    common = {"annotator": 1, "annotation_id": 1, "lead_time": 1.5}
    content = [
        {"image": "a.jpg", "id": 1, "sentiment": "cat"} | common,
        {"image": "b.jpg", "id": 2, "sentiment": {"choices": ["dog"]}} | common,
    ]
    assert read_choices(content, tmp_path / "x.json", tmp_path) == {"a.jpg": "cat", "b.jpg": "dog"}


def test_of_several_controls_the_one_called_class(tmp_path):
    images(tmp_path, "a.jpg")
    both = [choice("sharp", control="quality"), choice("cat", control="class")]
    assert read_choices([task("a.jpg", *both)], tmp_path / "x.json", tmp_path) == {"a.jpg": "cat"}
    neither = [choice("sharp", control="quality"), choice("cat", control="animal")]
    with pytest.raises(InputError, match="quality, animal are chosen"):
        read_choices([task("a.jpg", *neither)], tmp_path / "x.json", tmp_path)
    with pytest.raises(InputError, match="no class was chosen"):
        read_choices([task("a.jpg", region())], tmp_path / "x.json", tmp_path)


def test_the_command_writes_class_folders(tmp_path, capsys):
    images(tmp_path, "sub/1.jpg", "1.jpg")
    content = [task("sub/1.jpg", choice("große Katze"), number=1), task("1.jpg", choice("dog"), number=2)]
    (tmp_path / "export.json").write_text(json.dumps(content), encoding="utf-8")
    assert cli.main(["convert", str(tmp_path / "export.json"), "--to", "classes"]) == 0
    written = sorted(path.relative_to(tmp_path / "classes").as_posix() for path in tmp_path.glob("classes/*/*"))
    assert written == ["dog/1.jpg", "große Katze/sub_1.jpg"]
    assert "botformer train classify --data" in capsys.readouterr().out
    assert cli.main(["convert", str(tmp_path / "export.json"), "--to", "classes"]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "a\0b", "a\nb"])
def test_a_class_that_is_no_folder(tmp_path, name, capsys):
    images(tmp_path, "1.jpg")
    (tmp_path / "export.json").write_text(json.dumps([task("1.jpg", choice(name))]))
    assert cli.main(["convert", str(tmp_path / "export.json"), "--to", "classes"]) == 2
    assert "cannot be the name of a folder" in capsys.readouterr().err
    assert not (tmp_path / "classes").exists()


@pytest.mark.parametrize("change", [{"result": 7}, {"result": {"a": 1}}, {"result": [7, None]}])
def test_results_of_another_type_are_no_choice(tmp_path, change):
    images(tmp_path, "1.jpg")
    content = [task("1.jpg", choice("cat"))]
    content[0]["annotations"][0] |= change
    with pytest.raises(InputError, match="no class was chosen"):
        read_choices(content, tmp_path / "export.json", tmp_path)


@pytest.mark.parametrize("number", [[1], {"a": 1}, None])
def test_a_task_of_the_short_form_with_an_odd_id_counts(tmp_path, number):
    images(tmp_path, "1.jpg")
    content = [{"id": number, "image": "1.jpg", "choice": "cat", "annotation_id": 1, "annotator": 1}]
    assert read_choices(content, tmp_path / "export.json", tmp_path) == {"1.jpg": "cat"}
