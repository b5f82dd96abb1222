"""What a run was made with."""

import platform
from importlib.metadata import version

import torch

from botformer import __version__

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "safetensors")


def versions(device: torch.device) -> dict[str, str]:
    """Versions of Python, the packages and the device, as written beside every run."""
    found = {"python": platform.python_version(), "botformer": __version__} | {name: version(name) for name in PACKAGES}
    found["torch"] = torch.__version__  # which build it is, too
    if device.type == "cuda":
        return found | {"cuda": str(torch.version.cuda), "device": torch.cuda.get_device_name(device)}
    return found | {"device": f"{device.type} {platform.machine()}"}
