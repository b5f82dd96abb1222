import logging
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from botformer.data.detection.dataset import Category, DetectionDataset
from botformer.data.detection.layouts import is_annotated, open_detection_dataset, open_detection_datasets
from botformer.data.detection.voc_reader import find_voc, open_voc
from botformer.errors import InputError
from tests.data.detection.layout_examples import SIZE, voc

pytest.importorskip("supervision")


def write(root: Path, files: dict[str, str | None], images: str = "JPEGImages") -> Path:
    """Stem -> XML (None: an image without it)."""
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, text in files.items():
        for file in (root / images / f"{stem}.jpg", root / "Annotations" / f"{stem}.xml"):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(root / images / f"{stem}.jpg")
        if text is not None:
            (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
    return root


def read(root: Path, **options: int) -> DetectionDataset:
    folders = find_voc(root)
    assert folders is not None
    return open_voc(folders, **options)


def test_pixels_are_counted_from_1_and_both_ends_belong_to_the_box(tmp_path: Path) -> None:
    """The box of one pixel, 3 3 3 3, is the third column; 1 to 64 are all columns of 64."""
    source = read(write(tmp_path, {"a": voc("a.jpg", (3, 3, 3, 3)), "b": voc("b.jpg", (1, 1, 64, 48))}))
    assert source.image(0).annotations[0].box_xyxy == (2, 2, 3, 3)
    assert source.image(1).annotations[0].box_xyxy == (0, 0, 64, 48)
    assert source.image(1).annotations[0].area_px == 64 * 48


def test_corners_in_any_order_and_decimals(tmp_path: Path) -> None:
    source = read(write(tmp_path, {"a": voc("a.jpg", (40, 36, 25, 13)).replace("25", "25.5")}))
    assert source.image(0).annotations[0].box_xyxy == (24.5, 12, 40, 36)


def test_difficult_objects_are_crowds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    texts = {
        "a": voc("a.jpg", more="<difficult>1</difficult>"),
        "b": voc("b.jpg", more="<difficult>0</difficult><truncated>1</truncated>"),
    }
    source = read(write(tmp_path, texts))
    assert [source.image(index).annotations[0].crowd for index in (0, 1)] == [True, False]
    assert source.objects == 1
    assert "1 objects marked difficult count as crowds" in caplog.text


def test_polygons_and_parts(tmp_path: Path) -> None:
    polygon = "<polygon><x1>25</x1><y1>13</y1><x2>41</x2><y2>13</y2><x3>41</x3><y3>37</y3></polygon>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    source = read(write(tmp_path, {"a": voc("a.jpg", more=polygon + part)}))
    (found,) = source.image(0).annotations
    assert found.box_xyxy == (24, 12, 40, 36)
    assert found.segmentation == [[24, 12, 40, 12, 40, 36]]
    assert found.area_px == pytest.approx(16 * 24 / 2)


def test_categories_are_those_of_all_splits(tmp_path: Path) -> None:
    texts = {"a": voc("a.jpg"), "b": voc("b.jpg").replace("cat", "bird"), "c": voc("c.jpg").replace("cat", "dög")}
    write(tmp_path, texts)
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a 1\r\nb.jpg\r\ngone\r\n")
    (lists / "val.txt").write_text("c\n/\n.\n..\n\\\nC:\\\n")
    (lists / "cat_train.txt").write_text("a 1\nb -1\n")
    (lists / "trainval.txt").write_text("a\nb\nc\n")
    train, validation = open_detection_datasets(str(tmp_path))
    assert train.categories == validation.categories == (Category(1, "bird"), Category(2, "cat"), Category(3, "dög"))
    assert ([train.name(index) for index in range(2)], validation.name(0)) == (["a.jpg", "b.jpg"], "c.jpg")
    assert len(open_detection_dataset(str(tmp_path), "trainval")) == 3


def test_what_has_no_partner_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"a": voc("a.jpg"), "sub/b": voc("b.jpg"), "c": None})
    (tmp_path / "Annotations/lost.xml").write_text(voc("lost.jpg"))
    source = read(tmp_path)
    assert [source.name(index) for index in range(3)] == ["a.jpg", "c.jpg", "sub/b.jpg"]
    assert [len(source.image(index).annotations) for index in range(3)] == [1, 0, 1]
    assert "1 images have no XML file and count as images without objects, such as c.jpg" in caplog.text
    assert "1 XML files have no image and are left out, such as lost.xml" in caplog.text


