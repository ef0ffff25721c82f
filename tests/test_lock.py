"""Data from a Hub that moves: resolved at the first fetch, locked, refused elsewhere."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from draw_images import draw
from hub_server import Hub
from tars import write_tar
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.data import download, sources
from fsc_bench.data.get import get, status
from fsc_bench.data.lock import read_lock, write_lock
from fsc_bench.data.prepare import prepare
from fsc_bench.errors import DataError, UsageError
from fsc_bench.task import read_task

TREE = Path(__file__).parent.parent
TOKEN = "hf_aSecretOfTheUsers"
TASK = """
title = "{name}"
suite = "mine"
group = "{group}"
kind = "{kind}"
version = 1
headline = ["{metric}"]
chance = 50.0
{more}
[subsets]
{subset}
[data]
reader = "{reader}"
access = "{access}"
sources = [{sources}]
instructions = "1. By hand."
"""
CLASSES = """
[classes]
names = ["cat", "dog", "owl"]
[prompts.elevater]
templates = ["a photo of a {}."]
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.delenv("FSC_BENCH_DATA", raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Hub() as hub:
        hub.redirect(monkeypatch)
        yield hub


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        draw(folder / f"{number}.png", (24, 18))
    return [(folder / f"{number}.png").read_bytes() for number in range(5)]


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def task_of(folder, name, *places, reader="any_layout", subset="test = 5", access="open", more=""):
    kinds = {
        "any_layout": ("classification", "classification", "accuracy"),
        "karpathy": ("retrieval", "retrieval", "i2t_r1"),
    }
    group, kind, metric = kinds.get(reader, ("compositionality", "matching", "text"))
    if kind == "classification":
        more += CLASSES
    path = folder / f"{name}.toml"
    text = TASK
    facts = {
        "name": name, "group": group, "kind": kind, "metric": metric, "more": more,
        "subset": subset, "reader": reader, "access": access,
        "sources": ", ".join("{" + place + "}" for place in places),
    }  # fmt: skip
    for key, value in facts.items():
        text = text.replace("{" + key + "}", value)
    path.write_text(text)
    return read_task(path)


def shards(folder, pictures) -> dict[str, bytes]:
    """clip_benchmark's layout: five pictures of the classes 2, 0, 1, 1, 2."""
    members = {}
    for place, (picture, label) in enumerate(zip(pictures, (2, 0, 1, 1, 2), strict=True)):
        members |= {f"s{place:07d}.png": picture, f"s{place:07d}.cls": str(label).encode()}
    content = write_tar(folder / "shard.tar", members).read_bytes()
    return {"test/0.tar": content, "test/nshards.txt": b"1", "classnames.txt": b"cat\ndog\nowl\n"}


SHARDS = 'files = ["test/*.tar", "test/nshards.txt", "classnames.txt"]'


@pytest.fixture
def moving(hub, tmp_path, pictures):
    """A task without a pin, and its repository, whose first commit is there."""
    repository = hub.repository("org/flowers", shards(tmp_path, pictures))
    return task_of(tmp_path, "flowers", f'hf = "org/flowers", {SHARDS}'), repository


def only(outcomes):
    (outcome,) = outcomes
    return outcome


# ---------------------------------------------------------------- five families arrive


def test_miniatures_of_five_families_come_and_are_read(hub, tmp_path, pictures, monkeypatch):
    folder = tmp_path / "shipped" / "images"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sources, "tasks_folder", lambda: folder.parent)
    sources.sources.cache_clear()
    hub.files["val.zip"] = zipped({"val/a.png": pictures[0], "val/b.png": pictures[1]})
    (folder / "coco-val2017.toml").write_text(
        'name = "coco/val2017"\ntitle = "T"\nlicense = "L"\naccess = "open"\nlayout = "a zip"\n'
        f'sources = [{{ url = "{hub.url}/files/val.zip", inside = "val/" }}]\n'
    )
    coco = 'images = "coco/val2017"'
    rows = {"0": {"filename": "a.png", "caption": "a hat", "negative_caption": "a cat"}}
    hub.files["swap.json"] = json.dumps(rows).encode()
    captions = [{"image": "b.png", "caption": ["a cup", "a mug"]}]
    hub.files["test.json"] = json.dumps(captions).encode()
    pair = {"id": 7, "image_0": "a", "image_1": "b", "caption_0": "a b", "caption_1": "b a"}
    gated = hub.repository(
        "org/gated",
        {
            "data/examples.jsonl": json.dumps(pair).encode(),
            "data/images.zip": zipped({"images/a.png": pictures[0], "images/b.png": pictures[1]}),
        },
        token=TOKEN,
    )
    tar = hub.repository("org/tars", shards(tmp_path, pictures))
    inner = zipped(
        {f"test/{label}/{place}.png": pictures[place] for place, label in enumerate((2, 0, 1))}
        | {"label.txt": b"cat\ndog\nowl\n"}
    )
    hub.repository("org/all", {"all.zip": zipped({"all/pets.zip": inner, "x.zip": b"x" * 999})})
    options = '[data.options]\nfile = "test.json"\nimages = "coco/val2017"\n'
    gate = f'hf = "org/gated", revision = "{gated.newest}"'
    files = 'files = ["data/examples.jsonl", "data/images.zip"]'
    tasks = [
        task_of(tmp_path, "tars", f'hf = "org/tars", revision = "{tar.newest}", {SHARDS}'),
        task_of(
            tmp_path, "pets", 'hf = "org/all", files = ["all.zip::pets.zip"]', subset="test = 3"
        ),
        task_of(
            tmp_path, "swap", f'url = "{hub.url}/files/swap.json"', coco,
            reader="sugarcrepe", subset="swap = 1",
        ),
        task_of(
            tmp_path, "captions", f'url = "{hub.url}/files/test.json"', coco,
            reader="karpathy", subset="test = 1", more=options,
        ),
        task_of(
            tmp_path, "wino", f"{gate}, {files}",
            reader="winoground", subset="all = 1", access="gated",
        ),
    ]  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    outcomes = get(tasks, tmp_path / "d")

    assert [(one.name, one.state) for one in outcomes if one.name != "coco/val2017"] == [
        (name, "ready") for name in ("tars", "pets", "swap", "captions", "wino")
    ], [one.message for one in outcomes]
    read = {task.name: prepare(task, tmp_path / "d") for task in tasks}
    assert [row.labels for row in read["tars"].records] == [(2,), (0,), (1,), (1,), (2,)]
    assert sorted(row.labels for row in read["pets"].records) == [(0,), (1,), (2,)]
    assert [len(read[name].records) for name in ("swap", "captions", "wino")] == [1, 1, 1]
    # Of what has a pin nothing is said; what has none is in every result, by its version.
    sha = hashlib.sha256(hub.files["swap.json"]).hexdigest()
    images = hashlib.sha256(hub.files["val.zip"]).hexdigest()
    newest = hub.repositories["org/all"].newest
    assert read["tars"].notes == read["wino"].notes == ()
    assert read["pets"].notes == (f"resolved at the first fetch: hf:org/all at {newest}",)
    assert read["swap"].notes == (
        f"resolved at the first fetch: {hub.url}/files/swap.json at sha256 {sha}",
        f"resolved at the first fetch: {hub.url}/files/val.zip at sha256 {images}",
    )
    sources.sources.cache_clear()


