"""Registers every row with timm. timm groups models by the last name of their module: list_models(module="botformer").

The entry points and `default_cfgs` are what `timm.models.register_model` looks for in the module of a function.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, model_entrypoint, register_model
from timm.models import resolve_pretrained_cfg as resolve_cfg

from botformer.backbone.variants import ROWS, STEMS, Row
from botformer.errors import InputError
from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD
from botformer.recipes.model_options import ModelOptions
from botformer.recipes.schema import Images
from botformer.timm.timm_network import TimmNetwork

_TAG = "botformer"
_OPTIONS = {field.name for field in fields(ModelOptions)} - {"output_stride", "dropout", "drop_path"}
"""Options that timm has no name for."""
_OF_WHOLE_STAGES = ("frozen_stages", "gradient_checkpointing")
_OF_WHOLE_NETWORKS = ("getter", "hook")
"""timm's ways to maps that call the network, in place of its parts: in their names."""


def _timm_name(row: str) -> str:
    """The name of a row, or where timm has a model of its own with that name, `botformer_` before it."""
    taken = is_model(row) and model_entrypoint(row).__module__ != __name__
    return f"{_TAG}_{row}" if taken else row


def _pretrained_cfg(row: Row) -> dict[str, Any]:
    """What timm wants to know of weights and of their images; there are none, so the latter are those of a training."""
    stride = STEMS[row.stem][1] * (2 if row.stem == "7x7" else 1) * 2 * 2 * row.c5_stride
    return {
        "input_size": (3, row.image_size, row.image_size),
        "pool_size": (-(-row.image_size // stride),) * 2,
        "crop_pct": Images().evaluation_crop,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "num_classes": 1000,
        "first_conv": "conv1",
        "classifier": "fc",
        "fixed_input_size": False,
        "paper_ids": "arXiv:2101.11605",
    }


def _entry_point(row: Row, name: str) -> Callable[..., Any]:
    def create(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None, **arguments: Any
    ) -> Any:
        """A `TimmNetwork`, or with `features_only` timm's list of its maps; called by `timm.create_model`."""
        if pretrained:
            cfg = resolve_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
            if not cfg.has_weights and not cfg.state_dict:
                raise InputError(
                    f"pretrained=True: {name} has no ImageNet weights; create it without (segmentation_models_pytorch: "
                    "encoder_weights=None), or load a file of yours with pretrained_cfg_overlay=dict(file=FILE, "
                    "num_classes=N) or checkpoint_path=FILE. Of a ResNet's file botformer.load_weights(model, FILE) "
                    "loads what fits"
                )
        options = {option: arguments.pop(option) for option in sorted(_OPTIONS & arguments.keys())}
        whole = [option for option in _OF_WHOLE_STAGES if options.get(option)]
        if arguments.get("features_only") and whole:
            feature_cls = arguments.setdefault("feature_cls", "getter")
            called = (feature_cls if isinstance(feature_cls, str) else feature_cls.__name__).lower()
            if not any(kind in called for kind in _OF_WHOLE_NETWORKS):
                raise InputError(
                    f"feature_cls={feature_cls!r} takes the network apart, and {' and '.join(whole)} would be lost; "
                    "leave feature_cls out"
                )
        return build_model_with_cfg(
            partial(TimmNetwork, row, options=options),
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            **arguments,
        )

    create.__name__ = create.__qualname__ = name
    return create


TIMM_NAMES = {row: _timm_name(row) for row in ROWS}
"""Row of `botformer.list_models()` -> its name in timm."""

default_cfgs = generate_default_cfgs({f"{name}.{_TAG}": _pretrained_cfg(ROWS[row]) for row, name in TIMM_NAMES.items()})

__all__ = ["TIMM_NAMES"]
for _row, _name in TIMM_NAMES.items():
    globals()[_name] = register_model(_entry_point(ROWS[_row], _name))