def test_a_box_from_0_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"a": voc("a.jpg", (0, 0, 10, 10))})
    assert read(tmp_path).image(0).annotations[0].box_xyxy == (0, 0, 10, 10)
    assert "1 boxes begin at 0, where VOC counts from 1" in caplog.text


POLYGON = "<polygon><x1>3</x1><y1>3</y1><x2>12</x2><y2>3</y2><x3>12</x3><y3>20</y3></polygon>"


@pytest.mark.parametrize("factor", [2, 0.5, 0.3])
def test_objects_of_a_resized_image_are_scaled_with_it(tmp_path: Path, caplog, factor: float) -> None:
    """Of an image that was annotated at 64x48."""
    write(tmp_path, {"a": voc("a.jpg", (3, 3, 12, 20), more=POLYGON)})
    size = round(SIZE[0] * factor), round(SIZE[1] * factor)
    Image.new("RGB", size).save(tmp_path / "JPEGImages/a.jpg")
    source = read(tmp_path)
    fx, fy = size[0] / SIZE[0], size[1] / SIZE[1]
    (found,) = source.image(0).annotations
    assert found.box_xyxy == pytest.approx((2 * fx, 2 * fy, 12 * fx, 20 * fy))
    assert found.segmentation == [pytest.approx([2 * fx, 2 * fy, 11 * fx, 2 * fy, 11 * fx, 19 * fy])]
    assert (source.image(0).width, source.image(0).height) == size
    assert "1 images were resized after they were annotated: their objects are scaled with them, such as" in caplog.text


@pytest.mark.parametrize("said", [(32, 24), (30, 30), (1, 1)])
def test_sizes_that_their_objects_disprove_are_not_believed(tmp_path: Path, caplog, said: tuple[int, int]) -> None:
    """As a program wrote them that knew the boxes, and not the images."""
    write(tmp_path, {"a": voc("a.jpg", (3, 3, 12, 20)), "b": voc("b.jpg", (40, 30, 60, 40))})
    for file in (tmp_path / "Annotations").iterdir():
        text = file.read_text().replace("<width>64", f"<width>{said[0]}").replace("<height>48", f"<height>{said[1]}")
        file.write_text(text)
    source = read(tmp_path)
    boxes = [source.image(index).annotations[0].box_xyxy for index in (0, 1)]
    assert (boxes, source.problems) == ([(2, 2, 12, 20), (39, 29, 60, 40)], ())
    assert "objects far beyond the size that they say: no size there is believed" in caplog.text
    assert "resized" not in caplog.text


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_of_an_image_that_was_turned_since_nothing_is_read(tmp_path: Path, orientation: int) -> None:
    """EXIF turns it; the file has the size of the image as it lies in memory."""
    write(tmp_path, {"a": voc("a.jpg"), "b": voc("b.jpg")})
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", SIZE).save(tmp_path / "JPEGImages/b.jpg", exif=exif)
    source = read(tmp_path)
    if orientation < 5:  # the size is the same
        assert len(source) == 2
    else:
        (problem,) = source.problems
        assert problem.reason == (
            "its annotations are of an image of 64x48 pixels, this one has 48x64: it was turned, cut or stretched since"
        )
        assert (len(source), source.objects, source.objects_left_out) == (1, 1, 1)


def test_an_image_that_was_cut_since_is_left_out_and_exchanged_sides_are_understood(tmp_path: Path) -> None:
    write(tmp_path, {name: voc(f"{name}.jpg") for name in "abc"})
    Image.new("RGB", (64, 40)).save(tmp_path / "JPEGImages/b.jpg")
    text = voc("c.jpg", (50, 3, 60, 20)).replace("<width>64", "<width>48").replace("<height>48", "<height>64")
    (tmp_path / "Annotations/c.xml").write_text(text)
    source = read(tmp_path)
    assert [source.name(index) for index in range(len(source))] == ["a.jpg", "c.jpg"]
    assert source.image(1).annotations[0].box_xyxy == (49, 2, 60, 20)


def test_a_polygon_in_which_a_coordinate_is_missing_is_a_bad_record(tmp_path: Path) -> None:
    write(tmp_path, {"a": voc("a.jpg", more=POLYGON.replace("<y3>20</y3>", "")), "b": voc("b.jpg")})
    (problem,) = read(tmp_path).problems
    assert problem.reason == "a polygon in which an x has no y"


