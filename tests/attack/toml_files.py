"""Attack: task files and recipes of strangers: refused by one line, or shown as plain text.

Each of 78 hostile files goes through the commands that read such files: `tasks FILE`, `data status
FILE` and `data prepare FILE`, or `recipes FILE`.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from outcomes import Tally, command, main, tried, unprintable, workplace, written_outside
from PIL import Image

TASK = """
title = "Tiny"
suite = "mine"
group = "classification"
kind = "classification"
version = 1
headline = ["accuracy"]
chance = 50.0
paper = "none"
[subsets]
test = 4
[classes]
names = ["cat", "dog"]
[prompts.plain]
templates = ["a photo of a {}."]
[data]
reader = "columns"
sources = [{ url = "https://example.org/a.csv" }]
[data.options]
files = ["a.csv"]
"""
RECIPE = """
title = "Mine"
extends = "clip"
[settings]
batch_size = 8
[expected]
comp = 53.5
"""

Change = Callable[[str], str | bytes]


def put(old: str, new: str) -> Change:
    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, 1)

    return change


def text(raw: str | bytes) -> Change:
    return lambda _: raw


def more(line: str) -> Change:
    """A line below the last table."""
    return lambda text: f"{text}{line}\n"


def source(value: str) -> Change:
    return put('{ url = "https://example.org/a.csv" }', value)


DEEP = "a = " + "[" * 2000 + "]" * 2000
HEX = "0x" + "f" * 6000
TASKS: dict[str, Change] = {
    "empty": text(""),
    "no TOML": text("title ="),
    "a web page": text("<html></html>"),
    "no text": text(b"\xff\xfe\x00t"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "too large": lambda text: text + "#" * 33_000_000,
    "deep lists": lambda text: f"{DEEP}\n{text}",
    "deep keys": lambda text: "." .join(["a"] * 3000) + f" = 1\n{text}",
    "a number of many digits": put("version = 1", "version = " + "9" * 5000),
    "a number of many digits of 16": put("version = 1", f"version = {HEX}"),
    "many digits of 16 as a group": put('group = "classification"', f"group = {HEX}"),
    "many digits of 16 in a subset": put("test = 4", f"test = {HEX}"),
    "version negative": put("version = 1", "version = -1"),
    "a key twice": put('paper = "none"', 'paper = "none"\npaper = "two"'),
    "a key unknown": put('paper = "none"', 'papre = "none"'),
    "a key with an escape": put('paper = "none"', '"\\u001b[2J" = "none"'),
    "a title with an escape": put("Tiny", "\\u001b[2JTiny"),
    "a title of turned letters": put("Tiny", "\\u202eyniT"),
    "a title of two lines": put("Tiny", "Tiny\\nclassification  evil"),
    "a suite of two lines": put("mine", "mi\\nne"),
    "a suite with blanks around it": put("mine", " mine "),
    "a class with an escape": put('"dog"', '"do\\u0007g"'),
    "a subset with an escape": put("test = 4", '"te\\u001bst" = 4'),
    "a prompt set with an escape": put("[prompts.plain]", '[prompts."\\u001b[1m"]'),
    "title a number": put('"Tiny"', "3"),
    "title a date": put('"Tiny"', "1979-05-27"),
    "kind unknown": put('kind = "classification"', 'kind = "guess"'),
    "group unknown": put('group = "classification"', 'group = "best"'),
    "headline empty": put('["accuracy"]', "[]"),
    "headline unknown": put('["accuracy"]', '["acuracy"]'),
    "headline twice": put('["accuracy"]', '["accuracy", "accuracy"]'),
    "chance NaN": put("chance = 50.0", "chance = nan"),
    "chance infinite": put("chance = 50.0", "chance = inf"),
    "chance beyond": put("chance = 50.0", "chance = 101"),
    "chance of another": put("chance = 50.0", "chance = { text = 50.0 }"),
    "no subset": put("test = 4", ""),
    "a subset of nothing": put("test = 4", "test = 0"),
    "a subset of a text": put("test = 4", 'test = "4"'),
    "a subset beyond counting": put("test = 4", "test = 99999999999999999999999"),
    "a subset called headline": put("test = 4", "headline = 4"),
    "one class": put('["cat", "dog"]', '["cat"]'),
    "classes twice": put('["cat", "dog"]', '["cat", "cat"]'),
    "a class without a name": put('["cat", "dog"]', '["cat", ""]'),
    "a template without a place": put("a photo of a {}.", "a photo."),
    "a template of two places": put("a photo of a {}.", "a {} of a {}."),
    "no prompts": put('[prompts.plain]\ntemplates = ["a photo of a {}."]', ""),
    "a reader that is a path": put('"columns"', '"../../evil"'),
    "a reader that is a module": put('"columns"', '"os"'),
    "a reader of two lines": put('"columns"', '"col\\numns"'),
    "an option unknown": more("flies = 3"),
    "an option of another type": put('["a.csv"]', "3"),
    "files outside": put('["a.csv"]', '["../../../../etc/passwd"]'),
    "files of the system": put('["a.csv"]', '["/etc/passwd"]'),
    "a source that is a file": source('{ url = "file:///etc/passwd" }'),
    "a source without an address": source("{ url = 3 }"),
    "a source written outside": source('{ url = "https://example.org/a.csv", to = "../../x" }'),
    "a source of nowhere": source('{ to = "x" }'),
    "a Hub name that is a path": source('{ hf = "../../x", files = ["*"] }'),
    "images that are a path": source('{ images = "/etc" }'),
    "images of nobody": source('{ images = "../.." }'),
    "a sum of no digits": source('{ url = "https://example.org/a.csv", sha256 = "zz" }'),
}  # fmt: skip
RECIPES: dict[str, Change] = {
    "recipe empty of sense": text("= 3"),
    "recipe with a key unknown": put("title", "titel"),
    "recipe with an escape": put("Mine", "\\u001b]0;x\\u0007"),
    "recipe with a setting unknown": put("batch_size", "batchsize"),
    "recipe with a text as a number": put("batch_size = 8", 'batch_size = "8"'),
    "recipe with NaN": more('[reference]\nlearning_rate = nan'),
    "recipe with many digits of 16": put("batch_size = 8", f"batch_size = {HEX}"),
    "recipe with a wish beyond": put("53.5", "530"),
    "recipe with a wish of NaN": put("53.5", "nan"),
    "recipe that extends itself": put('"clip"', '"recipe.toml"'),
    "recipe that extends a path": put('"clip"', '"/etc/passwd.toml"'),
    "recipe that extends nobody": put('"clip"', '"clp"'),
    "recipe that extends a device": put('"clip"', '"/dev/zero"'),
    "recipe of deep lists": lambda text: f"{DEEP}\n{text}",
    "recipe with notes of numbers": put('title = "Mine"', 'title = "Mine"\nnotes = [3]'),
    "recipe with a reference unknown": more("[reference]\nbatchsize = 3"),
    "recipe with a reference of lists": more("[reference]\npairs = [1]"),
}  # fmt: skip
CASES = [
    *(("tiny.toml", TASK, name, change) for name, change in TASKS.items()),
    *(("recipe.toml", RECIPE, name, change) for name, change in RECIPES.items()),
]


def tried_with(file: Path, data: Path) -> str:
    """One word for how the commands that read such a file came out."""
    words = [["recipes", file]]
    if file.name == "tiny.toml":
        words = [["tasks", file], ["data", "status", file, "--data", data],
                 ["data", "prepare", file, "--data", data],
                 ["data", "link", file, data / "raw" / "tiny", "--data", "linked"]]  # fmt: skip
    codes = []
    for arguments in words:
        ran = command(*arguments)
        if ran.code is None:
            return "traceback"
        if unprintable(ran.out) or unprintable(ran.err):
            return "raw on the terminal"
        codes.append(ran.code)
        if ran.code and len([line for line in ran.err.splitlines() if line.strip()]) != 1:
            return "several lines"
    return "refused" if any(codes) else "silent"


def raw_data(folder: Path) -> None:
    """What the task's own file reads, so that nothing but the change can stop a command."""
    folder.mkdir(parents=True)
    rows = [("file_name", "label")]
    for number, label in enumerate(["cat", "dog", "cat", "dog"]):
        Image.new("RGB", (32, 24), (60 * number, 10, 20)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", label))
    (folder / "a.csv").write_text("".join(f"{a},{b}\n" for a, b in rows))


def attack(count: int = len(CASES), every: int = 1) -> Tally:
    cases = CASES[:: max(1, every)][:count]
    with workplace() as folder:
        raw_data(folder / "data" / "raw" / "tiny")

        def one(number: int) -> tuple[str, str]:
            name, whole, what, change = cases[number]
            changed = change(whole)
            file = folder / name
            file.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
            found = tried_with(file, folder / "data")
            file.unlink()
            shutil.rmtree(folder / "data" / "prepared", ignore_errors=True)
            if written_outside(folder):
                found = "written outside"
            return found, what

        return tried(len(cases), one)


if __name__ == "__main__":
    assert len(CASES) == 78 or os.environ.get("ANY"), len(CASES)
    main(attack, len(CASES))
