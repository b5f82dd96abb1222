"""`botformer COMMAND ...`: imports the one command that was asked for, and runs it."""

import errno
import io
import logging
import os
import sys
import traceback
from importlib import import_module

from botformer.errors import InputError
from botformer.rank_failure import (
    LOST,
    describe_loss,
    let_others_speak,
    lost_another_process,
    name_of_rank,
    tell_launcher,
)
from botformer.read_file import at_home

# Name -> what it does; the command is `botformer.commands.NAME.main(arguments)`.
COMMANDS = {
    "demo": "train small BoTNets on nuclei and handwritten digits and write a report; minutes on a CPU",
    "data": "look at images and labels before training: copies, leaks, damage, classes, sizes; a page with images",
    "train": "train on your images: a plan in so many minutes (classify, segment, ...), or a recipe",
    "evaluate": "measure a trained network on annotated images: accuracy, or COCO's average precision",
    "predict": "classify images, or detect objects with boxes and masks; draw them and the attention",
    "explain": "show what a trained network looks at on an image: heads, rollout, Grad-CAM, positions; a page",
    "serve": "try trained networks on a page in the browser, and answer programs over HTTP; correct and save",
    "export": "write a trained network for ONNX Runtime, OpenVINO, PyTorch or ExecuTorch, and a script that runs it",
    "convert": "write predictions for annotation programs, Label Studio, FiftyOne, CVAT; make class folders of theirs",
    "push": "publish a trained network on the Hugging Face hub, with a model card from its journal",
    "report": "make the page of a training run anew: results, images, curves, commands",
    "benchmark": "measure speed and memory side by side with other implementations",
    "models": "list the networks with their parameters and multiply-adds, computed and from the paper",
}

_NOISY = ("PIL", "uvicorn", "matplotlib", "accelerate", "httpx", "torch", "onnxscript", "onnx_ir", "nncf", "executorch")
"""Libraries whose loggers tell what no user asked for."""

_WAYS_OUT = {
    errno.ENOENT: "it was removed meanwhile, or its folder takes no files",
    errno.EACCES: "choose another folder, or ask its owner for the permission",
    errno.EPERM: "choose another folder, or ask its owner for the permission",
    errno.EROFS: "choose a folder on another disk",
    errno.ENOSPC: "make room there, or choose a folder on another disk",
    errno.EDQUOT: "make room there, or choose a folder on another disk",
    errno.ENOTDIR: "a part of this path is a file; choose another folder",
    errno.EEXIST: "it stands where a folder is wanted; choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do about an error of the system."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 bad input (a message says what to do).

    docs/clusters.md lists all of them.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        import botformer

        print(f"botformer {botformer.__version__}")
        return 0
    name, rest = arguments[0], [_at_home(argument) for argument in arguments[1:]]
    _print_any_name()
    try:
        if name not in COMMANDS:
            from botformer.errors import unknown

            raise unknown("command", name, COMMANDS)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for noisy in _NOISY:
            logging.getLogger(noisy).setLevel(logging.WARNING)
        import_module(f"botformer.commands.{name}").main(rest)
        _leave_the_other_processes()
    except InputError as error:
        return _bad_input(name, str(error))
    except KeyboardInterrupt:
        print(f"botformer {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output is gone, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _bad_input(name, _of_the_system(error))
    except Exception as error:
        if lost_another_process(error):
            let_others_speak(everyone=True)
            return _say(f"botformer {name}: {name_of_rank()}{describe_loss(error)}", LOST)
        let_others_speak(everyone=False)
        tell_launcher(traceback.format_exc())
        raise
    return 0


def _at_home(argument: str) -> str:
    """With a home directory for a ~: shells leave it in --out=~/runs, and containers start commands without a shell."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{at_home(value)}" if value.startswith("~") else argument


def _bad_input(name: str, message: str) -> int:
    let_others_speak(everyone=False)
    return _say(f"botformer {name}: {name_of_rank()}{message}", 2)


def _say(message: str, status: int) -> int:
    tell_launcher(message)
    print(message, file=sys.stderr)
    return status


def _of_the_system(error: OSError) -> str:
    if error.errno not in _WAYS_OUT:
        return str(error)
    file = error.filename2 or error.filename or "a file"
    return f"{file}: {os.strerror(error.errno).lower()}; {_WAYS_OUT[error.errno]}"


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
