"""Layouts of images for classifiers. `DATA.tar: cat/1.jpg` is a file in a tar."""

from tests.data.layout_row import Layout

_TWO = "cat, dog: 4 images to train on, 2 to validate on"
_WHOLE = "cat, dog: 4 images, a tenth of each class held out"


def _split(train: str, validation: str) -> tuple[str, ...]:
    """Two images per class to train on, one to validate on."""
    return (
        *(f"{train}/{name}/{number}.jpg" for name in ("cat", "dog") for number in (1, 2)),
        *(f"{validation}/{name}/3.jpg" for name in ("cat", "dog")),
    )


def _shard(tar: str, labels: tuple[str, ...], ending: str = "cls") -> tuple[str, ...]:
    """Flat samples with their labels in the second file."""
    return tuple(
        part
        for number, label in enumerate(labels, int("validation" in tar or "val" in tar) * 5)
        for part in (f"{tar}: {number:04}.jpg", f"{tar}: {number:04}.{ending} = {label}")
    )


CLASSIFICATION_LAYOUTS = (
    Layout("class folders per split", "torchvision, timm, Keras", _split("train", "validation"), _TWO),
    Layout("... val", "ImageNet, Ultralytics", _split("train", "val"), _TWO),
    Layout("... valid", "Roboflow", _split("train", "valid"), _TWO),
    Layout("... dev", "speech and text data", _split("train", "dev"), _TWO),
    Layout("... test alone", "CIFAR-10 as folders", _split("train", "test"), _TWO),
    Layout("... other spellings", "Kaggle", _split("Training", "Testing"), _TWO),
    Layout("... other spellings", "Kaggle", _split("Train", "Val"), _TWO),
    Layout("... other spellings", "Kaggle", _split("TRAIN", "TEST"), _TWO),
    Layout("... other spellings", "courses", _split("training_set", "test_set"), _TWO),
    Layout("... other spellings", "Windows", _split("Training Data", "ValidationSet"), _TWO),
    Layout("... with the name of the set", "Intel image classification", _split("seg_train", "seg_test"), _TWO),
    Layout("... twice", "zip files", _split("seg_train/seg_train", "seg_test/seg_test"), _TWO),
    Layout("... with a year", "iNaturalist, COCO", _split("train2017", "val2017"), _TWO),
    Layout("... in one more folder", "zip files", _split("archive/train", "archive/val"), _TWO),
    Layout(
        "class folders", "anybody", ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"), _WHOLE
    ),
    Layout(
        "a class called train",
        "CIFAR-100, vehicles",
        ("bus/1.jpg", "bus/2.jpg", "train/1.jpg", "train/2.jpg"),
        "bus, train: 4 images, a tenth of each class held out",
    ),
    Layout(
        "a tar per split",
        "anybody",
        tuple(path.replace("/", ".tar: ", 1) for path in _split("train", "validation")),
        _TWO,
    ),
    Layout("everything in a tar", "anybody", tuple(f"DATA.tar: {p}" for p in _split("set/train", "set/val")), _TWO),
    Layout(
        "a tar per class",
        "ImageNet",
        tuple(path.replace("/cat/", "/cat.tar: ").replace("/dog/", "/dog.tar: ") for path in _split("train", "val")),
        _TWO,
    ),
    Layout(
        "shards with class folders",
        "anybody",
        ("train/0.tar: cat/1.jpg", "train/0.tar: dog/1.jpg", "train/1.tar: cat/2.jpg", "train/1.tar: dog/2.jpg",
         "val/0.tar: cat/3.jpg", "val/0.tar: dog/3.jpg"),
        _TWO,
    ),
    Layout(
        "shards with numbers",
        "WebDataset, img2dataset",
        (*_shard("train/00000.tar", ("0", "1")), *_shard("train/00001.tar", ("1", "0")),
         *_shard("validation/00000.tar", ("0", "1"))),
        "0, 1: 4 images to train on, 2 to validate on",
    ),
    Layout(
        "shards with names",
        "WebDataset",
        (*_shard("train/00000.tar", ("cat", "dog")), *_shard("train/00001.tar", ("dog", "cat")),
         *_shard("validation/00000.tar", ("cat", "dog"))),
        _TWO,
    ),
    Layout(
        "shards of both splits beside each other",
        "WebDataset",
        (*_shard("set-train-000000.tar", ("cat", "dog")), *_shard("set-train-000001.tar", ("dog", "cat")),
         *_shard("set-val-000000.tar", ("cat", "dog"))),
        _TWO,
    ),
    Layout(
        "shards with numbers and names beside them",
        "CLIP benchmarks",
        (*_shard("train/0.tar", ("0", "1", "1", "0")), *_shard("validation/0.tar", ("0", "1")),
         "classnames.txt = cat,dog"),
        _TWO,
    ),
    Layout(
        "shards with JSON",
        "WebDataset",
        (*_shard("train/0.tar", ('{"label": "cat"}', '{"label": "dog"}') * 2, "json"),
         *_shard("validation/0.tar", ('{"label": "cat"}', '{"label": "dog"}'), "json")),
        _TWO,
    ),
    Layout(
        "shards without labels",
        "img2dataset",
        ("train/00000.tar: 1.jpg", "train/00001.tar: 2.jpg", "val/00000.tar: 3.jpg"),
        "refused: nothing says which classes the images have",
    ),
    Layout(
        "splits without classes",
        "competitions",
        ("train/1.jpg", "train/2.jpg", "test/3.jpg", "labels.csv = x"),
        "refused: look like splits of the data, not like classes",
    ),
    Layout(
        "classes above the splits",
        "anybody",
        ("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/1.jpg", "dog/test/2.jpg"),
        "refused: the classes stand above the splits",
    ),
    Layout(
        "a level too many",
        "scrapers",
        ("cat/images/1.jpg", "cat/images/2.jpg", "dog/images/1.jpg"),
        "refused: images is a level too many",
    ),
    Layout(
        "splits under names that nobody knows",
        "anybody",
        _split("fold_a", "fold_b"),
        "refused: the classes are cat, dog, and the folders above them splits or groups",
    ),
)  # fmt: skip
