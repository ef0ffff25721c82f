"""Labels and names that could mean two things: evidence decides, or both readings are refused.

Each picture is called after the class that it shows, so that the expected labels can be read off.
"""

import csv
import io
import json
import struct
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tars import write_tar

from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.images import Images, write_link
from fsc_bench.data.labels import Labels
from fsc_bench.data.listing import split_words
from fsc_bench.data.names import Names, is_junk, normal
from fsc_bench.data.prepare import prepare
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.errors import DataError
from fsc_bench.records import OWN, ImageRef
from fsc_bench.task import read_task, tasks_folder

COLOURS = ("red", "green", "blue", "yellow", "pink")
TASK = """
title = "Mine"
suite = "own"
group = "classification"
kind = "classification"
version = 1
headline = ["accuracy"]
chance = 20.0
[subsets]
s = 4
[classes]
names = {names}
{more}
[data]
reader = "{reader}"
access = "open"
sources = []
[data.options]
{options}
[prompts.p]
templates = ["a {{}}."]
"""
PAIRS = """
title = "Pairs"
suite = "own"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
within = "samples"
[subsets]
s = 1
[data]
reader = "columns"
access = "open"
sources = []
options = { images = "file", texts = ["right", "wrong"] }
"""


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def own_task(folder: Path, names=COLOURS, reader="any_layout", options="", more=""):
    """A task of one's own with these classes; its file lies in `folder`."""
    text = TASK.format(names=json.dumps(list(names)), reader=reader, options=options, more=more)
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_task(path)


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes | str = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content or png())
    return path


