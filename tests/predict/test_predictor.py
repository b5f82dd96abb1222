"""One predictor for everything: what it gives is what the network gives, whoever asks and however."""

import io
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import botformer
from botformer.classification.task import ClassificationTask
from botformer.data.classification.transforms import evaluation_transform
from botformer.data.image_inputs import input_image
from botformer.data.image_io import BadImage, decode
from botformer.detection.padding import PaddedImages
from botformer.errors import InputError
from botformer.explain import attention_heads, see
from botformer.predict.results import Unreadable
from botformer.recipes.schema import Images

from .conftest import NAMES

ROUNDING = 1e-5
"""Of probabilities: in a batch of another size the sums of float32 are taken in another order."""


def as_loop(network: Path, files: list[Path], flip: bool = False) -> np.ndarray:
    """(files, K) probabilities, one image after the other."""
    model, config = botformer.load(network)
    task = ClassificationTask(model, config, set(), flip=flip).eval()
    transform = evaluation_transform(Images(**config["images"]))
    with torch.no_grad():
        return np.stack(
            [task.predict({"images": transform(decode(file, file.name))[None]}).softmax(1)[0].numpy() for file in files]
        )


def assert_same_detections(one, other):
    """To rounding; scores of these networks lie far apart."""
    assert len(one) == len(other) > 5
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_classifier_gives_what_a_loop_over_the_network_gives(classifier, images, batch_size, flip):
    predictor = botformer.predictor(classifier, "cpu", batch_size, flip=flip)
    results = predictor(images)
    np.testing.assert_allclose([r.of_classes for r in results], as_loop(classifier, images, flip), atol=ROUNDING)
    for file, result in zip(images, results, strict=True):
        assert result.name == file.as_posix()
        assert result.size_px == Image.open(file).size
        order = np.argsort(-result.of_classes)[:5]
        assert result.labels == [NAMES[place] for place in order]
        np.testing.assert_allclose(result.probabilities, result.of_classes[order], rtol=1e-6)
        assert result.error is None
        assert (result.label, result.probability) == (result.labels[0], result.probabilities[0])
    assert len({result.label for result in results}) > 1
    assert list(predictor.names) == NAMES


def test_a_detector_gives_what_the_network_gives_on_its_canvas(detector):
    """To the bit, where the pixels lie in memory as in an evaluation (channels last): else float32 is summed in another
    order, and this network's logits, a hundred times as large as usual, show it."""
    pixels = np.random.default_rng(1).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    images = PaddedImages(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).float() / 255, [(96, 96)])
    (expected,) = botformer.load(detector).model.padded_detections(images, [(96, 96)])
    result = botformer.predictor(detector, "cpu")(pixels)
    np.testing.assert_array_equal(result.boxes_xyxy, expected["boxes"])
    np.testing.assert_array_equal(result.scores, expected["scores"])
    np.testing.assert_array_equal(result.labels, expected["labels"])
    assert result.masks == expected["masks"]
    assert len(result) > 5
    assert (np.diff(result.scores) <= 0).all()
    assert result.names == [result.network.names[label - 1] for label in result.labels]


