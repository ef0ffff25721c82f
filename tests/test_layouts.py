"""What people have on disk is read where it lies: every layout of the table in miniature.

`python tests/layouts_table.py` prints the table. Classes are compared picture by picture, by
pixels, with what was laid, and where torchvision or `datasets` read the same files, with theirs.
"""

import gc
import os
import re
import shutil
import sys
from dataclasses import replace

import layouts_own  # noqa: F401  registers its layouts
import layouts_several  # noqa: F401
import pytest
from fuzz_raw import fuzz
from layouts import (
    FSC,
    LAYOUTS,
    digest,
    encoded,
    expected,
    noise,
    read_by_others,
    shown,
    try_layout,
    write,
    write_zip,
)
from tars import write_tar

from fsc_bench.data.folders import remember, unchanged
from fsc_bench.data.images import Images, write_link
from fsc_bench.data.link import in_hub_cache, link, look
from fsc_bench.data.pixels import decode
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.data.sources import sources
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import ImageRef
from fsc_bench.task import catalogue


@pytest.mark.parametrize("one", LAYOUTS, ids=str)
def test_a_layout_is_read_as_it_lies_or_refused_with_the_reason(one, tmp_path):
    found = try_layout(one, tmp_path)
    if one.refused:
        assert one.refused in found.line and found.records == 0
        assert "\n" not in found.line
        return
    assert found.line == ""
    assert found.classes == expected(one.task)
    assert found.records == len(expected(one.task))
    if one.theirs:
        assert read_by_others(one, tmp_path) == found.classes


def test_each_of_the_21_and_the_3_has_layouts_that_are_read():
    read = {
        name: {one.name for one in LAYOUTS if one.task == name and not one.refused} for name in FSC
    }
    assert {name: len(found) for name, found in read.items() if found} == {
        name: len(found) for name, found in read.items() if FSC[name].group != "compositionality"
    }
    assert min(len(found) for name, found in read.items() if FSC[name].classes) >= 4


# ---------------------------------------------------------------- read by `datasets`


# `datasets` leaves metadata.csv to the garbage collector; the test waits for it.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
def test_parquet_and_imagefolder_are_read_as_datasets_reads_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    for name in ("Parquet of the Hub", "imagefolder with metadata.csv"):
        (one,) = (one for one in LAYOUTS if one.task == "dtd" and one.name == name)
        found = try_layout(one, tmp_path / name)
        linked = tmp_path / name / "linked"
        kind, files = "imagefolder", {"data_dir": str(linked)}
        if name.startswith("Parquet"):
            kind, files = "parquet", {"data_files": {"test": str(linked / "data" / "test-*")}}
        theirs = datasets.load_dataset(kind, split="test", cache_dir=str(tmp_path / "c"), **files)
        named = getattr(theirs.features["label"], "int2str", str)
        assert {digest(row["image"]): named(row["label"]) for row in theirs} == found.classes
        del theirs
        gc.collect()


# ---------------------------------------------------------------- the 11: wherever the files lie


def records_of(task, folder):
    raw = Raw(task, folder)
    return list(load_reader(task.data.reader, task.name).read(task, raw))


COMPOSITIONALITY = [name for name, task in FSC.items() if task.group == "compositionality"]


def lay_in_the_hubs_cache(plain, repository):
    """The files of a folder as links to blobs, with a byte-order mark and a Mac's leavings."""
    for number, path in enumerate(sorted(path for path in plain.rglob("*") if path.is_file())):
        content = path.read_bytes()
        below = path.relative_to(plain)
        if path.suffix in (".json", ".csv", ".txt"):
            content = b"\xef\xbb\xbf" + content
        blob = write(repository / "blobs" / str(number), content)
        place = repository / "snapshots" / ("d4" * 20) / below
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blob, place.parent))
        write(place.with_name(f"._{place.name}"), b"\0\5\x16\7")
    write(repository / "refs" / "main", "d4" * 20)


@pytest.mark.parametrize("name", COMPOSITIONALITY)
def test_annotations_are_the_same_packed_with_a_mark_and_in_the_hubs_cache(name, drawn, tmp_path):
    task = catalogue()[f"demo_{name}"]
    plain = drawn / "raw" / task.name
    whole = records_of(task, plain)
    assert len(whole) > 10
    lay_in_the_hubs_cache(plain, tmp_path / f"datasets--org--{name}")
    assert records_of(task, in_hub_cache(task.name, (), tmp_path)) == whole


# ---------------------------------------------------------------- pictures that tasks share


