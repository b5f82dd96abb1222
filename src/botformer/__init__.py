"""Bottleneck Transformers (BoTNet) for PyTorch. Heavy dependencies are imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> its module, which is imported on first access (PEP 562).
_EXPORTS = {
    "BoTBlock": "botformer.backbone.bot_block",
    "InputError": "botformer.errors",
    "MHSA2d": "botformer.backbone.mhsa",
    "convert": "botformer.create.convert",
    "create_backbone": "botformer.create",
    "create_detector": "botformer.create",
    "create_model": "botformer.create",
    "from_pretrained": "botformer.hub",
    "list_models": "botformer.create",
    "load": "botformer.create",
    "load_weights": "botformer.weights",
    "model_config": "botformer.create",
    "predictor": "botformer.predict.predictor",
    "push_to_hub": "botformer.hub",
    "relative_attention_2d": "botformer.attention",
    "save": "botformer.weights",
}
_SUBMODULES = ("deploy", "explain", "hub")
__all__ = [
    "BoTBlock",
    "InputError",
    "MHSA2d",
    "convert",
    "create_backbone",
    "create_detector",
    "create_model",
    "deploy",
    "explain",
    "from_pretrained",
    "hub",
    "list_models",
    "load",
    "load_weights",
    "model_config",
    "predictor",
    "push_to_hub",
    "relative_attention_2d",
    "save",
]

if TYPE_CHECKING:
    from botformer import deploy, explain, hub
    from botformer.attention import relative_attention_2d
    from botformer.backbone.bot_block import BoTBlock
    from botformer.backbone.mhsa import MHSA2d
    from botformer.create import create_backbone, create_detector, create_model, list_models, load, model_config
    from botformer.create.convert import convert
    from botformer.errors import InputError
    from botformer.hub import from_pretrained, push_to_hub
    from botformer.predict.predictor import predictor
    from botformer.weights import load_weights, save


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"botformer.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'botformer' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_SUBMODULES})
