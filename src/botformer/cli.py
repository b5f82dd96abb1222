"""`botformer VERB ...`: picks a command and imports it only then."""

import logging
import os
import sys
from importlib import import_module

from botformer.errors import InputError

# Verb -> what it does; the command is `botformer.commands.VERB.main(arguments)`.
COMMANDS = {
    "demo": "train small BoTNets on nuclei and handwritten digits and write a report, in minutes on a CPU",
    "train": "train a recipe on your images",
    "evaluate": "measure a trained network on images whose labels or objects are known",
    "predict": "say what is on an image: classes, or boxes and masks; show where the attention looks",
    "benchmark": "measure speed and memory side by side with other implementations",
    "models": "list the networks with their parameters and multiply-adds, ours and the paper's",
}


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
    verb, rest = arguments[0], arguments[1:]
    try:
        if verb not in COMMANDS:
            from botformer.errors import unknown

            raise unknown("command", verb, COMMANDS)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for noisy in ("PIL", "matplotlib", "accelerate", "httpx", "torch"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        import_module(f"botformer.commands.{verb}").main(rest)
        _leave_the_other_processes()
    except InputError as error:
        print(f"botformer {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"botformer {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # no room, no permission, no such place: it names the file
        print(f"botformer {verb}: {error}", file=sys.stderr)
        return 2
    return 0


def _leave_the_other_processes() -> None:
    """Under torchrun: a process that ends with its connections open may be killed by its own threads."""
    if "torch.distributed" in sys.modules:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def _help() -> str:
    width = max(map(len, COMMANDS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in COMMANDS.items())
    return f"""botformer: Bottleneck Transformers for vision

usage: botformer COMMAND [arguments]

{verbs}

botformer COMMAND --help says more. Start with: botformer demo"""


if __name__ == "__main__":
    sys.exit(main())