PAIR = {"id": 7, "image_0": "a", "image_1": "b", "caption_0": "a b", "caption_1": "b a"}
LABELS = (2, 0, 1)
OWN_PICTURES = '[data.options]\nfile = "test.json"\nimages = "."\n'


def parquet(pictures) -> bytes:
    buffer = io.BytesIO()
    rows = {"image": [{"bytes": one, "path": None} for one in pictures[:3]], "label": list(LABELS)}
    pq.write_table(pa.table(rows), buffer)
    return buffer.getvalue()


def all_zip(pictures) -> bytes:
    folders = {f"test/{label}/{place}.png": pictures[place] for place, label in enumerate(LABELS)}
    return zipped({"pets.zip": zipped(folders | {"label.txt": b"cat\ndog\nowl\n"}), "x": b"x"})


def captioned(pictures) -> dict[str, bytes]:
    rows = [{"image": f"{place}.png", "caption": ["a cup", f"mug {place}"]} for place in (0, 1)]
    return {"test.json": json.dumps(rows).encode(), "0.png": pictures[0], "1.png": pictures[1]}


def pairs(pictures) -> dict[str, bytes]:
    images = zipped({f"images/{name}.png": one for name, one in zip("ab", pictures, strict=False)})
    return {"data/examples.jsonl": json.dumps(PAIR).encode(), "data/images.zip": images}


