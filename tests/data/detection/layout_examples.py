"""Data sets of every layout that is read. All show the same: in each image of 64x48 px a cat in x 24 to 40, y 12 to 36.

`LAYOUTS` are the rows for docs/, `EXAMPLES` the files behind them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.data.detection.label_studio.exports import export, export_min
from tests.data.layout_row import Layout

SIZE = (64, 48)
BOX_XYXY = (24.0, 12.0, 40.0, 36.0)
POLYGON = [24, 12, 40, 12, 40, 36, 24, 36]
IMAGE = b"image"


@dataclass(frozen=True)
class Example:
    name: str
    made_by: str
    files: Mapping[str, str | bytes]
    """Path -> text; `IMAGE`: an image of that ending; "-> PATH": a link."""
    read_as: str
    train: int
    """Images."""
    validation: int
    shapes: bool = False
    """Whether the cats have shapes."""
    keypoints: bool = False
    more: Mapping[str, str | bytes] | None = None
    """Further files, which the table does not show."""

    @property
    def held_out(self) -> bool:
        """Whether nothing in the example is there to validate on."""
        return not any("val" in name.lower() or "val:" in str(content) for name, content in self.files.items())

    @property
    def layout(self) -> Layout:
        return Layout(self.name, self.made_by, tuple(self.files), self.read_as)

    def write(self, root: Path) -> None:
        for name, content in {**self.files, **(self.more or {})}.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if content == IMAGE:
                Image.new("RGB", SIZE, "grey").save(file)
            elif isinstance(content, bytes):
                file.write_bytes(content)
            elif content.startswith("-> "):
                file.symlink_to(content.removeprefix("-> "), target_is_directory=True)
            else:
                file.write_text(content, encoding="utf-8")


# The cat, in every format

YOLO_BOX = "0 .5 .5 .25 .5\n"
YOLO_POLYGON = "0 .375 .25 .625 .25 .625 .75 .375 .75\n"
YOLO_POSE = "0 .5 .5 .25 .5 .4 .4 2 .6 .6 1\n"


def coco(names: Sequence[str], size: tuple[int, int] | None = SIZE, **annotation: Any) -> str:
    sizes = {} if size is None else {"width": size[0], "height": size[1]}
    return json.dumps(
        {
            "categories": [{"id": 1, "name": "cat"}],
            "images": [{"id": number, "file_name": name} | sizes for number, name in enumerate(names, 1)],
            "annotations": [
                {"id": number, "image_id": number, "category_id": 1, "bbox": [24, 12, 16, 24], "iscrowd": 0}
                | annotation
                for number, _ in enumerate(names, 1)
            ],
        }
    )


def voc(name: str, box: tuple[int, ...] = (25, 13, 40, 36), more: str = "") -> str:
    tags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return (
        f"<annotation><filename>{name}</filename><size><width>64</width><height>48</height><depth>3</depth></size>"
        f"<object><name>cat</name>{more}<bndbox>{tags}</bndbox></object></annotation>"
    )


def labelme_shape(kind: str = "polygon", points: Sequence[Any] | None = None, **more: Any) -> dict[str, Any]:
    points = list(zip(POLYGON[0::2], POLYGON[1::2], strict=True)) if points is None else points
    return {"label": "cat", "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def labelme(image: str, *shapes: dict[str, Any], **more: Any) -> str:
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes or [labelme_shape()]), "imagePath": image}
    return json.dumps(content | {"imageData": None, "imageHeight": SIZE[1], "imageWidth": SIZE[0]} | more)


def via_region(shape: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    polygon = {"name": "polygon", "all_points_x": POLYGON[0::2], "all_points_y": POLYGON[1::2]}
    return {"shape_attributes": shape or polygon, "region_attributes": attributes or {"class": "cat"}}


def via(names: Sequence[str], regions: Callable[[], Any] = lambda: [via_region()]) -> dict[str, Any]:
    return {f"{name}-1": {"filename": name, "size": -1, "regions": regions(), "file_attributes": {}} for name in names}


def _images(*names: str) -> dict[str, str | bytes]:
    return dict.fromkeys(names, IMAGE)


EXAMPLES = (
    Example(
        "COCO",
        "COCO, CVAT, many others",
        {
            "annotations/instances_train2017.json": coco(["1.jpg"], segmentation=[POLYGON]),
            "annotations/instances_val2017.json": coco(["2.jpg"], segmentation=[POLYGON]),
            **_images("train2017/1.jpg", "val2017/2.jpg"),
        },
        "both splits; the year may be missing, upper and lower case are one, images may lie in `images/train2017` or "
        "`images`",
        1,
        1,
        shapes=True,
    ),
    Example(
        "COCO, one file",
        "CVAT",
        {
            "annotations/instances_default.json": coco(["1.jpg", "2.jpg"], segmentation=[POLYGON]),
            **_images("images/default/1.jpg", "images/default/2.jpg"),
        },
        "a tenth of the images is held out",
        1,
        1,
        shapes=True,
    ),
    Example(
        "COCO, a subset of a task",
        "CVAT",
        {
            "annotations/instances_Train.json": coco(["1.jpg", "2.jpg"]),
            **_images("images/Train/1.jpg", "images/Train/2.jpg"),
        },
        "a tenth of the images is held out",
        1,
        1,
    ),
    Example(
        "COCO beside the images",
        "Roboflow",
        {
            "train/_annotations.coco.json": coco(["1.jpg"]),
            "valid/_annotations.coco.json": coco(["2.jpg"]),
            **_images("train/1.jpg", "valid/2.jpg"),
        },
        "both splits",
        1,
        1,
    ),
    Example(
        "COCO, `result.json`",
        "Label Studio",
        {"result.json": coco(["images/1.jpg", "images/2.jpg"]), **_images("images/1.jpg", "images/2.jpg")},
        "a tenth of the images is held out",
        1,
        1,
    ),
    Example(
        "COCO, `labels.json`",
        "FiftyOne",
        {"labels.json": coco(["1.jpg", "2.jpg"]), **_images("data/1.jpg", "data/2.jpg")},
        "a tenth of the images is held out; the same in `train` and `validation`: both splits",
        1,
        1,
    ),
    Example(
        "COCO, any other name",
        "VIA's COCO export",
        {"via_project_coco.json": coco(["1.jpg", "2.jpg"]), **_images("1.jpg", "2.jpg")},
        "a tenth of the images is held out; the only such file of the folder, the images beside it or in `images`",
        1,
        1,
    ),
    Example(
        "YOLO",
        "Ultralytics, Roboflow, CVAT",
        {
            "data.yaml": "path: ../datasets/cats\ntrain: images/train\nval: images/val\nnames: {0: cat}\n",
            "images/train/1.jpg": IMAGE,
            "images/train/night/2.JPG": IMAGE,
            "labels/train/1.txt": YOLO_BOX,
            "labels/train/night/2.txt": YOLO_BOX,
            "images/val/3.jpg": IMAGE,
            "labels/val/3.txt": YOLO_BOX,
        },
        "boxes; images are searched in sub-folders, `images` in the path becomes `labels`, or the text lies beside "
        "the image; `path` may be of another machine",
        2,
        1,
    ),
    Example(
        "YOLO, polygons or oriented boxes",
        "Ultralytics",
        {
            "data.yaml": "train: train/images\nval: valid/images\nnames: [cat]\n",
            "train/images/1.jpg": IMAGE,
            "train/labels/1.txt": YOLO_POLYGON,
            "valid/images/2.jpg": IMAGE,
            "valid/labels/2.txt": YOLO_POLYGON,
        },
        "shapes and the boxes around them",
        1,
        1,
        shapes=True,
    ),
    Example(
        "YOLO, key points",
        "Ultralytics",
        {
            "data.yaml": "train: images/train\nval: images/val\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnames: [cat]\n",
            "images/train/1.jpg": IMAGE,
            "labels/train/1.txt": YOLO_POSE,
            "images/val/2.jpg": IMAGE,
            "labels/val/2.txt": YOLO_POSE,
        },
        "boxes, and key points where these are trained",
        1,
        1,
        keypoints=True,
    ),
    Example(
        "YOLO, lists of images",
        "CVAT (Ultralytics YOLO)",
        {
            "data.yaml": "path: .\ntrain: train.txt\nnames: {0: cat}\n",
            "train.txt": "data/images/train/1.jpg\ndata/images/train/2.jpg\n",
            "images/train/1.jpg": IMAGE,
            "images/train/2.jpg": IMAGE,
            "labels/train/1.txt": YOLO_BOX,
            "labels/train/2.txt": YOLO_BOX,
        },
        "the listed images; without `val` a tenth is held out; a split may be a list of folders and files",
        1,
        1,
    ),
    Example(
        "YOLO of darknet",
        "CVAT (YOLO 1.1)",
        {
            "obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\n",
            "train.txt": "data/obj_train_data/1.jpg\ndata/obj_train_data/2.jpg\n",
            "obj_train_data/1.jpg": IMAGE,
            "obj_train_data/1.txt": YOLO_BOX,
            "obj_train_data/2.jpg": IMAGE,
            "obj_train_data/2.txt": YOLO_BOX,
        },
        "the listed images; a tenth is held out",
        1,
        1,
    ),
    Example(
        "YOLO without data.yaml",
        "Label Studio, labelImg",
        {
            "classes.txt": "cat\n",
            **_images("images/1.jpg", "images/2.jpg"),
            "labels/1.txt": YOLO_BOX,
            "labels/2.txt": YOLO_BOX,
        },
        "a tenth of the images is held out",
        1,
        1,
        more={"notes.json": '{"categories": [], "info": {}}'},
    ),
    Example(
        "Pascal VOC",
        "VOC, labelImg, CVAT",
        {
            "VOCdevkit/VOC2012/Annotations/1.xml": voc("1.jpg"),
            "VOCdevkit/VOC2012/Annotations/2.xml": voc("2.jpg"),
            **_images("VOCdevkit/VOC2012/JPEGImages/1.jpg", "VOCdevkit/VOC2012/JPEGImages/2.jpg"),
            "VOCdevkit/VOC2012/ImageSets/Main/train.txt": "1\n",
            "VOCdevkit/VOC2012/ImageSets/Main/val.txt": "2\n",
        },
        "boxes, polygons where there are some; `difficult` objects count as crowds; without lists a tenth is held out",
        1,
        1,
    ),
    Example(
        "Pascal VOC beside the images",
        "Roboflow",
        {
            **_images("train/1.jpg", "valid/2.jpg"),
            "train/1.xml": voc("1.jpg"),
            "valid/2.xml": voc("2.jpg"),
        },
        "both splits",
        1,
        1,
    ),
    Example(
        "Pascal VOC, folders of splits",
        "many",
        {
            **_images("images/train/1.jpg", "images/val/2.jpg", "images/test/3.jpg"),
            "annotations/train/1.XML": voc("1.jpg"),
            "annotations/val/2.xml": voc("2.jpg"),
            "annotations/test/3.xml": voc("3.jpg"),
        },
        "both splits; the files may also lie beside the images, in `images/train`",
        1,
        1,
    ),
    Example(
        "LabelMe",
        "LabelMe, X-AnyLabeling",
        {
            **_images("1.jpg", "2.jpg"),
            "1.json": labelme("1.jpg"),
            "2.json": labelme("..\\photos\\2.jpg"),
        },
        "polygons, circles and masks are shapes, rectangles are boxes, `group_id` joins parts; points and lines are "
        "left out; a tenth of the images is held out; in `train` and `val`: both splits",
        1,
        1,
        shapes=True,
    ),
    Example(
        "VIA",
        "VGG Image Annotator 1 and 2",
        {
            "train/via_region_data.json": json.dumps(via(["1.jpg"])),
            "val/via_region_data.json": json.dumps(via(["2.jpg"])),
            **_images("train/1.jpg", "val/2.jpg"),
        },
        "polygons, circles and ellipses are shapes, rectangles are boxes; points and lines are left out; both splits",
        1,
        1,
        shapes=True,
    ),
    Example(
        "VIA project",
        "VGG Image Annotator 2",
        {
            "project.json": json.dumps({"_via_settings": {}, "_via_img_metadata": via(["1.jpg", "2.jpg"])}),
            **_images("images/1.jpg", "images/2.jpg"),
        },
        "a tenth of the images is held out",
        1,
        1,
        shapes=True,
    ),
    Example(
        "Label Studio",
        "Label Studio (JSON)",
        {
            "project-1-at-2026-01-02.json": export(["/data/upload/1/0a1b2c3d-1.jpg", "/data/upload/1/1a2b3c4d-2.jpg"]),
            **_images("images/1.jpg", "images/2.jpg"),
        },
        "polygons, ellipses, brush strokes and turned rectangles are shapes, rectangles are boxes; key points and "
        "lines are left out; of several annotations the ground truth counts, else the latest; a tenth of the images is "
        "held out; `train.json` and `val.json`: both splits",
        1,
        1,
    ),
    Example(
        "Label Studio, the short form",
        "Label Studio (JSON_MIN)",
        {
            "train/export.json": export_min(["s3://bucket/1.jpg"]),
            "val/export.json": export_min(["/data/local-files/?d=val/2.jpg"]),
            **_images("train/1.jpg", "val/2.jpg"),
        },
        "both splits",
        1,
        1,
    ),
)

NOT_READ = (
    Layout("Pascal VOC's segmentation", "VOC", ("SegmentationObject/1.png",), "refused: boxes and polygons are read"),
    Layout("masks as images", "many", ("images/1.png", "masks/1.png"), "refused: convert them to COCO's run lengths"),
    Layout("tables", "many", ("annotations.csv",), "refused"),
    Layout("VIA 3", "VGG Image Annotator 3", ("project.json",), "refused: export COCO"),
)

LAYOUTS = (*(example.layout for example in EXAMPLES), *NOT_READ)