def write_folders(place: Path, folders: dict[str, str]) -> None:
    """folders: name -> the colour that its one picture shows and is called after."""
    for folder, colour in folders.items():
        write(place / folder / f"{colour}.png")


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_parquet(path: Path, cells: list, names=None, column="label", images=None) -> Path:
    """A table with a picture and a label a row, and the class names of `datasets.ClassLabel`."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = images or [{"bytes": png(), "path": None} for _ in cells]
    table = pa.table({"image": pa.array(images, kind), column: cells})
    if names:
        info = {"info": {"features": {column: {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def read(task, folder: Path):
    return list(load_reader(task.data.reader, task.name).read(task, Raw(task, folder)))


def shown(task, folder: Path) -> dict[str, str]:
    """`{the picture's name without its ending: its class}`."""
    rows = read(task, folder)
    found = {_stem(row.images[0].path): task.classes[row.labels[0]] for row in rows}
    assert len(found) == len(rows)
    return found


def _stem(path: str) -> str:
    return Path(path.rpartition("::")[2]).stem


def classes_of(task, folder: Path) -> list[str]:
    return [" ".join(task.classes[label] for label in row.labels) for row in read(task, folder)]


def refusal(task, folder: Path) -> str:
    with pytest.raises(DataError) as error:
        read(task, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


SAME = {colour: colour for colour in COLOURS[:4]}


# ---------------------------------------------------------------- numbers


def test_folders_from_1_without_the_last_are_refused_with_both_readings(raw):
    write_folders(raw, {"1": "red", "2": "green", "3": "blue", "4": "yellow"})
    message = refusal(own_task(raw.parent), raw)
    assert "'1' can be 'green' (counted from 0) or 'red' (counted from 1)" in message
    assert "classes.txt" in message and "option `first`" in message


@pytest.mark.parametrize("first", [0, 1])
def test_folders_of_every_class_are_numbered_from_their_lowest(raw, first):
    write_folders(raw, {str(place + first): colour for place, colour in enumerate(COLOURS)})
    assert shown(own_task(raw.parent), raw) == {colour: colour for colour in COLOURS}


def test_the_option_first_settles_where_numbers_begin(raw):
    write_folders(raw, {"1": "red", "2": "green", "3": "blue", "4": "yellow"})
    task = own_task(raw.parent, reader="image_folder", options="first = 1")
    assert shown(task, raw) == SAME


@pytest.mark.parametrize(
    "lines",
    [
        "1 = red\n2 = green\n3 = blue\n4 = yellow\n",
        "\ufeff4: yellow\r\n3: blue\r\n2: green\r\n1: red\r\n",
    ],
)
def test_a_classes_file_with_numbers_settles_them(raw, lines):
    write_folders(raw, {"1": "red", "2": "green", "3": "blue", "4": "yellow"})
    write(raw / "classes.txt", lines)
    assert shown(own_task(raw.parent), raw) == SAME


def test_a_csv_of_labels_from_1_is_refused_and_words_are_read(raw):
    rows = [("a.png", 1), ("b.png", 4), ("c.png", 2)]
    task = own_task(raw.parent, reader="columns")
    write(raw / "test.csv", "image,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    assert "'1' can be 'green' (counted from 0) or 'red' (counted from 1)" in refusal(task, raw)
    write(raw / "test.csv", "image,label\na.png,Red\nb.png,yellow\nc.png,green\n")
    assert classes_of(task, raw) == ["red", "yellow", "green"]
    write(raw / "test.csv", "image,label\na.png,0\nb.png,3\nc.png,2\n")
    assert classes_of(task, raw) == ["red", "yellow", "blue"]


def test_a_number_beyond_the_classes_names_the_number(raw):
    write(raw / "test.csv", "image,label\na.png,0\nb.png,5\n")
    message = refusal(own_task(raw.parent, reader="columns"), raw)
    assert "label 5 is out of range; the task has 5 classes (0..4)" in message


def test_numbers_where_classes_are_called_by_numbers_are_refused(raw):
    """`.cls` holds 1: the class called 1, or the second one?"""
    task = own_task(raw.parent, names=["2", "0", "1"])
    members = {f"{name}.png": png() for name in "ab"} | {"a.cls": b"1", "b.cls": b"2"}
    write_tar(raw / "test" / "0.tar", members)
    message = refusal(task, raw)
    assert "'1' can be '0' (counted from 0)" in message and "'1' (the class's name)" in message


def test_folders_called_by_such_classes_are_those(raw):
    write_folders(raw, {"2": "two", "0": "zero", "1": "one"})
    task = own_task(raw.parent, names=["2", "0", "1"])
    assert shown(task, raw) == {"two": "2", "zero": "0", "one": "1"}


def test_bare_numbers_of_a_data_set_with_two_orders_are_refused(raw):
    task = own_task(raw.parent, more='also_numbered = "ELEVATER"')
    write_folders(raw / "test", {f"{place:03d}": c for place, c in enumerate(COLOURS)})
    message = refusal(task, raw)
    assert "'000' can be 'red' (the published order) or another class (ELEVATER)" in message
    write(raw / "label.txt", "green\nred\npink\nblue\nyellow\n")
    swapped = {"red": "green", "green": "red", "blue": "pink", "yellow": "blue", "pink": "yellow"}
    assert shown(task, raw) == swapped


def test_the_shipped_tasks_that_have_two_orders_say_so():
    folder = tasks_folder() / "classification"
    said = {path.stem for path in folder.glob("*.toml") if read_task(path).classes_also_numbered}
    assert said == {"caltech101", "cifar100", "fgvc_aircraft", "food101", "stanford_cars"}


# ---------------------------------------------------------------- lists of class names


ORDER = ("yellow", "red", "pink", "blue", "green")  # of a list that lies with the data


def wds_members(labels: dict[str, str]) -> dict[str, bytes]:
    return {f"{key}.png": png() for key in labels} | {
        f"{key}.cls": label.encode() for key, label in labels.items()
    }


def test_names_in_cls_are_not_looked_up_in_the_list_again(raw):
    write(raw / "classnames.txt", "\n".join(ORDER))
    write_tar(raw / "test" / "0.tar", wds_members(SAME))
    assert shown(own_task(raw.parent), raw) == SAME


def test_numbers_in_cls_are_lines_of_the_list(raw):
    write(raw / "classnames.txt", "\n".join(ORDER))
    write_tar(raw / "test" / "0.tar", wds_members({"a": "1", "b": "3", "c": "4"}))
    assert shown(own_task(raw.parent), raw) == {"a": "red", "b": "blue", "c": "green"}


@pytest.mark.parametrize("name", ["classes.txt", "classnames.txt", "label.txt", "labels.txt"])
@pytest.mark.parametrize("where", ["beside", "above"])
def test_numbered_folders_follow_a_list_of_any_usual_name(raw, name, where):
    place = raw if where == "beside" else raw / "some" / "test"
    write_folders(place, {str(number): colour for number, colour in enumerate(ORDER)})
    write((raw if where == "beside" else raw / "some") / name, "\n".join(ORDER))
    assert shown(own_task(raw.parent), raw) == {colour: colour for colour in ORDER}


def test_numbered_folders_in_a_zip_follow_the_list_beside_it(raw):
    members = {f"imgs/{number}/{colour}.png": png() for number, colour in enumerate(ORDER)}
    write_zip(raw / "imgs.zip", members)
    write(raw / "labels.txt", "\n".join(ORDER))
    assert shown(own_task(raw.parent), raw) == {colour: colour for colour in ORDER}


def test_two_lists_that_differ_are_refused(raw):
    write_folders(raw, {str(number): colour for number, colour in enumerate(ORDER)})
    write(raw / "labels.txt", "\n".join(ORDER))
    write(raw / "classnames.txt", "\n".join(COLOURS))
    assert "lists the classes in another order than" in refusal(own_task(raw.parent), raw)


def test_class_names_that_are_numbers_sorted_as_text_are_read_by_number(raw):
    """A ClassLabel of folders 0..11 lists 0, 1, 10, 11, 2, ...: its number 2 is class 10."""
    names = [f"class of the {word}" for word in "abcdefghijkl"]
    write_parquet(raw / "test.parquet", [0, 2, 3, 4, 11], sorted(map(str, range(12))))
    found = [label for row in read(own_task(raw.parent, names), raw) for label in row.labels]
    assert found == [0, 10, 11, 2, 9]


def test_the_same_of_folders_from_1_is_read_by_number(raw):
    names = [f"class of the {word}" for word in "abcdefghijkl"]
    numbers = sorted(str(number) for number in range(1, 13))  # 1, 10, 11, 12, 2, ...
    write_parquet(raw / "test.parquet", [0, 1, 4], numbers)
    found = [label for row in read(own_task(raw.parent, names), raw) for label in row.labels]
    assert found == [0, 9, 1]


def test_class_names_in_other_words_are_refused_and_a_classes_file_says_what_they_mean(raw):
    task = own_task(raw.parent, names=["lymph node", "lymph node containing tumor tissue"])
    write_parquet(raw / "test.parquet", [0, 1, 1], ["tumor", "no_tumor"])
    message = refusal(task, raw)
    assert "no class is called 'tumor'" in message and "classes.txt" in message
    write(
        raw / "classes.txt", "tumor = lymph node containing tumor tissue\nno_tumor = lymph node\n"
    )
    assert [row.labels for row in read(task, raw)] == [(1,), (0,), (0,)]


def test_a_misspelt_class_is_refused_with_the_near_miss(raw):
    write_parquet(raw / "test.parquet", [0, 1], ["redd", "gren", "blue", "yellow", "pink"])
    message = refusal(own_task(raw.parent), raw)
    assert "'redd'" in message and "Did you mean 'red'?" in message


def test_a_list_of_names_decides_the_order_of_a_class_label(raw):
    write_parquet(raw / "test.parquet", [0, 1, 4], ORDER)
    assert classes_of(own_task(raw.parent), raw) == ["yellow", "red", "green"]


def test_a_list_with_a_line_that_is_no_class_is_refused(raw):
    labels = Labels(Raw(own_task(raw.parent), raw))
    write(raw / "classnames.txt", "red\nblue\nyelow\ngreen\npurple\n")
    with pytest.raises(DataError, match=r"no class is called 'yelow'\. Did you mean 'yellow'\?"):
        ClassLists(labels, raw).order  # noqa: B018


def test_a_classes_file_that_is_added_later_makes_prepared_records_stale(raw):
    write_folders(raw, {str(number): colour for number, colour in enumerate(ORDER)})
    task, data = own_task(raw.parent), raw.parent / "data"
    task = replace(task, subsets={"s": 5})
    write_link(data, "mine", raw)
    first = [row.labels[0] for row in prepare(task, data).records]
    assert first == [0, 1, 2, 3, 4]
    write(raw / "classes.txt", "\n".join(ORDER))
    rows = prepare(task, data).records
    found = {Path(row.images[0].path).stem: COLOURS[row.labels[0]] for row in rows}
    assert found == {colour: colour for colour in COLOURS}


# ---------------------------------------------------------------- vectors of 0 and 1


def test_a_column_of_vectors_is_read_by_place(raw):
    write_parquet(raw / "test.parquet", [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert classes_of(own_task(raw.parent), raw) == ["blue", "red", "pink"]


def test_vectors_of_another_length_are_refused(raw):
    write_parquet(raw / "test.parquet", [[0, 0, 1, 0], [1, 0, 0, 0]])
    message = refusal(own_task(raw.parent), raw)
    assert "[0, 0, 1, 0] looks like a vector of 0 and 1, but the task has 5 classes" in message


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("Training", {"train"}), ("Testing", {"test"}), ("Validation", {"val"}),
        ("Final_Test", {"test"}), ("TestImages", {"test"}), ("trainset", {"train"}),
        ("train-val", {"train", "val"}), ("dev.jsonl", {"dev"}), ("latest", set()),
        ("contest", set()), ("trained", {"train"}),
    ],
)  # fmt: skip
def test_words_that_say_a_split(name, splits):
    assert split_words(name) == splits


@pytest.mark.parametrize("folder", ["Training", "training_set", "TRAIN", "Validation"])
def test_another_split_is_never_read_in_the_place_of_the_wanted(raw, folder):
    write_folders(raw / folder, SAME)
    assert "not the split test" in refusal(own_task(raw.parent), raw)
    write_folders(raw / "Testing", {"red": "red"})
    assert shown(own_task(raw.parent), raw) == {"red": "red"}


def test_kaggles_gtsrb_is_its_test_list_and_not_its_training_folders(raw):
    task = read_task(tasks_folder() / "classification" / "gtsrb.toml")
    write_folders(raw / "Train", {str(number): "training" for number in range(43)})
    assert "not the split test" in refusal(task, raw)
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path\n"
    rows = "53,54,6,5,48,49,16,Test/00000.png\n42,45,5,5,36,40,1,Test/00001.png\n"
    write(raw / "Test.csv", header + rows)
    found = {row.images[0].path: row.labels for row in read(task, raw)}
    assert found == {"Test/00000.png": (16,), "Test/00001.png": (1,)}


@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files_may_have_a_dot_before_idx(raw, mark):
    write(raw / f"t10k-images{mark}idx3-ubyte", struct.pack(">4I", 0x803, 3, 1, 1) + b"abc")
    write(raw / f"t10k-labels{mark}idx1-ubyte", struct.pack(">2I", 0x801, 3) + b"\2\0\4")
    assert classes_of(own_task(raw.parent), raw) == ["blue", "red", "pink"]


# ---------------------------------------------------------------- class folders


@pytest.mark.parametrize(
    "names",
    [
        ("bus", "train"),
        ("test", "train", "val"),
        ("+", "-", "=", "x"),
        ("C", "C++", "C#", ".NET"),
        ("café", "naïve", "über"),
        ("red", "Red Cross"),
    ],
)
def test_folders_called_exactly_like_classes_are_those(raw, names):
    write_folders(raw, {unicodedata.normalize("NFD", name): "x" for name in names})
    rows = read(own_task(raw.parent, names), raw)
    folders = {Path(row.images[0].path).parent.name: names[row.labels[0]] for row in rows}
    assert folders == {unicodedata.normalize("NFD", name): name for name in names}


def test_one_class_folder_is_enough(raw):
    write(raw / "green" / "0.png")
    write(raw / "green" / "1.png")
    assert classes_of(own_task(raw.parent), raw) == ["green", "green"]


def test_the_folder_that_is_linked_may_be_called_by_a_split_among_other_words(tmp_path):
    write_folders(tmp_path / "train_or_test", SAME)
    assert shown(own_task(tmp_path), tmp_path / "train_or_test") == SAME


# ---------------------------------------------------------------- junk


@pytest.mark.parametrize(
    ("path", "junk"),
    [
        ("__MACOSX/imgs/red/._0.png", True), ("imgs/._0.png", True), ("a/.DS_Store", True),
        ("THUMBS.DB", True), ("test/cache-27b98f7e1176dc5f.arrow", True), ("desktop.ini", True),
        ("imgs/0.png", False), ("cache-hit.png", False), ("_0.png", False), ("tmp.png", False),
    ],
)  # fmt: skip
def test_what_systems_leave_behind_is_junk(path, junk):
    assert is_junk(path) == junk


@pytest.mark.parametrize("kind", ["zip", "tar", "ZIP", "folder"])
def test_a_mac_archive_holds_its_pictures_alone(raw, kind):
    members = {f"imgs/{colour}/{colour}.png": png() for colour in SAME}
    junk = {f"imgs/{colour}/._{colour}.png": b"\0\5\x16\7" for colour in SAME}
    junk |= {f"__MACOSX/{name}": content for name, content in junk.items()}
    everything = {**junk, **members, "imgs/.DS_Store": b"Bud1"}
    if kind == "folder":
        for name, content in everything.items():
            write(raw / name, content)
    else:
        (write_tar if kind == "tar" else write_zip)(raw / f"imgs.{kind}", everything)
    assert shown(own_task(raw.parent), raw) == SAME


def save_to_disk(folder: Path, table: pa.Table, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)


def test_what_map_leaves_beside_a_saved_data_set_is_not_read(raw):
    image = pa.array([{"bytes": png(), "path": None}] * 2)
    table = pa.table({"image": image, "label": ["blue", "red"]})
    save_to_disk(raw / "test", table, "data-00000-of-00001.arrow")
    save_to_disk(raw / "test", table, "cache-27b98f7e1176dc5f.arrow")
    save_to_disk(raw / "test", table, "filtered.arrow")  # a cache file that was given a name
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    write(raw / "test" / "state.json", json.dumps(state))
    assert classes_of(own_task(raw.parent), raw) == ["blue", "red"]
    (raw / "test" / "data-00000-of-00001.arrow").unlink()
    assert "names 'data-00000-of-00001.arrow', which is not there" in refusal(
        own_task(raw.parent), raw
    )


def test_the_hubs_cache_is_read_at_its_one_snapshot(raw):
    write_parquet(raw / "snapshots" / "abc" / "data" / "test-0.parquet", ["blue", "red"])
    write(raw / "refs" / "main", "abc")
    task = own_task(raw.parent)
    assert classes_of(task, raw) == ["blue", "red"]
    images = Images(raw.parent / "data")
    images.links = {"mine": str(raw)}
    assert all(images.exists("mine", row.images[0]) for row in read(task, raw))
    write_parquet(raw / "snapshots" / "def" / "data" / "test-0.parquet", ["red", "red"])
    assert "several snapshots; link one of snapshots/: abc, def" in refusal(task, raw)


# ---------------------------------------------------------------- names of pictures


def without_flag(path: Path, name: str, content: bytes) -> Path:
    """A zip whose member's name is UTF-8, which its flags do not say."""
    write_zip(path, {name: content})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset + 1] &= ~0x08
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("wanted", "lay"),
    [
        ("x.jpg", lambda raw, png: write(raw / "x.JPG", png)),
        ("imgs/x.png", lambda raw, png: write(raw / "Imgs" / "x.png", png)),
        ("café.png", lambda raw, png: write(raw / unicodedata.normalize("NFD", "café.png"), png)),
        ("imgs\\x.png", lambda raw, png: write(raw / "imgs" / "x.png", png)),
        ("./x.png", lambda raw, png: write(raw / "x.png", png)),
        ("x.png", lambda raw, png: write(raw / "only" / "x.png", png)),
        ("x.png", lambda raw, png: write_zip(raw / "imgs.zip", {"./x.png": png})),
        ("x.png", lambda raw, png: write_tar(raw / "imgs.tar", {"./x.png": png})),
        ("imgs/x.png", lambda raw, png: write_zip(raw / "imgs.zip", {"imgs\\x.png": png})),
        ("x.png", lambda raw, png: write_zip(raw / "IMGS.ZIP", {"x.png": png})),
        ("x.png", lambda raw, png: write_zip(raw / "imgs.zip", {"imgs/x.png": png})),
        ("café.png", lambda raw, png: without_flag(raw / "imgs.zip", "café.png", png)),
    ],
)
def test_a_picture_is_found_under_another_form_of_its_name(raw, wanted, lay):
    lay(raw, png(7))
    images = Images(raw.parent / "data")
    images.links = {"mine": str(raw)}
    ref = ImageRef(OWN, wanted)
    assert images.exists("mine", ref) and images.content("mine", ref) == png(7)


