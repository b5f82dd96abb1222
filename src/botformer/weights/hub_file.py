"""Files of the Hugging Face hub, from the local cache or downloaded. Nothing in them is run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from botformer.errors import InputError

HUB = "hf://"
SAFETENSORS = "model.safetensors"
HUB_FILES = (SAFETENSORS, "pytorch_model.bin")

_ADDRESS = re.compile(r"hf:/{1,2}([^/@]+/[^/@]+)(?:@((?:refs/(?:pr|convert)/)?[^/]+))?(?:/(.+))?")
"""One slash is what is left of two where an address went through a `Path`, as on the command line."""
_EXPECTED = "expected hf://owner/name, hf://owner/name@revision or hf://owner/name/file"


class HubAddress(NamedTuple):
    repository: str
    """owner/name."""
    revision: str | None
    """A branch, a tag or a commit; None: the main branch."""
    file: str
    """Within the repository; empty: none is named."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB}{self.repository}{revision}" + (f"/{self.file}" if self.file else "")


def is_hub_address(source: str | Path) -> bool:
    return str(source).startswith("hf:/")


def local_file(source: str | Path) -> Path:
    """`source` as a path, of an address on the hub that of `hub_file`."""
    return hub_file(source) if is_hub_address(source) else Path(source)


def read_address(source: str | Path) -> HubAddress:
    """Raises `InputError` where `source` is none. A revision with a slash is written as refs/pr/1 or with %2F."""
    found = _ADDRESS.fullmatch(str(source))
    if found is None:
        raise InputError(f"{str(source)!r} is not an address on the hub; {_EXPECTED}")
    return HubAddress(found[1], unquote(found[2]) if found[2] else None, found[3] or "")


def hub_file(
    source: str | Path,
    names: Sequence[str] = HUB_FILES,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The file behind hf://owner/name[@revision][/file], from the local cache or downloaded.

    Args:
        names: of the files that are meant where the address names none; the first that is there is taken.
        cache_dir: a folder in the layout of the hub's cache; by default the hub's own.
        local_files_only: do not ask the hub, as with HF_HUB_OFFLINE.

    Raises:
        InputError: no such repository, revision or file, no right to read it, or no connection and nothing in the
            cache.
    """
    from huggingface_hub import constants, hf_hub_download  # slow to import, and most weights are local
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    address = read_address(source)
    repository, revision, file = address
    page = f"https://huggingface.co/{repository}"
    reasons = []
    for name in [file] if file else names:
        try:
            return Path(
                hf_hub_download(
                    repository, name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
                )
            )
        except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError that means: no connection
            why = "as was asked for" if local_files_only or constants.HF_HUB_OFFLINE else type(error).__name__
            reasons.append(f"{name} is not in the local cache and the hub cannot be reached ({why})")
        except EntryNotFoundError:
            reasons.append(f"it has no file {name}")
        except GatedRepoError as error:
            raise InputError(
                f"{address} may be read by those who accepted its conditions: do so at {page}, then log in (hf auth "
                "login) and try again"
            ) from error
        except RevisionNotFoundError as error:
            raise InputError(f"{address}: there is no revision {revision!r}; {page}/commits/main lists them") from error
        except RepositoryNotFoundError as error:
            raise InputError(
                f"{address}: there is no such repository, or it is private and you are not logged in as somebody who "
                "may read it (hf auth login)"
            ) from error
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise InputError(f"{address}: {str(error).strip().splitlines()[0]}") from error
    raise InputError(
        f"{address}: {'; '.join(dict.fromkeys(reasons))}; name a file with {HUB}{repository}/FILE, or pass a local path"
    )
