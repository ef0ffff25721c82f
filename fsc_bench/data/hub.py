"""Hub: files of dataset repositories on the Hugging Face Hub, by commit, checked and atomic."""

import errno
import io
import os
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from fsc_bench.data.archives import CHUNK, PLAIN, check_archive
from fsc_bench.data.items import Item
from fsc_bench.data.session import Session, finish
from fsc_bench.errors import DataError


def check_revision(item: Item) -> None:
    if item.hf and not item.revision:
        raise DataError(
            f"{item.owner}: {item.hf} is named without a revision, so that it may change any day; "
            'it is not fetched. Name the commit in the task file: revision = "...".'
        )


def fetch_hub(item: Item, session: Session) -> dict[str, Any]:
    """Files of a dataset repository, by commit. The Hub's own client resumes and retries."""
    from huggingface_hub import errors

    # The client raises its HTTP library's errors too, and has more of its own in later versions.
    trouble = [errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError]
    for name in ("RevisionResolutionError", "XetDownloadError"):
        trouble += [getattr(errors, name)] if hasattr(errors, name) else []
    try:
        names = _fetch_files(item, session)
    except errors.GatedRepoError:
        raise DataError(
            f"{item.owner}: {item.hf} is gated and your account may not read it yet."
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{item.owner}: {item.hf} is not on the Hub, or not for you: `hf auth login`."
        ) from None
    except tuple(trouble) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{item.owner}: {item.hf}: {reason}") from None
    return _checked(item, names)


def _fetch_files(item: Item, session: Session) -> list[str]:
    """Brings every file that the item names. Returns their names below the item's folder."""
    from huggingface_hub import hf_hub_download, snapshot_download

    revision = _whole_revision(item)
    where = {"repo_type": "dataset", "revision": revision, "local_dir": item.path}
    bar = partial(_progress_bar, item, session)
    names: list[str] = []
    for pattern in item.files:
        if "::" in pattern:
            names.append(_fetch_member(item, pattern, revision, session))
            continue
        plan = (
            snapshot_download(
                item.hf, allow_patterns=[pattern], dry_run=True, tqdm_class=bar(""), **where
            )
            if any(letter in pattern for letter in "*?[")
            else [hf_hub_download(item.hf, pattern, dry_run=True, **where)]
        )
        if not plan:
            raise DataError(f"{item.owner}: {item.hf}@{revision} has no {pattern!r}.")
        for info in plan:
            # Without a connection the client would take a local file of whatever revision.
            if len(revision) == 40 and info.commit_hash != revision:
                raise DataError(f"{item.owner}: the Hub cannot be reached for {item.hf}.")
        size = sum(info.file_size or 0 for info in plan if info.will_download)
        session.claim(item, item.part, size)
        for info in plan:
            session.check()
            hf_hub_download(item.hf, info.filename, tqdm_class=bar(info.filename), **where)
            names.append(info.filename)
    return names


def _whole_revision(item: Item) -> str:
    """The commit with all its 40 digits, which the Hub wants."""
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[0-9a-f]{7,39}", item.revision):
        return item.revision
    commits = HfApi().list_repo_commits(item.hf, repo_type="dataset")
    matching = [c.commit_id for c in commits if c.commit_id.startswith(item.revision)]
    if len(matching) != 1:
        raise DataError(f"{item.owner}: {item.hf} has no commit {item.revision}.")
    return matching[0]


def _checked(item: Item, names: list[str]) -> dict[str, Any]:
    """The marker of what came, after a look into archives and at the pinned sha256."""
    for name in names:
        if name.endswith(PLAIN):
            try:
                check_archive(item.path / name)
            except DataError as error:
                (item.path / name).unlink()
                raise DataError(f"{item.owner}: {item.hf}: {error} It was not kept.") from None
    marker = finish(item, list(dict.fromkeys(names)), None)
    if item.sha256 and marker["sha256"] != item.sha256:
        item.hidden("done.json").unlink()
        raise DataError(
            f"{item.owner}: {item.hf}: sha256 {marker['sha256']}, not the pinned {item.sha256}."
        )
    return marker


def _fetch_member(item: Item, pattern: str, revision: str, session: Session) -> str:
    """One member of a large zip on the Hub, read through byte ranges instead of as a whole."""
    from huggingface_hub import HfFileSystem

    outer, _, inner = pattern.partition("::")
    name = Path(inner).name
    address = f"datasets/{item.hf}@{revision}/{outer}"
    part = item.path / f"{name}.part"
    with HfFileSystem().open(address) as remote, zipfile.ZipFile(remote) as archive:
        matching = [i for i in archive.infolist() if f"/{i.filename}".endswith(f"/{inner}")]
        if len(matching) != 1:
            raise DataError(f"{item.owner}: {item.hf}: {outer} has no member {inner!r}.")
        (info,) = matching
        session.claim(item, item.part, info.file_size)
        with archive.open(info) as source, part.open("wb") as target:
            done = 0
            while chunk := source.read(CHUNK):
                session.check()
                target.write(chunk)
                done += len(chunk)
                session.tell(item, name, item.part, done, info.file_size)
            target.flush()
            os.fsync(target.fileno())
    os.replace(part, item.path / name)
    return name


def _progress_bar(item: Item, session: Session, name: str) -> type:
    """A progress bar class for the Hub's client that draws nothing and tells the session."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **settings: Any):
            settings.pop("name", None)
            super().__init__(*arguments, **{**settings, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> bool:
            if name and self.unit == "B":
                session.tell(item, name, item.part, int(self.n), self.total)
            session.check()
            return True

    return Bar