def test_the_name_as_it_is_comes_first_and_of_two_other_forms_none_is_taken(raw):
    images = Images(raw.parent / "data")
    images.links = {"mine": str(raw)}
    for name, value in {"x.png": 1, "X.png": 2, "Y.png": 3, "y.PNG": 4}.items():
        write(raw / name, png(value))
    assert images.content("mine", ImageRef(OWN, "x.png")) == png(1)
    assert not images.exists("mine", ImageRef(OWN, "y.png"))
    assert "Did you mean" in images.near("mine", ImageRef(OWN, "y.png"))


def test_names_are_compared_in_one_form_and_the_near_miss_is_offered():
    names = Names(["a/x.JPG", "b/Ünïque.png", "c/000123.jpg", "c/page.png"])
    assert names.find(".\\a\\X.jpg") == "a/x.JPG"
    assert names.find(unicodedata.normalize("NFD", "b/ünïque.png")) == "b/Ünïque.png"
    assert normal("./a//b/./c") == "a/b/c"
    assert names.find("a/y.jpg") is None
    assert names.near("elsewhere/x.jpg") == "a/x.JPG"
    assert names.near("c/page.jpg") == "c/page.png"
    assert names.near("c/000124.jpg") == "", "another number is another picture"
    assert Names(["train", "Train"]).find("TRAIN") is None


