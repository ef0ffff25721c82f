"""Hub: files of dataset repositories on the Hugging Face Hub, by commit, checked and atomic."""

import errno
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fsc_bench.data.archives import CHUNK, PLAIN, check_archive
from fsc_bench.data.items import Item
from fsc_bench.data.session import Session, finish, known_commit, remember_commit
from fsc_bench.errors import DataError, one_line


def fetch_hub(item: Item, session: Session) -> dict[str, Any]:
    """Files of a dataset repository, by commit. The Hub's own client resumes and retries.

    Where no commit is named, the newest is asked for, and written down before a file comes.
    """
    from huggingface_hub import errors

    # The client raises its HTTP library's errors too, and has more of its own in later versions.
    trouble = [errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError]
    for name in ("RevisionResolutionError", "XetDownloadError"):
        trouble += [getattr(errors, name)] if hasattr(errors, name) else []
    note = ""
    try:
        if not item.revision:
            item, note = _resolved(item)
        if item.resolved:
            remember_commit(item)
        names = _fetch_files(item, session)
    except errors.GatedRepoError:
        raise DataError(
            f"{item.owner}: {item.hf} is gated and your account may not read it yet: "
            f"{how_to_accept(item.hf)}."
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{item.owner}: {item.hf} is not on the Hub, or not for you: `hf auth login`."
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(
            f"{item.owner}: {item.hf} has no commit {item.revision} (any more)."
        ) from None
    except tuple(trouble) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = _without_token(" ".join(str(error).split()))
        raise DataError(f"{item.owner}: {item.hf}: {reason}") from None
    return _checked(item, names, note)


def how_to_accept(repository: str) -> str:
    """What a person does for a gated repository, as the end of a sentence."""
    from huggingface_hub import constants

    return (
        f"accept its terms at {constants.ENDPOINT}/datasets/{repository} with your account, then "
        "`hf auth login` (or put the token into $HF_TOKEN)"
    )


def _without_token(text: str) -> str:
    """No line of ours shows the user's token."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "***") if token else text


def _resolved(item: Item) -> tuple[Item, str]:
    """(the item at a commit, what to say of it): the one that was taken before, else the newest."""
    from huggingface_hub import HfApi

    if commit := known_commit(item):
        return replace(item, revision=commit, resolved=True), ""
    commit = HfApi().dataset_info(item.hf).sha
    note = f"{item.hf}: no commit is known; the newest, {commit}, is taken, now and later"
    return replace(item, revision=commit, resolved=True), note


def _fetch_files(item: Item, session: Session) -> list[str]:
    """Brings every file that the item names. Returns their names below the item's folder."""
    from huggingface_hub import hf_hub_download, snapshot_download

    revision = item.revision
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
            if info.commit_hash != revision:
                raise DataError(f"{item.owner}: the Hub cannot be reached for {item.hf}.")
        size = sum(info.file_size or 0 for info in plan if info.will_download)
        session.claim(item, item.part, size)
        for info in plan:
            session.check()
            hf_hub_download(item.hf, info.filename, tqdm_class=bar(info.filename), **where)
            names.append(info.filename)
    return names


def _checked(item: Item, names: list[str], note: str) -> dict[str, Any]:
    """The marker of what came, after a look into archives and at the pinned sha256."""
    for name in names:
        if name.endswith(PLAIN):
            try:
                check_archive(item.path / name)
            except DataError as error:
                (item.path / name).unlink()
                raise DataError(f"{item.owner}: {item.hf}: {error} It was not kept.") from None
    marker = finish(item, list(dict.fromkeys(names)), None, note)
    if item.sha256 and marker["sha256"] != item.sha256:
        item.hidden("done.json").unlink()
        raise DataError(
            f"{item.owner}: {item.hf}: sha256 {marker['sha256']}, not the pinned {item.sha256}."
        )
    return marker


def _fetch_member(item: Item, pattern: str, revision: str, session: Session) -> str:
    """One member of a large zip on the Hub, read through byte ranges instead of as a whole."""
    outer, _, inner = pattern.partition("::")
    name = Path(inner).name
    address = f"datasets/{item.hf}@{revision}/{outer}"
    part = item.path / f"{name}.part"
    with _remote_zip(address, f"{item.owner}: {item.hf}: {outer}") as archive:
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


@contextmanager
def _remote_zip(address: str, where: str) -> Iterator[zipfile.ZipFile]:
    """A zip on the Hub. What the Hub says against it is raised as it is; a damaged one, DataError.

    zipfile takes every error of reading for a file that is no zip.
    """
    from huggingface_hub import HfFileSystem

    try:
        with HfFileSystem().open(address) as remote, zipfile.ZipFile(remote) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise DataError(f"{where}: not a readable zip archive ({one_line(error)}).") from None


def _progress_bar(item: Item, session: Session, name: str) -> type:
    """A progress bar class for the Hub's client that draws nothing and tells the session."""
    from tqdm import tqdm

    class Bar(tqdm):
        # tqdm would start a thread while it holds its lock; a bar that the garbage collector closes
        # in that thread waits for the lock, and the download never ends.
        monitor_interval = 0

        def __init__(self, *arguments: Any, **settings: Any):
            settings.pop("name", None)
            super().__init__(*arguments, **{**settings, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> bool:
            if name and self.unit == "B":
                session.tell(item, name, item.part, int(self.n), self.total)
            session.check()
            return True

    return Bar
