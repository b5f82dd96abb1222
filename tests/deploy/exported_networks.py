"""Networks whose attention matters: position terms that a graph gets wrong show in the result."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

import botformer
from botformer.backbone.mhsa import MHSA2d

needs_export = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript", "openvino"))), reason="needs the extra 'export'"
)
"""Looks without importing: onnxruntime and openvino would report to their makers."""


def sharp_network(name="botnet_nano", backbone=False, seed=0, **options):
    """With random weights as they are made attention is nearly the mean of the map, whatever the positions."""
    torch.manual_seed(seed)
    model = (botformer.create_backbone if backbone else botformer.create_model)(name, zero_gamma=False, **options)
    for module in model.modules():
        if isinstance(module, MHSA2d):
            nn.init.normal_(module.qkv.weight, std=0.3)
        if hasattr(module, "running_var"):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()