# family -> (files that are asked for, what a repository holds of pictures, what the task says)
FAMILIES = {
    "matching JSON": (
        '"data/examples.jsonl", "data/images.zip"', pairs,
        {"reader": "winoground", "subset": "all = 1"},
    ),
    "Parquet columns": (
        '"data/*.parquet"', lambda pictures: {"data/test-0.parquet": parquet(pictures)},
        {"subset": "test = 3"},
    ),
    "tars": (SHARDS[9:-1], None, {}),
    "zip archive": (
        '"all.zip::pets.zip"', lambda pictures: {"all.zip": all_zip(pictures)},
        {"subset": "test = 3"},
    ),
    "retrieval": (
        '"test.json", "*.png"', captioned,
        {"reader": "karpathy", "subset": "test = 2", "more": OWN_PICTURES},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_gated_resolved_locked_refused_and_taken_from_the_next_place(
    hub, tmp_path, pictures, monkeypatch, family
):
    asked, content, more = FAMILIES[family]
    content = content or (lambda pictures: shards(tmp_path, pictures))
    first = hub.repository("org/first", content(pictures), token=TOKEN)
    at = first.newest
    second = hub.repository("org/second", content(pictures), token=TOKEN)
    places = [f'hf = "org/{name}", files = [{asked}]' for name in ("first", "second")]
    task = task_of(tmp_path, "mine", *places, access="gated", **more)

    refused = only(get([task], tmp_path / "one"))
    assert refused.state == "gated" and hub.asked == []
    assert "mine: needs an account: accept its terms at" in refused.message

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    came = only(get([task], tmp_path / "one"))
    assert came.ok and came.message == (
        f"mine: org/first: no commit is known; the newest, {at}, is taken, now and later."
    )
    read = prepare(task, tmp_path / "one")
    assert read.notes == (f"resolved at the first fetch: hf:org/first at {at}",)
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")

    moved = first.push(content(pictures[::-1]))
    assert only(get([task], tmp_path / "two", lock=read_lock(lock))).ok
    assert prepare(task, tmp_path / "two").records == read.records
    get([task], tmp_path / "three")
    refused = only(get([task], tmp_path / "three", lock=read_lock(lock)))
    assert not refused.ok and "\n" not in refused.message
    assert f"was fetched at {moved}, and {lock} has {at}." in refused.message

    first.gone |= set(first.commits[moved])
    came = only(get([task], tmp_path / "four"))
    lines = came.message.splitlines()
    assert came.ok and lines[0].startswith("mine: org/first: ") and "404" in lines[0]
    assert lines[0].endswith("hf:org/second is taken instead.")
    assert lines[1].startswith("mine: org/second: no commit is known; the newest, ")
    assert second.newest in lines[1]
    assert len(prepare(task, tmp_path / "four").records) == len(read.records)


# ---------------------------------------------------------------- resolved, then kept


def test_a_source_without_a_commit_is_resolved_once_said_and_kept(moving, tmp_path, pictures):
    task, repository = moving
    data, first = tmp_path / "d", repository.newest

    outcome = only(get([task], data))

    assert outcome.ok
    assert outcome.message == (
        f"flowers: org/flowers: no commit is known; the newest, {first}, is taken, now and later."
    )
    marker = json.loads((data / "raw/flowers/.org--flowers.done.json").read_text())
    tar = repository.commits[first]["test/0.tar"]
    assert (marker["commit"], marker["resolved"]) == (first, True)
    assert marker["files"]["test/0.tar"] == [len(tar), hashlib.sha256(tar).hexdigest()]
    assert only(status([task], data)).next == f"fsc-bench data prepare flowers --data {data}"

    # The Hub has moved on: what was taken stays, and is what a second fetch brings back.
    repository.push(shards(tmp_path, pictures[::-1]))
    (data / "raw/flowers/test/0.tar").unlink()
    again = only(get([task], data))
    assert (again.ok, again.message) == (True, "")
    assert (data / "raw/flowers/test/0.tar").read_bytes() == tar


def test_an_interrupted_first_fetch_goes_on_at_its_commit(moving, hub, tmp_path, pictures):
    task, repository = moving
    first = repository.newest
    repository.gone.add("classnames.txt")
    outcome = only(get([task], tmp_path / "d"))
    assert not outcome.ok and "classnames.txt" in outcome.message

    repository.gone.clear()
    repository.push({"classnames.txt": b"other"})
    repository.breaks["classnames.txt"] = 1
    assert only(get([task], tmp_path / "d")).ok
    marker = json.loads((tmp_path / "d/raw/flowers/.org--flowers.done.json").read_text())
    assert marker["commit"] == first
    asked = [path for how, path, *_ in hub.asked if how == "GET" and path.endswith("0.tar")]
    assert len(asked) == 1  # what had come is not asked for twice


def test_a_download_that_breaks_off_is_continued_by_a_range(moving, hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what it keeps is whole chunks
    task, repository = moving
    content = repository.commits[repository.newest]["test/0.tar"]
    repository.breaks["test/0.tar"] = 1

    assert only(get([task], tmp_path / "d")).ok
    ranges = [wanted for how, path, wanted, _ in hub.asked if how == "GET" and "0.tar" in path]
    assert ranges == [None, f"bytes={len(content) // 3 // 1024 * 1024}-"]
    assert (tmp_path / "d/raw/flowers/test/0.tar").read_bytes() == content


def test_a_download_starts_no_thread_that_waits_for_the_bars_lock(moving, tmp_path):
    """A bar that the garbage collector closed in tqdm's own thread could wait for ever."""

    def watching():
        return sum(type(thread).__name__ == "TMonitor" for thread in threading.enumerate())

    before = watching()
    assert only(get([moving[0]], tmp_path / "d")).ok
    assert watching() == before


def test_an_unpinned_address_that_changed_is_said(hub, tmp_path):
    hub.files["a.json"] = b"old"
    task = task_of(tmp_path, "mine", f'url = "{hub.url}/files/a.json"', reader="sugarcrepe")
    get([task], tmp_path / "d")
    (tmp_path / "d/raw/mine/a.json").unlink()
    hub.files["a.json"] = b"new"

    message = only(get([task], tmp_path / "d")).message

    old, new = (hashlib.sha256(content).hexdigest() for content in (b"old", b"new"))
    assert f"a.json has changed: sha256 {new}, and {old} when it was fetched before" in message


# ---------------------------------------------------------------- lock


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_a_lock_makes_two_machines_equal_though_the_hub_moved(moving, tmp_path, pictures, ending):
    task, repository = moving
    first = repository.newest
    get([task], tmp_path / "one")
    lock = tmp_path / f"lock.{ending}"
    write_lock(lock, [task], tmp_path / "one")
    repository.push(shards(tmp_path, pictures[::-1]))

    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))

    assert (outcome.ok, outcome.message) == (True, "")
    tars = [(tmp_path / machine / "raw/flowers/test/0.tar") for machine in ("one", "two")]
    assert tars[0].read_bytes() == tars[1].read_bytes()
    assert only(get([task], tmp_path / "two", lock=read_lock(lock))).ok
    other = tmp_path / f"other.{ending}"
    write_lock(other, [task], tmp_path / "two")
    assert other.read_bytes() == lock.read_bytes()
    load = tomllib.loads if ending == "toml" else json.loads
    (source,) = load(lock.read_text())["sources"]
    assert (source["hf"], source["commit"], source["pinned"]) == ("org/flowers", first, False)
    tar = repository.commits[first]["test/0.tar"]
    assert {
        "name": "test/0.tar", "bytes": len(tar), "sha256": hashlib.sha256(tar).hexdigest()
    } in source["files"]  # fmt: skip


def test_what_was_fetched_at_another_commit_is_refused(moving, tmp_path, pictures):
    task, repository = moving
    first = repository.newest
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    second = repository.push(shards(tmp_path, pictures[::-1]))
    get([task], tmp_path / "two")

    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))

    assert not outcome.ok
    assert outcome.message == (
        f"flowers: hf:org/flowers was fetched at {second}, and {lock} has {first}. Delete "
        f"{tmp_path / 'two/raw/flowers'}, then get it again with --locked."
    )


