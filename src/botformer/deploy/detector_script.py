"""The lines of run.py (`run_script`) that are a detector's."""

DETECTION = '''
def on_canvas(file):
    """The image as large as the canvas allows, and its own (height, width)."""
    (high, wide), image = CONFIG["settings"]["canvas"], Image.open(file)
    width, height = upright_size(image)
    scale = min(high / height, wide / width)
    new = [max(1, round(side * scale)) for side in (width, height)]
    image, n = decoded(image, min(width / new[0], height / new[1]))
    box = [0, 0, min(width / n, image.width), min(height / n, image.height)]
    return image.resize(new, Image.Resampling.BILINEAR, box), (height, width)


def pasted(mask, box, size):
    """Probabilities (M, M) over a box -> bool (height, width): linear between the cells' middles, 0 around them."""
    window, values = [], np.pad(mask.astype(np.float64), 1)
    for axis, (low, high, length) in enumerate(((box[1], box[3], size[0]), (box[0], box[2], size[1]))):
        start, stop = (int(np.clip(side, 0, length)) for side in (np.floor(low), np.ceil(high)))
        pixel = np.arange(start, max(start, stop))
        at = np.clip((pixel + 0.5 - low) / max(high - low, 1e-6) * len(mask) + 0.5, 0, len(mask) + 1)
        first = np.minimum(at.astype(int), len(mask))
        after = np.expand_dims(at - first, 1 - axis)
        values = values.take(first, axis) * (1 - after) + values.take(first + 1, axis) * after
        window.append(slice(start, max(start, stop)))
    whole = np.zeros(size, bool)
    whole[tuple(window)] = values >= 0.5
    return whole


def encode_counts(mask):
    """COCO's uncompressed encoding: down the columns, the lengths of runs of 0, 1, 0, ..."""
    pixels = np.concatenate([[False], mask.ravel(order="F"), [False]])
    ends = np.concatenate([np.flatnonzero(np.diff(pixels)), [mask.size]])
    counts = np.diff(ends, prepend=0)
    return {"size": list(mask.shape), "counts": (counts if counts[-1] else counts[:-1]).tolist()}


def answer(file):
    """The objects, the best first, in pixels of the upright image."""
    image, size = on_canvas(file)
    batch, *shape = CONFIG["inputs"][0]["shape"]
    pixels = np.zeros((batch, *shape), np.float32)
    pixels[:, :, : image.height, : image.width] = np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
    sizes = np.array([[image.height, image.width]] * batch, np.int64)
    found = {name: values[0] for name, values in network(pixels=pixels, sizes=sizes).items()}
    scale, objects = np.array([size[1] / image.width, size[0] / image.height]), []
    for i in np.flatnonzero(found["scores"] > 0):
        box, label = found["boxes"][i].astype(np.float64) * np.tile(scale, 2), int(found["labels"][i])
        one = {"label": label, "name": CONFIG["categories"][label - 1][1]}
        one |= {"score": float(found["scores"][i]), "box_xyxy": box.tolist()}
        if "masks" in found:
            one["mask"] = encode_counts(pasted(found["masks"][i], box, size))
        if "keypoints" in found:
            one["keypoints_xy"] = (found["keypoints"][i, :, :2] * scale).tolist()
        objects.append(one)
    return {"size": list(size), "objects": objects}
'''