@pytest.mark.parametrize("px", [(64, 96), (96, 64), (30, 200)])
def test_a_canvas_that_is_no_square_is_the_network_s_own(px, tmp_path):
    torch.manual_seed(0)
    model = botformer.create_detector("mask_rcnn", "botnet_nano", 2, 64, test_size=(64, 96), score_threshold=0.0).eval()
    file = tmp_path / "oblong.safetensors"
    botformer.save(model, botformer.model_config(model, ["a", "b"]), file)
    pixels = np.random.default_rng(1).integers(0, 256, (*px, 3)).astype(np.uint8)
    predictor = botformer.predictor(file, "cpu")
    result = predictor(pixels)
    assert len(result) > 5
    height, width = (round(side * min(64 / px[0], 96 / px[1])) for side in px)
    prepared = predictor.network.prepare(input_image(pixels, 1, 100.0))
    assert (prepared.canvas.shape, prepared.extent) == ((3, 64, 96), (height, width))
    if px == (64, 96):  # the canvas itself
        images = PaddedImages(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).float() / 255, [px])
        (expected,) = botformer.load(file).model.padded_detections(images, [px])
        np.testing.assert_array_equal(result.boxes_xyxy, expected["boxes"])
        np.testing.assert_array_equal(result.scores, expected["scores"])
    ((_, weights),) = result.attention(0)
    assert weights.shape == (height, width)
    seen = see(botformer.load(file).model_config, pixels)
    assert seen.pixels.shape == (3, height, width)
    (layer,) = attention_heads(botformer.load(file).model, seen.pixels, (height / 2, width / 2))
    assert layer.attention.shape[1:] == (-(-height // layer.stride_px), -(-width // layer.stride_px))


@pytest.mark.parametrize("tile", [0, 64])
def test_many_at_once_give_what_each_gives_alone(detector, images, tile):
    predictor = botformer.predictor(detector, batch_size=3, tile=tile)
    files = images[:4] + images[5:7]
    for file, result in zip(files, predictor(files), strict=True):
        assert_same_detections(result, predictor(file))


def test_the_threshold_leaves_out_what_scores_less(detector, images):
    everything, some = (botformer.predictor(detector, threshold=least)(images[6]) for least in (0.0, 0.3))
    assert 0 < len(some) == (everything.scores >= 0.3).sum() < len(everything)
    assert some.masks == everything.above(0.3).masks == everything.masks[: len(some)]


def test_every_form_of_an_image_gives_the_same(classifier, images):
    predictor, file = botformer.predictor(classifier), images[6]
    image = Image.open(file)
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = predictor(file)
    forms = [
        str(file), file.read_bytes(), bytearray(file.read_bytes()), file.open("rb"), image, pixels, tensor,
        tensor / 255, tensor.double() / 255, (pixels / 255).astype(np.float32), pixels.astype(np.uint16) * 257,
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_array_equal(predictor(form).of_classes, expected.of_classes)
    several = [predictor(form) for form in ([file, pixels], (file, image), np.stack([pixels] * 2), tensor[None])]
    assert [len(each) for each in several] == [2, 2, 2, 1]
    for result in (result for results in several for result in results):
        np.testing.assert_allclose(result.of_classes, expected.of_classes, atol=ROUNDING)
    assert predictor([]) == []
    assert list(predictor(iter(()))) == []


def test_a_frame_is_what_it_was_when_it_was_given(classifier):
    """Cameras write every frame into the same array."""
    frames = [np.full((32, 32, 3), grey, np.uint8) for grey in (0, 255, 128, 30)]

    def camera():
        buffer = np.empty_like(frames[0])
        for frame in frames:
            buffer[:] = frame
            yield buffer

    predictor = botformer.predictor(classifier, "cpu", 2)
    for result, frame in zip(predictor.stream(camera()), frames, strict=True):
        np.testing.assert_allclose(result.of_classes, predictor(frame).of_classes, atol=ROUNDING)


def test_what_cannot_be_read_stands_in_its_place(classifier, images):
    data = images[1].read_bytes()
    broken = [Image.open(io.BytesIO(data[: len(data) * 2 // 3])), torch.zeros(3, 8, 8, device="meta"), None, "nowhere"]
    predictor = botformer.predictor(classifier, "cpu", 2)
    results = list(predictor.stream([images[0], *broken, images[0]]))
    assert [isinstance(result, Unreadable) for result in results] == [False, True, True, True, True, False]
    for source in broken:
        with pytest.raises(botformer.InputError):
            predictor(source)


def test_a_network_of_the_callers_is_left_as_it_is(classifier, images):
    loaded = botformer.load(classifier)
    loaded.model.train()
    predictor = botformer.predictor(loaded)
    expected = botformer.predictor(classifier)(images[6]).of_classes
    assert loaded.model.training
    assert predictor.model_config is loaded.model_config
    np.testing.assert_array_equal(predictor(images[6]).of_classes, expected)
    assert next(predictor.model.parameters()) is next(loaded.model.parameters())
    for wrong, words in ((loaded.model, "botformer.save"), (None, "got a NoneType")):
        with pytest.raises(InputError, match=words):
            botformer.predictor(wrong)


def test_an_iterator_is_read_two_batches_ahead_in_its_order(classifier):
    taken = []

    def arrays():
        for number in range(60):
            taken.append(number)
            yield np.full((32, 32, 3), 4 * number, dtype=np.uint8)

    predictor = botformer.predictor(classifier, batch_size=4, decoders=3)
    results = predictor(arrays())
    assert taken == []
    seen = []
    for number, result in enumerate(results):
        assert len(taken) <= number + 1 + 2 * 4
        assert result.name == f"image {number + 1}"
        seen.append(result.of_classes)
    alone = [predictor(np.full((32, 32, 3), 4 * number, dtype=np.uint8)).of_classes for number in range(60)]
    np.testing.assert_allclose(seen, alone, atol=ROUNDING)


def test_nothing_is_kept_of_what_is_done(classifier):
    """Arrays that are alive at once, of many that a generator makes."""
    dead: list[int] = []
    most = 0

    def arrays():
        for number in range(2000):
            image = np.full((8, 8, 3), number % 251, dtype=np.uint8)
            weakref.finalize(image, dead.append, 1)
            yield image

    for number, _ in enumerate(botformer.predictor(classifier, batch_size=16).stream(arrays()), 1):
        if number % 100 == 0:
            most = max(most, number - len(dead))
    assert most <= 3 * 16


def test_a_bad_image_of_many_stands_in_its_place_and_alone_it_raises(classifier, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:60])
    predictor = botformer.predictor(classifier, batch_size=2)
    results = predictor([images[0], broken, "nowhere.jpg", None, images[1], tmp_path])
    assert [type(result) is Unreadable for result in results] == [False, True, True, True, False, True]
    assert [bool(result) for result in results] == [True, False, False, False, True, False]
    assert [result.error is None for result in results] == [True, False, False, False, True, False]
    assert "No such file" in results[2].error
    assert "cv2.imread" in results[3].error
    assert "is a folder" in results[5].error
    with pytest.raises(AttributeError, match=r"no 'label': nowhere.jpg could not be read \(No such file"):
        _ = results[2].label
    for bad in (broken, "nowhere.jpg", None, tmp_path, "https://example.org/a.jpg", "", {"a": 1}, 3, "nul\0.jpg"):
        with pytest.raises(BadImage):
            predictor(bad)
    with pytest.raises(InputError, match="is an address, and nothing is downloaded"):
        predictor("https://example.org/a.jpg")
    for one in (images[0], str(images[0]), np.zeros((9, 9), np.uint8)):
        with pytest.raises(InputError, match="stream takes several images"):
            predictor.stream(one)


def test_an_image_in_tiles_that_turns_out_damaged_is_one_bad_image(detector, tmp_path):
    """Its header is fine; it is decoded only when its turn has come."""
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 150, 3)).astype(np.uint8)).save(whole)
    cut.write_bytes(whole.read_bytes()[:20000])
    results = botformer.predictor(detector, batch_size=2, tile=64)([whole, cut, whole])
    assert [result.error is None for result in results] == [True, False, True]


def test_an_error_of_the_iterator_comes_after_the_results_of_what_it_gave(classifier, images):
    def files():
        yield from images[:3]
        raise RuntimeError("the disk is gone")

    results = botformer.predictor(classifier, batch_size=2)(files())
    assert [next(results).name for _ in range(3)] == [file.as_posix() for file in images[:3]]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(results)


def test_a_stream_that_is_left_leaves_no_threads(classifier, images):
    before = set(threading.enumerate())
    results = botformer.predictor(classifier, batch_size=1).stream(iter(images * 10))
    next(results)
    results.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert set(threading.enumerate()) <= before


def test_eight_threads_get_the_same_answers(classifier, detector, images):
    """Streams, single images, attention and drawings at once; attention puts hooks on the network."""
    for network in (classifier, detector):
        predictor = botformer.predictor(network, batch_size=3)
        files = [images[0], images[5], images[6]]
        alone = predictor(files)
        attention = alone[2].attention()

        def work(number, predictor=predictor, files=files):
            results = list(predictor(iter(files))) if number % 2 else [predictor(file) for file in files]
            return results, results[2].attention()

        with ThreadPoolExecutor(8) as pool:
            for results, seen in pool.map(work, range(16)):
                for one, other in zip(results, alone, strict=True):
                    if network == classifier:
                        np.testing.assert_allclose(one.of_classes, other.of_classes, atol=ROUNDING)
                    else:
                        assert_same_detections(one, other)
                assert [name for name, _ in seen] == [name for name, _ in attention]
                for (_, one), (_, other) in zip(seen, attention, strict=True):
                    np.testing.assert_allclose(one, other, atol=1e-5)
        assert not any(module._forward_pre_hooks for module in predictor.model.modules())


def test_the_process_is_left_as_it_was(classifier, images):
    before = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    predictor = botformer.predictor(classifier)
    results = predictor(iter(images))
    next(results)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    list(results)
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == before


def test_bfloat16_is_near(classifier, images):
    exact, near = (botformer.predictor(classifier, precision=name)(images) for name in ("float32", "bf16"))
    difference = np.abs([one.of_classes - other.of_classes for one, other in zip(exact, near, strict=True)])
    assert 0 < difference.max() < 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "xpu"}, "device xpu is not there"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"threshold": "0.5"}, "threshold is a score between 0 and 1, got '0.5'"),
        ({"max_megapixels": 0}, "max_megapixels is 0"),
        ({"decoders": 1.5}, "decoders is 1.5"),
        ({"threshold": 2}, "threshold is a score between 0 and 1"),
        ({"threshold": 0.5}, "threshold is for detectors"),
        ({"tile": 64}, "tile is for detectors"),
        ({"precision": "fp16"}, "unknown precision"),
    ],
)
def test_options_that_make_no_sense_get_a_message(classifier, options, words):
    with pytest.raises(InputError, match=words):
        botformer.predictor(classifier, **options)


def test_a_network_that_is_not_there_gets_a_message():
    with pytest.raises(InputError, match="expected the --out folder of a training run"):
        botformer.predictor("nowhere")
