"""Hub: files of the Hugging Face Hub, from its cache or fetched; one line where that fails."""

import hashlib
import re
from pathlib import Path

from fsc_bench.errors import DataError, one_line


def hub_file(repository: str, name: str, revision: str | None = None, instead: str = "") -> Path:
    """The file in the Hub's cache, fetched where it is not there yet.

    instead: what else the user can do. Raises DataError, one line with the whole reason.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # the Hub's client raises what its libraries of HTTP do
        raise DataError(
            f"huggingface.co/{repository}/{name} is not in the Hub's cache and cannot be fetched: "
            f"{one_line(error)}. {how_to_get(repository)}{instead}"
        ) from None


def how_to_get(repository: str) -> str:
    """What to do about a repository that is not in the cache."""
    from huggingface_hub import constants

    offline = " (HF_HUB_OFFLINE is set here)" if constants.HF_HUB_OFFLINE else ""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", repository):
        # It may come from a stranger's config, and a user pastes the command.
        return "That is no name of a repository of the Hub."
    return (
        f"Where there is a network{offline}: `hf download {repository}`; its cache, "
        f"{constants.HF_HUB_CACHE}, can be copied to a machine without."
    )


def revision_of(path: Path) -> str:
    """The commit of a file in the Hub's cache; nothing elsewhere."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""


def check_sum(path: Path, sha256: str) -> None:
    """Raises DataError where a file is not the one that was released with this sum."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{path}: its sha256 is {found}, the released file's {sha256}. Delete it.")