@pytest.mark.parametrize("absolute", [True, False])
def test_an_absolute_path_is_read_inside_the_folder_alone(raw, absolute):
    write(raw / "x.png", png(7))
    path = raw / "x.png" if absolute else raw.parent / "other" / "x.png"
    (raw.parent / "pairs.toml").write_text(PAIRS)
    task = read_task(raw.parent / "pairs.toml")
    write(raw / "p.csv", f"file,right,wrong\n{path},a cat,a dog\n")
    if absolute:
        assert read(task, raw)[0].images == (ImageRef(OWN, "x.png"),)
    else:
        assert "is absolute and leads out of" in refusal(task, raw)


def test_a_picture_called_like_a_container_is_a_picture(raw):
    write(raw / "red" / "x.zip.png", png(3))
    write(raw / "photo.tar", png(5))
    images = Images(raw.parent / "data")
    images.links = {"mine": str(raw)}
    assert images.content("mine", ImageRef(OWN, "photo.tar")) == png(5)
    assert classes_of(own_task(raw.parent, reader="image_folder"), raw) == ["red"]


# ---------------------------------------------------------------- tables


def test_a_header_that_names_a_column_twice_is_refused(raw):
    (raw.parent / "pairs.toml").write_text(PAIRS)
    task = read_task(raw.parent / "pairs.toml")
    write(raw / "p.csv", "file,right,wrong,right\nx.png,a dog,a cat,a cow\n")
    assert "names the column 'right' twice" in refusal(task, raw)
    write(raw / "p.csv", "\ufefffile,right,wrong\nx.png,a dog,a cat\n")
    assert read(task, raw)[0].texts == ("a dog", "a cat")


