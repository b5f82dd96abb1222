"""Predictions as rows of Parquet files, and back again as records in the order of the images."""

import json
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from botformer.predict.results import ClassificationResult, Result, Unreadable

_IMAGE = {
    "path": pa.string(),  # of the file, or TAR/MEMBER, or TAR/MEMBER#2 where there are two; unique
    "place": pa.int64(),  # of the file among those that were named, from 0
    "member": pa.int64(),  # of the image in its tar, from 0
    "error": pa.string(),  # why it could not be read; otherwise null
    "width": pa.int64(),
    "height": pa.int64(),
}
CLASSES = pa.schema(_IMAGE | {"top5": pa.list_(pa.struct({"label": pa.string(), "probability": pa.float64()}))})
DETECTIONS = pa.schema(
    _IMAGE
    | {
        "detections": pa.list_(
            pa.struct(
                {
                    "category_id": pa.int64(),
                    "bbox": pa.list_(pa.float64()),  # x, y, width, height
                    "score": pa.float64(),
                    "segmentation": pa.struct({"size": pa.list_(pa.int64()), "counts": pa.string()}),  # COCO's RLE
                    "keypoints": pa.list_(pa.float64()),  # x, y, v, ...
                }
            )
        )
    }
)
_BATCH = 1024


def path_of(name: str, time: int) -> str:
    """Of an image whose name is there the `time`-th time, as a tar may hold several files of one name: NAME#2. No
    image's own name ends like that."""
    return name if time == 1 else f"{name}#{time}"


def name_of(path: str) -> str:
    """The inverse."""
    return re.sub(r"#\d+$", "", path)


def row_of(result: Result | Unreadable, category_ids: Sequence[int]) -> dict[str, Any]:
    """Without the names of the image."""
    if isinstance(result, Unreadable):
        return {"error": result.error}
    width, height = result.size_px
    if isinstance(result, ClassificationResult):
        top5 = [{"label": label, "probability": probability} for label, probability in result.top5]
        return {"width": width, "height": height, "top5": top5}
    detections = result.to_coco(0, category_ids)
    for each in detections:
        del each["image_id"]  # which is known once all tars are read
    return {"width": width, "height": height, "detections": detections}


def content_of(row: Mapping[str, Any], image_id: int | str) -> dict[str, Any]:
    """What a record says of the image that a row is of: `top5`, or `detections` as COCO has them."""
    if "top5" in row:
        return {"top5": [(each["label"], each["probability"]) for each in row["top5"]]}
    detections = [
        {"image_id": image_id} | {key: value for key, value in each.items() if value is not None}
        for each in row["detections"]
    ]
    return {"detections": detections}


def rows_in_order(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of the Parquet files, in the order of the images. Memory holds the places of the rows; the rows
    themselves wait in a temporary file beside the folder."""
    places, offsets = array("q"), array("q")
    with TemporaryFile(dir=folder.parent) as unordered:
        for file in sorted(folder.glob("*.parquet")):
            with pq.ParquetFile(file) as rows:
                for batch in rows.iter_batches(_BATCH):
                    for row in batch.to_pylist():
                        places.extend((row["place"], row["member"]))
                        offsets.append(unordered.tell())
                        unordered.write(json.dumps(row).encode() + b"\n")
        keys = np.frombuffer(places, dtype=np.int64).reshape(-1, 2) if places else np.zeros((0, 2), dtype=np.int64)
        for index in np.lexsort((keys[:, 1], keys[:, 0])):
            unordered.seek(offsets[index])
            yield json.loads(unordered.readline())
