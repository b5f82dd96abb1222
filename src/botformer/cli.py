"""`botformer COMMAND ...`: imports the one command that was asked for, and runs it."""

import io
import logging
import os
import sys
from importlib import import_module

from botformer.errors import InputError

# Name -> what it does; the command is `botformer.commands.NAME.main(arguments)`.
COMMANDS = {
    "demo": "train small BoTNets on nuclei and handwritten digits and write a report; minutes on a CPU",
    "data": "look at images and labels before training: copies, leaks, damage, classes, sizes; a page with pictures",
    "train": "train a recipe on your images",
    "evaluate": "measure a trained network on annotated images: accuracy, or COCO's average precision",
    "predict": "classify images, or detect objects with boxes and masks; draw them and the attention",
    "explain": "one page on an image: attention of every head and layer, and what it rests on",
    "export": "write a trained network for ONNX Runtime, OpenVINO, PyTorch or ExecuTorch, and a script that runs it",
    "report": "make the page of a training run anew: results, pictures, curves, commands",
    "benchmark": "measure speed and memory side by side with other implementations",
    "models": "list the networks with their parameters and multiply-adds, computed and from the paper",
}

_NOISY = ("PIL", "matplotlib", "accelerate", "httpx", "torch", "onnxscript", "onnx_ir", "nncf", "executorch")
"""Libraries whose loggers tell what no user asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 bad input (a message says what to do)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        import botformer

        print(f"botformer {botformer.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    _print_any_name()
    try:
        if name not in COMMANDS:
            from botformer.errors import unknown

            raise unknown("command", name, COMMANDS)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for noisy in (
            "PIL",
            "matplotlib",
            "accelerate",
            "httpx",
            "torch",
            "onnxscript",
            "onnx_ir",
            "nncf",
            "executorch",
        ):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        import_module(f"botformer.commands.{name}").main(rest)
        _leave_the_other_processes()
    except InputError as error:
        print(f"botformer {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"botformer {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output is gone, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # disk full, no permission, no such folder: it names the file
        print(f"botformer {name}: {error}", file=sys.stderr)
        return 2
    return 0


def _print_any_name() -> None:
    """A file's name may hold what the terminal's encoding has no character for; standard error escapes it anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _leave_the_other_processes() -> None:
    """Under torchrun a process that ends with open connections may be killed by its own threads."""
    if "torch.distributed" in sys.modules:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return f"""botformer: Bottleneck Transformers for vision

usage: botformer COMMAND [arguments]

{lines}

botformer COMMAND --help lists its arguments. Start with: botformer demo"""


if __name__ == "__main__":
    sys.exit(main())