def test_a_json_line_that_names_a_key_twice_is_refused(raw):
    (raw.parent / "pairs.toml").write_text(PAIRS)
    task = read_task(raw.parent / "pairs.toml")
    write(raw / "p.jsonl", '{"file": "x.png", "right": "a", "wrong": "b", "right": "c"}\n')
    assert "'right'" in refusal(task, raw) and "twice" in refusal(task, raw)


def test_a_task_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "pairs.toml"
    path.write_text(PAIRS, encoding="utf-8-sig")
    assert read_task(path).title == "Pairs"


def test_an_image_column_may_hold_bytes_in_some_rows_and_paths_in_others(raw):
    cells = [{"bytes": None, "path": "x.png"}, {"bytes": png(6), "path": None}]
    write_parquet(raw / "test.parquet", ["red", "blue"], images=cells)
    write(raw / "x.png", png(5))
    rows = read(own_task(raw.parent), raw)
    images = Images(raw.parent / "data")
    images.links = {"mine": str(raw)}
    assert [images.content("mine", row.images[0]) for row in rows] == [png(5), png(6)]


# ---------------------------------------------------------------- WebDataset


@pytest.mark.parametrize("packed", ["0.tar.gz", "0.tgz", "0.TAR.GZ"])
def test_a_compressed_shard_is_one_line_that_says_how_to_unpack_it(raw, packed):
    write(raw / "test" / packed, b"\x1f\x8b\x08")
    task = own_task(raw.parent, reader="wds")
    assert f"`gunzip -k {packed}`" in refusal(task, raw)
    assert f"`gunzip -k test/{packed}`" in refusal(own_task(raw.parent), raw)


