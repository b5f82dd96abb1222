"""Every network of `botformer.list_models()` as a model of timm: `import botformer.timm`, then `timm.create_model`.

    timm.create_model("botnet50.botformer", num_classes=10, img_size=256)

The name of the row is that of the architecture, and "botformer" timm's tag; a name that timm has itself stays timm's,
and ours is `botformer_NAME` (`TIMM_NAMES`). docs/doors.md has examples.
"""

from botformer.timm.botformer import TIMM_NAMES
from botformer.timm.timm_network import TimmNetwork

__all__ = ["TIMM_NAMES", "TimmNetwork"]
