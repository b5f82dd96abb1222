"""A pytest plugin: timm's own tests, from its source distribution, see botformer's networks and no others.

make timm-tests, or PYTHONPATH=src:tests/timm python -m pytest -p only_botformer build/timm-VERSION/tests/test_models.py

The module of the tests asks timm for lists of names when it is imported; `timm.list_models` is patched before. Tests of
models by name, and those of pretrained weights, are left out: they are not about ours. BOTFORMER_TIMM_ROWS: patterns of
rows, separated by commas; "*" for all. By default small ones with each kind of block.
"""

import fnmatch
import os

import pytest
import timm
import timm.models

import botformer.timm

SMALL = "botnet_nano,botnet_mini,resnet_nano,botnet50_half,resnet50_nl,resnet50_bot_c4c5,botnet_t3,se_resnet50"
_PATTERNS = os.environ.get("BOTFORMER_TIMM_ROWS", SMALL).split(",")
NAMES = [
    name
    for row, name in botformer.timm.TIMM_NAMES.items()
    if any(fnmatch.fnmatch(row, pattern) for pattern in _PATTERNS)
]
_list_models = timm.list_models


def list_models(filter="", module="", pretrained=False, exclude_filters="", **options):
    """As timm's, of `NAMES`; whatever the module: botformer's networks keep every promise that any of timm's keeps."""
    found = _list_models(filter, "", pretrained, exclude_filters, **options)
    return [name for name in found if name.partition(".")[0] in NAMES]


for _module in (timm, timm.models):
    _module.list_models = list_models
    _module.list_pretrained = lambda *_, **__: []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only tests that are run once per model of a list, and of those the ones with a model of ours."""
    kept, left_out = [], []
    for item in items:
        name = str(getattr(item, "callspec", None) and item.callspec.params.get("model_name", ""))
        (kept if name.partition(".")[0] in NAMES else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)