def test_keys_with_dots_are_a_line_that_shows_the_members(raw):
    members = {"img.000.png": png(), "img.000.cls": b"0", "img.001.png": png()}
    write_tar(raw / "test" / "0.tar", {**members, "img.001.cls": b"1"})
    message = refusal(own_task(raw.parent), raw)
    assert "'img.000.png', 'img.000.cls'" in message and "up to its first dot" in message


def test_fields_of_a_sample_are_its_image_and_its_label(raw):
    members = {"s0.image.png": png(), "s0.label.cls": b"2", "s1.image.png": png()}
    write_tar(raw / "test" / "0.tar", {**members, "s1.label.cls": b"0"})
    assert classes_of(own_task(raw.parent), raw) == ["blue", "red"]


# ---------------------------------------------------------------- what is refused, and how


def test_a_folder_of_no_layout_says_what_is_there_and_what_is_nearest(raw):
    write(raw / "notes.txt", "hello")
    write_folders(raw / "pics", {"redd": "red", "gren": "green"})
    message = refusal(own_task(raw.parent), raw)
    assert "it holds 'notes.txt', 'pics/'" in message
    assert "Did you mean" in message and "'gren'" in message
    assert "a folder of pictures for each class" in message
    assert "image_folder" not in message, "the names of our modules tell a user nothing"


def test_a_table_that_nothing_knows_is_told_from_a_folder_of_nothing(raw):
    with (raw / "answers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], ["1", "2"]])
    message = refusal(own_task(raw.parent), raw)
    assert "answers.csv is a table" in message and 'reader = "columns"' in message
