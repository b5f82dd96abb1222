"""segmentation_models_pytorch takes our networks as encoders, by timm's name."""

import pytest
import torch

import botformer.timm  # noqa: F401  (registers our networks)
from botformer.errors import InputError

smp = pytest.importorskip("segmentation_models_pytorch")
ENCODER = "tu-botnet50_half.botformer"


@pytest.mark.parametrize(
    ("kind", "arguments", "size"),
    [
        ("Unet", {}, (97, 71)),  # any size
        ("FPN", {}, (96, 64)),
        ("DeepLabV3Plus", {"encoder_output_stride": 16}, (96, 64)),
        ("DeepLabV3Plus", {"encoder_output_stride": 8}, (64, 64)),
    ],
)
def test_decoders_train_on_our_encoder(kind, arguments, size):
    torch.manual_seed(0)
    model = getattr(smp, kind)(ENCODER, encoder_weights=None, in_channels=1, classes=2, **arguments)
    out = model(torch.randn(2, 1, *size))
    assert out.shape == (2, 2, *size)
    out.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())
    assert model.encoder.out_channels == [1, 64, 128, 256, 512, 1024]


def test_options_reach_the_encoder_and_stages_may_be_left_out():
    model = smp.Unet(ENCODER, encoder_weights=None, encoder_depth=4, decoder_channels=(64, 32, 16, 8), img_size=128)
    assert model.encoder.out_channels == [3, 64, 128, 256, 512]
    model = smp.Unet(ENCODER, encoder_weights=None, heads=8, img_size=128, drop_path_rate=0.1)
    assert model.encoder.model.layer4[0].conv2.heads == 8
    assert model.encoder.model.layer4[0].conv2.size == (8, 8)


def test_weights_that_do_not_exist_are_said():
    with pytest.raises(InputError, match="encoder_weights=None"):
        smp.Unet(ENCODER, encoder_weights=True)