def test_a_commit_that_the_hub_has_no_more_and_a_source_that_no_lock_names(moving, tmp_path):
    task, repository = moving
    first = repository.newest
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    repository.commits.clear()
    repository.push({"test/0.tar": b"other"})
    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))
    assert f"flowers: org/flowers has no commit {first} (any more)." in outcome.message

    more = task_of(tmp_path, "more", f'hf = "org/more", {SHARDS}')
    outcome = only(get([more], tmp_path / "one", lock=read_lock(lock)))
    assert not outcome.ok
    assert outcome.message == (
        f"more: {lock} does not name hf:org/more. Lock it where it was fetched (`fsc-bench data "
        "lock FILE`), or get it without --locked."
    )


def test_a_file_of_the_users_that_is_not_the_locked_one_is_refused_and_left(hub, tmp_path):
    hub.files["a.json"] = b"old"
    task = task_of(tmp_path, "mine", f'url = "{hub.url}/files/a.json"', reader="sugarcrepe")
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    mine = tmp_path / "two/raw/mine/a.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert only(get([task], tmp_path / "two")).ok  # without a lock a user's file is used

    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))

    old, own = (hashlib.sha256(content).hexdigest() for content in (b"old", b"mine"))
    assert not outcome.ok and mine.read_bytes() == b"mine"
    assert f"has sha256 {own}, not the pinned {old}. Move it away" in outcome.message