def lay_pictures(kind: str, folder, source, files: dict[str, bytes]):
    """What a user has of an image source; returns what is linked."""
    last = source.name.rpartition("/")[2]
    wrap = next(iter([*(s["inside"] for s in source.sources if "inside" in s), *source.inside]), "")
    wraps = {"as it is": "", "its parent": f"{last}/", "in images/": f"images/{last}/"}
    wraps |= {"zip": "", "zip, wrapped": wrap or f"{last}/", "Mac's zip": f"{last}/", "tar": "./"}
    wraps |= {"zip in a folder": wrap}
    named = {f"{wraps[kind]}{name}": content for name, content in files.items()}
    if kind == "Mac's zip":
        named |= {f"__MACOSX/{wraps[kind]}._{n.rpartition('/')[2]}": b"\0" for n in files}
    if kind == "tar":
        return write_tar(folder / "pictures.tar", named)
    if "zip" in kind:
        path = write_zip(folder / "pictures.zip", named)
        return folder if kind == "zip in a folder" else path
    for name, content in named.items():
        write(folder / name, content)
        write((folder / name).with_name(f"._{name.rpartition('/')[2]}"), b"\0\5\x16\7")
    write(folder / ".DS_Store", b"Bud1")
    return folder


PLACES = ("as it is", "its parent", "in images/", "zip", "zip, wrapped", "Mac's zip", "tar",
          "zip in a folder")  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_pictures_that_tasks_share_are_found_in_every_usual_place(kind, tmp_path):
    # coco/2017 is a folder of two folders, each a source of its own.
    known = [s for s in sources().values() if s.evidence.known and s.name != "coco/2017"]
    assert len(known) > 8
    for source in known:
        place = tmp_path / source.name.replace("/", "-")
        content = encoded(noise("dtd", 1)[0])
        names = source.evidence.known
        place.mkdir()
        linked = lay_pictures(kind, place, source, {name: content for name in names})
        said = look(None, source, linked, tmp_path / "data")
        assert said.startswith(f"{len(names)} pictures"), source.name
        write_link(tmp_path / "data", source.name, linked)
        images = Images(tmp_path / "data")
        assert all(images.content("t", ImageRef(source.name, n)) == content for n in names)


# ---------------------------------------------------------------- the Hub's cache


def test_of_several_repositories_in_the_hubs_cache_the_task_files_own_is_read(tmp_path):
    for name in ("datasets--org--other", "datasets--uoft-cs--cifar10", "models--openai--clip"):
        write(tmp_path / name / "refs" / "main", "x")
    task = FSC["cifar10"]
    assert in_hub_cache("cifar10", task.data.sources, tmp_path).name == "datasets--uoft-cs--cifar10"
    with pytest.raises(
        DataError, match=r"of 2 data sets .*; link the folder of the one to be read"
    ):
        in_hub_cache("dtd", FSC["dtd"].data.sources, tmp_path)
    shutil.rmtree(tmp_path / "datasets--org--other")
    only = in_hub_cache("dtd", FSC["dtd"].data.sources, tmp_path)
    assert only.name == "datasets--uoft-cs--cifar10", "the only one; its evidence says what it is"


# ---------------------------------------------------------------- one file that is linked


def test_a_list_that_is_linked_stands_for_its_folder(tmp_path):
    (one,) = (one for one in LAYOUTS if str(one) == "hateful_memes: its archive, unpacked")
    one.make(tmp_path / "memes", shown("hateful_memes"))
    word, file = "hateful_memes", tmp_path / "memes" / "dev_seen.jsonl"
    assert f"hateful_memes -> {tmp_path / 'memes'}: 7 records" in link(
        word, file, tmp_path / "data"
    )
    with pytest.raises(
        DataError, match=r"examples\.jsonl or .* is looked for; link the folder that"
    ):
        link("winoground", file, tmp_path / "data")


def test_a_refusal_names_what_the_task_can_be_read_from_and_no_module_of_ours(tmp_path):
    write(tmp_path / "notes.txt", "hello")
    with pytest.raises(DataError) as caught:
        records_of(FSC["stanford_cars"], tmp_path)
    line = str(caught.value)
    assert "it holds 'notes.txt'" in line and "MATLAB files of labels" in line
    assert "CIFAR" not in line and "IDX" not in line
    assert not {"any_layout", "mat_list", "image_folder", "image_list", "columns"} & set(
        re.findall(r"\w+", line)
    )


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    (one,) = (one for one in LAYOUTS if str(one) == "patchcamelyon: torchvision's folder, HDF5")
    one.make(tmp_path, shown("patchcamelyon"))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"_x\.h5: cannot be read: needs h5py: `pip install 'fsc"):
        records_of(FSC["patchcamelyon"], tmp_path)


# ---------------------------------------------------------------- what came is not the data

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4321\n"
PAGE = b"\n<!DOCTYPE html><html>log in</html>"


