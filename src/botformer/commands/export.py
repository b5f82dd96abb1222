"""Write a trained network for another runtime: botformer export RUN --format onnx."""

from botformer.errors import InputError


def main(arguments: list[str]) -> None:
    raise InputError("not yet")