def test_other_content_than_the_lock_names_is_refused_and_not_kept(hub, tmp_path):
    hub.files["a.json"] = b"old"
    task = task_of(tmp_path, "mine", f'url = "{hub.url}/files/a.json"', reader="sugarcrepe")
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    hub.files["a.json"] = b"new!"

    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))

    old, new = (hashlib.sha256(content).hexdigest() for content in (b"old", b"new!"))
    assert not outcome.ok and f"has sha256 {new}, not the pinned {old}" in outcome.message
    assert not (tmp_path / "two/raw/mine/a.json").exists()


def test_a_repositorys_file_of_another_hash_is_refused_and_not_kept(moving, tmp_path):
    task, repository = moving
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.json"
    write_lock(lock, [task], tmp_path / "one")
    tar = repository.commits[repository.newest]["test/0.tar"]
    repository.commits[repository.newest]["test/0.tar"] = tar[:-1] + b"!"

    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))

    right = hashlib.sha256(tar).hexdigest()
    assert not outcome.ok
    assert f"and the lock file has sha256 {right} ({len(tar):,} bytes)" in outcome.message
    assert not (tmp_path / "two/raw/flowers/test/0.tar").exists()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("schema = 1", "schema = 9", "schema = 9 is not known; this version reads 1."),
        ('commit = "', 'commit = "x', "is not the 40 digits 0-9a-f of a commit."),
        ('name = "test/0.tar"', 'name = "../0.tar"', "files has '../0.tar', which leads out"),
        ("pinned = false", "pinned = 3", "pinned"),
    ],
)
def test_a_lock_file_that_is_none_is_one_line(moving, tmp_path, old, new, line):
    task, _ = moving
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    text = lock.read_text()
    assert old in text
    lock.write_text(text.replace(old, new))

    with pytest.raises(UsageError) as caught:
        read_lock(lock)
    assert line in str(caught.value) and str(lock) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_linked_is_outside_a_lock_and_said(moving, tmp_path):
    from fsc_bench.data.images import write_link
    from fsc_bench.data.lock import check_held

    task, _ = moving
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    write_link(tmp_path / "two", "flowers", tmp_path / "one/raw/flowers")

    outcome = only(get([task], tmp_path / "two", lock=read_lock(lock)))

    assert not outcome.ok and f"of which {lock} says nothing" in outcome.message
    with pytest.raises(UsageError, match="nothing that was named has been fetched"):
        write_lock(tmp_path / "none.toml", [task], tmp_path / "two")
    check_held(task, tmp_path / "one", read_lock(lock))
    with pytest.raises(DataError, match="is not there as"):
        check_held(task, tmp_path / "three", read_lock(lock))