def test_the_size_is_that_of_the_image_as_it_is_seen(tmp_path: Path) -> None:
    upright = voc("a.jpg").replace("<width>64", "<width>48").replace("<height>48", "<height>64")
    write(tmp_path, {"a": upright})
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", SIZE).save(tmp_path / "JPEGImages/a.jpg", exif=exif)
    record = read(tmp_path).image(0)
    assert (record.width, record.height) == (48, 64)


def test_another_code_page_and_another_declaration(tmp_path: Path) -> None:
    write(tmp_path, {"a": None, "b": None})
    text = voc("a.jpg").replace("cat", "chaînon")
    (tmp_path / "Annotations/a.xml").write_bytes(text.encode("cp1252"))
    declared = f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode("utf-16")
    (tmp_path / "Annotations/b.xml").write_bytes(declared)
    assert read(tmp_path).categories == (Category(1, "chaînon"),)


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (voc("b.jpg")[:90], "b.xml is not XML, or not of VOC"),
        ("<svg/>", "b.xml is not XML, or not of VOC"),
        (BOMB + voc("b.jpg").replace("cat", "&c;"), "b.xml is not XML, or not of VOC"),
        (voc("b.jpg").replace("<name>cat</name>", ""), "the object has no <name>"),
        (voc("b.jpg").replace("bndbox", "box"), "Missing bndbox"),
        (voc("b.jpg").replace("<xmin>25", "<xmin>left"), "Invalid 'xmin' value 'left'"),
        (voc("b.jpg").replace("<xmin>25", "<xmin>nan"), "Invalid 'xmin' value 'nan'"),
    ],
)
def test_what_makes_no_sense_is_skipped_and_named(tmp_path: Path, text: str, what: str) -> None:
    root = write(tmp_path, {"a": voc("a.jpg"), "b": text})
    source = read(root, max_bad_records=1)
    assert source.objects == 1
    (problem,) = source.problems
    assert what in problem.reason
    assert problem.file == "b.jpg"
    with pytest.raises(InputError, match="1 annotations make no sense"):
        read(root, max_bad_records=0)


def test_of_two_images_of_one_stem_the_file_names_one(tmp_path: Path) -> None:
    root = write(tmp_path, {"1": voc("1.png"), "2": voc("2.jpg"), "3": None})
    for number in (1, 2, 3):
        Image.new("RGB", SIZE).save(root / "JPEGImages" / f"{number}.png")
    dataset = read(root)
    assert [dataset.image(index).file for index in range(len(dataset))] == ["1.png", "2.jpg", "3.jpg"]


def test_files_among_the_images_of_their_split(tmp_path: Path) -> None:
    """As TensorFlow's tutorials have them, with a map of the labels in a folder of annotations."""
    for split, stem in (("train", "1"), ("test", "2")):
        (tmp_path / "images" / split).mkdir(parents=True)
        Image.new("RGB", SIZE).save(tmp_path / "images" / split / f"{stem}.jpg")
        (tmp_path / "images" / split / f"{stem}.xml").write_text(voc(f"{stem}.jpg"))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "label_map.pbtxt").write_text("item { id: 1 name: 'cat' }")
    train, validation = open_detection_datasets(str(tmp_path))
    assert [dataset.image(0).file for dataset in (train, validation)] == ["1.jpg", "2.jpg"]


def test_another_xml_file_makes_no_data_set_and_cvat_s_own_says_what_to_export(tmp_path: Path) -> None:
    (tmp_path / "pom.xml").write_text("<project/>")
    (tmp_path / "broken.xml").write_text("<annot")
    assert find_voc(tmp_path) is None
    (tmp_path / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    assert is_annotated(str(tmp_path))
    with pytest.raises(InputError, match="is in CVAT's own format, which is not read; export the task"):
        open_detection_datasets(str(tmp_path))
    cats = write(tmp_path / "coco", {"1": voc("1.jpg"), "2": voc("2.jpg")})
    (cats / "Annotations" / "annotations.xml").write_text("<annotations/>")
    assert len(read(cats)) == 2


def test_several_years_are_not_mixed(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write(tmp_path / "VOCdevkit" / year, {"a": voc("a.jpg")})
    with pytest.raises(InputError, match="has VOC2007 and VOC2012; give one of them"):
        open_detection_datasets(str(tmp_path))