@pytest.mark.parametrize(
    ("word", "name", "content", "said"),
    [
        ("winoground", "data/examples.jsonl", POINTER, "is a Git LFS pointer, not the file"),
        ("sugarcrepe", "replace_obj.json", PAGE, "is a web page, not the file"),
        ("dtd", "data/test-0.parquet", POINTER, "is a Git LFS pointer, not the file"),
        ("dtd", "test/0.tar", POINTER, "damaged: a Git LFS pointer"),
        ("dtd", "dtd.zip", PAGE, "damaged: a web page"),
        ("dtd", "dtd.zip", b"PK\3\4 half", "damaged: cut short"),
        ("dtd", "dtd.7z", b"7z", "`7z x dtd.7z` unpacks it"),
        ("winoground", "wino.rar", b"Rar!", "`unrar x wino.rar` unpacks it"),
        ("coco_karpathy", "coco.tar.xz", b"", "`tar -xf coco.tar.xz` unpacks it"),
        ("dtd", "a/dtd.zip.part", b"PK", "a/dtd.zip.part is a download that did not end"),
        ("cifar10", "cifar-10-batches-py/data_batch_1", b"", "-py/' with 'data_batch_1'. Expected"),
    ],
)
def test_a_file_that_is_not_the_data_itself_is_named_with_what_to_do(
    word, name, content, said, tmp_path
):
    write(tmp_path / "linked" / name, content)
    line = link(word, tmp_path / "linked", tmp_path / "data")
    assert f"linked, but it cannot be read yet: {word}: " in line and said in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("val2017.zip", POINTER, "damaged: a Git LFS pointer"),
        ("val2017.zip.part", b"PK", "holds no pictures. val2017.zip.part is a download that did"),
        ("val2017.rar", b"Rar!", "holds no pictures. val2017.rar is a packed archive"),
    ],
)
def test_of_pictures_that_are_not_there_yet_the_line_says_why(name, content, said, tmp_path):
    write(tmp_path / "linked" / name, content)
    with pytest.raises(DataError, match=re.escape(said)):
        link("coco/val2017", tmp_path / "linked", tmp_path / "data")


def test_a_picture_that_is_a_pointer_is_said_to_be_one():
    with pytest.raises(DataError, match=r"cat\.png: not a readable image: a Git LFS pointer, not"):
        decode(POINTER, "cat.png")


def test_links_that_lead_round_in_a_circle_are_passed_over(tmp_path):
    """`test/loop` made two folders of classes of one; `self` had a traceback."""
    (one,) = (one for one in LAYOUTS if str(one) == "dtd: folders by name, train beside")
    linked = tmp_path / "linked"
    linked.mkdir()
    one.make(linked, shown("dtd"))
    (linked / "test" / "loop").symlink_to(linked)
    (linked / "self").symlink_to(linked / "self")
    assert "-> " in link("dtd", linked, tmp_path / "data")
    assert len(records_of(FSC["dtd"], linked)) == 7
    first = remember(linked)
    assert sorted(first)[:2] == ["", "test"] and unchanged(linked, first)
    with pytest.raises(UsageError, match=r"self: there is no such folder or archive"):
        link("dtd", linked / "self", tmp_path / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize("closed", ["linked", "linked/dtd"])
def test_a_folder_that_is_closed_to_us_is_not_called_empty(closed, tmp_path):
    write(tmp_path / "linked" / "dtd" / "0.png", b"x")
    (tmp_path / closed).chmod(0)
    try:
        with pytest.raises(DataError, match=rf"{closed}: cannot be read: Permission denied\."):
            link("dtd", tmp_path / "linked", tmp_path / "data")
    finally:
        (tmp_path / closed).chmod(0o755)


# ---------------------------------------------------------------- damage

DAMAGED = {
    "patchcamelyon: torchvision's folder, HDF5": ("*_x.h5", "*_y.h5"),
    "mnist: Keras' mnist.npz": ("mnist.npz",),
    "mnist: CSV with a header": ("mnist_test.csv",),
    "imagenet1k: the development kit and val/": ("meta.mat", "ILSVRC2012_validation_*.txt"),
    "cifar10: imagefolder with metadata.csv": ("metadata.csv",),
    "coco_karpathy: Karpathy's own JSON": ("dataset_coco.json",),
    "coco_karpathy: coco_test_karpathy.json of CLIP_benchmark": ("coco_test_karpathy.json",),
    "flickr30k: a mirror's zip and CSV": ("flickr_annotations_30k.csv",),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_read_or_refused_in_one_line(name, tmp_path):
    (one,) = (one for one in LAYOUTS if str(one) == name)
    linked = tmp_path / "linked"
    linked.mkdir()
    one.make(linked, shown(one.task))
    task = replace(FSC[one.task], subsets={"test": len(shown(one.task))}, counts={})
    read = load_reader(task.data.reader, task.name).read
    for pattern in DAMAGED[name]:
        (path,) = linked.rglob(pattern)
        count = 40 if one.task == "imagenet1k" else 100
        found = fuzz(task, linked, str(path.relative_to(linked)), read, count=count)
        assert found["refused"] > count / 5