# ---------------------------------------------------------------- gates and mirrors


def test_a_gate_says_in_one_line_how_to_pass_and_no_token_is_shown(hub, tmp_path, monkeypatch):
    files = {"data/a.jsonl": b"{}"}
    repository = hub.repository("org/gated", files, token=TOKEN)
    place = f'hf = "org/gated", revision = "{repository.newest}", files = ["data/a.jsonl"]'
    task = task_of(tmp_path, "wino", place, access="gated", reader="winoground", subset="all = 1")
    accept = (
        f"accept its terms at {hub.url}/datasets/org/gated with your account, then "
        "`hf auth login` (or put the token into $HF_TOKEN)"
    )

    outcome = only(get([task], tmp_path / "d"))
    assert outcome.state == "gated" and hub.asked == []
    assert f"wino: needs an account: {accept}." in outcome.message.splitlines()

    monkeypatch.setenv("HF_TOKEN", "hf_ofSomebodyElse")
    message = only(get([task], tmp_path / "d")).message
    first = message.splitlines()[0]
    assert first == f"wino: org/gated is gated and your account may not read it yet: {accept}."
    assert "hf_ofSomebodyElse" not in message

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert only(get([task], tmp_path / "d")).ok
    assert {who for *_, who in hub.asked} == {f"Bearer {TOKEN}", "Bearer hf_ofSomebodyElse"}
    kept = [path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()]
    assert kept and not any(TOKEN.encode() in content for content in kept)


def test_a_file_that_is_gone_is_taken_from_the_next_place_and_said(hub, tmp_path, pictures):
    files = shards(tmp_path, pictures)
    hub.repository("org/first", files).gone.add("test/nshards.txt")
    second = hub.repository("org/second", files)
    task = task_of(
        tmp_path, "two", f'hf = "org/first", {SHARDS}',
        f'hf = "org/second", revision = "{second.newest}", {SHARDS}, differs = "other split"',
    )  # fmt: skip

    outcome = only(get([task], tmp_path / "d"))

    gone, differs = outcome.message.splitlines()
    assert outcome.ok and gone.startswith("two: org/first: ") and "404" in gone
    assert gone.endswith("hf:org/second is taken instead.")
    assert differs == "two: other split."

    hub.files["b.json"] = b"{}"
    urls = [f'url = "{hub.url}/files/{name}.json", to = "x.json"' for name in ("a", "b")]
    outcome = only(get([task_of(tmp_path, "web", *urls, reader="sugarcrepe")], tmp_path / "d"))
    assert outcome.ok and (tmp_path / "d/raw/web/x.json").read_bytes() == b"{}"
    assert outcome.message == (
        f"web: {hub.url}/files/a.json answers 404 Not Found. {hub.url}/files/b.json is taken "
        "instead."
    )


