"""Model lists: `-m @models.txt`, and `-m 'open_clip:ViT-B-32@ckpts/*.pt'` for every file."""

import re
from glob import glob, has_magic
from pathlib import Path

from fsc_bench.errors import FscBenchError, UsageError, near_miss, one_line, reason


def expanded(models: list[str]) -> list[str]:
    """The models that the words name, in order, each once. Raises UsageError, one line."""
    found: list[str] = []
    for word in models:
        found += _of_file(Path(word[1:]).expanduser()) if word.startswith("@") else _of_glob(word)
    return list(dict.fromkeys(found))


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sorting key by which epoch_2 stands before epoch_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def _of_file(path: Path) -> list[str]:
    """One model a line; blank lines and those that begin with # are left out."""
    from fsc_bench.models import check_spec

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"-m @{path}: cannot be read: {reason(error)}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"-m @{path}: is no text in UTF-8.") from None
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            check_spec(word)
            found += _of_glob(word)
        except FscBenchError as error:
            wrong.append(f"line {number}: {one_line(error)}.")
    if wrong:
        raise UsageError(f"-m @{path}: {' '.join(wrong)}")
    if not found:
        raise UsageError(f"-m @{path}: names no model; write one a line, FAMILY:CHECKPOINT.")
    return found


def _of_glob(word: str) -> list[str]:
    before, at, behind = word.partition("@")
    pattern, question, options = behind.partition("?")
    if not at and ":" not in word and has_magic(word):
        raise UsageError(
            f"model {word!r}: of which architecture? Write open_clip:ARCHITECTURE@{word}."
        )
    if not at or not has_magic(pattern) or Path(pattern).expanduser().exists():
        return [word]
    files = sorted(glob(str(Path(pattern).expanduser())), key=natural)
    if not files:
        folder = Path(pattern).expanduser().parent
        there = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
        hint = near_miss(Path(pattern).name, there) if folder.is_dir() else " No such folder."
        raise UsageError(f"model {word!r}: no file is called so in {folder}.{hint}")
    return [f"{before}@{file}{question}{options}" for file in files]
