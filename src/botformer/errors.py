"""The one exception meant for people: what was wrong, where, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The command line prints its message without a trace and exits with status 2."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that does not exist, with the nearest ones that do."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InputError(f"unknown {kind} {name!r}; {hint}")


def no_device(wanted: object, found: str, torch_version: str) -> InputError:
    """An `InputError` for a device that is not there."""
    return InputError(
        f"device {wanted} is not there: torch {torch_version} found {found}; use device auto, or a torch built for "
        "that device"
    )