def test_the_command_line_locks_and_refuses(moving, hub, tmp_path, pictures):
    task, repository = moving

    def bench(*words):
        environment = {
            **os.environ, "PYTHONPATH": str(TREE), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0",
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "fsc_bench", "data", *map(str, words)],
            env=environment, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip

    dry = bench("get", task.path, "--data", "one", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "hf:org/flowers (resolved)" in dry.stdout and "Nothing was fetched." in dry.stdout
    assert hub.asked == []
    get([task], tmp_path / "one")
    locked = bench("lock", "lock.toml", task.path, "--data", "one")
    assert locked.stdout == "Written: lock.toml: 1 sources of 1 tasks and image sources.\n"
    repository.push(shards(tmp_path, pictures[::-1]))
    get([task], tmp_path / "two")
    refused = bench("get", task.path, "--data", "two", "--locked", "lock.toml")
    assert refused.returncode == 3 and refused.stderr.count("\n") == 1
    assert f"was fetched at {repository.newest}, and lock.toml has" in refused.stderr


def test_a_run_is_held_to_a_lock_and_says_so(moving, hub, tmp_path, pictures):
    task, repository = moving
    get([task], tmp_path / "one")
    lock = tmp_path / "lock.toml"
    write_lock(lock, [task], tmp_path / "one")
    repository.push(shards(tmp_path, pictures[::-1]))
    get([task], tmp_path / "two")

    def bench(data, *words):
        place = ["--data", str(tmp_path / data), "-o", str(tmp_path / f"runs-{data}")]
        model = ["-m", "control:chance", "-t", str(tmp_path / "flowers.toml")]
        return CliRunner().invoke(app, ["run", *model, *place, *words])

    held = bench("one", "--locked", str(lock))
    assert held.exit_code == 0, held.stderr
    (file,) = (tmp_path / "runs-one").glob("*/run.json")
    said = {"file": "lock.toml", "sha256": read_lock(lock).sha256}
    assert json.loads(file.read_text())["locked"] == {"flowers": said}
    assert bench("two").exit_code == 0
    (file,) = (tmp_path / "runs-two").glob("*/run.json")
    assert "locked" not in json.loads(file.read_text())

    refused = bench("two", "--locked", str(lock))
    assert refused.exit_code == 3
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("fsc-bench: ")]
    assert f"was fetched at {repository.newest}, and {lock} has" in line
    lock.write_text("schema = 1")
    damaged = bench("one", "--locked", str(lock))
    assert damaged.exit_code == 2 and damaged.stderr.count("\n") == 1


def test_a_zip_on_the_hub_that_is_none_or_is_closed_to_you_is_one_line(hub, tmp_path):
    """Its members are read by ranges; zipfile would call every refusal a damaged archive."""
    whole = zipped({"pets.zip": b"x" * 999})
    closed = hub.repository("org/closed", {"all.zip": whole}, token=TOKEN)
    hub.repository("org/torn", {"all.zip": whole[:-30]})
    place = 'hf = "org/{}", files = ["all.zip::pets.zip"]'
    said = [
        only(get([task_of(tmp_path, name, place.format(name))], tmp_path / "d")).message
        for name in ("closed", "torn")
    ]

    assert closed.token and f"accept its terms at {hub.url}/datasets/org/closed" in said[0]
    line = "torn: org/torn: all.zip: not a readable zip archive (File is not a zip file)."
    assert line in said[1].splitlines()
