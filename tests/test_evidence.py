"""Evidence: each task knows its own data from another's, when it is linked and when prepared."""

import gzip
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.data.images import read_links, write_link
from fsc_bench.data.link import link
from fsc_bench.data.prepare import prepare
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import any_layout, valse
from fsc_bench.demo import raw as demo
from fsc_bench.errors import DataError, UsageError
from fsc_bench.task import Task, catalogue, read_task

# ---------------------------------------------------------------- data sets of one raw format


def write_batch(path: Path, key: str, classes: int) -> None:
    """CIFAR's test batch: 10,000 coloured pictures, equally many of each class."""
    pixels = np.random.default_rng(classes).integers(0, 256, (100, 3072), np.uint8)
    labels = [place % classes for place in range(10_000)]
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({b"data": np.tile(pixels, (100, 1)), key.encode(): labels}))


@pytest.fixture(scope="module")
def cifars(tmp_path_factory) -> Path:
    """A folder with both CIFARs, as torchvision leaves them."""
    root = tmp_path_factory.mktemp("cifars")
    write_batch(root / "cifar-10-batches-py" / "test_batch", "labels", 10)
    write_batch(root / "cifar-100-python" / "test", "fine_labels", 100)
    return root


def refused(name: str, path: Path, data: Path) -> str:
    """The line by which `data link` refuses; nothing is remembered then."""
    with pytest.raises(DataError) as caught:
        link(name, path, data)
    assert read_links(data) == {}
    return str(caught.value)


def test_cifar10s_batch_is_not_cifar100s(cifars, tmp_path):
    line = refused("cifar100", cifars / "cifar-10-batches-py", tmp_path)
    assert "1,000 records of class 'apple', the published data has 100" in line
    assert line.endswith("It looks like the data of cifar10.")


def test_cifar100s_batch_is_not_cifar10s(cifars, tmp_path):
    line = refused("cifar10", cifars / "cifar-100-python", tmp_path)
    assert line.endswith("It looks like the data of cifar100.")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_folder_with_both_cifars_is_read_as_each(name, cifars, tmp_path):
    task = catalogue()[name]
    assert "10,000 records, as the task file promises" in link(name, cifars, tmp_path)
    labels = [row.labels[0] for row in any_layout.read(task, Raw(task, cifars))]
    assert labels == [place % len(task.classes) for place in range(10_000)]


def test_mnist_and_cifar10_are_not_taken_for_each_other(cifars, real_data, tmp_path):
    line = refused("mnist", cifars / "cifar-10-batches-py", tmp_path)
    assert line.endswith("It looks like the data of cifar10.")
    line = refused("cifar10", real_data / "mnist", tmp_path)
    assert line.endswith("It looks like the data of mnist.")


# ---------------------------------------------------------------- a canary: known pictures


def mnist(real: Path, folder: Path, changes: dict[int, int]) -> Path:
    """The published test set with other labels at some places."""
    folder.mkdir()
    pictures = "t10k-images-idx3-ubyte.gz"
    os.symlink(real / "mnist" / pictures, folder / pictures)
    labels = bytearray(gzip.decompress((real / "mnist/t10k-labels-idx1-ubyte.gz").read_bytes()))
    for place, label in changes.items():
        labels[8 + place] = label
    (folder / "t10k-labels-idx1-ubyte").write_bytes(labels)
    return folder


def test_the_published_mnist_is_its_own(real_data, tmp_path):
    said = link("mnist", real_data / "mnist", tmp_path)
    assert "10,000 records, as the task file promises" in said
    assert "12 known pictures by their pixels" in said


def test_one_swapped_pair_of_labels_is_refused_by_the_known_pictures(real_data, tmp_path):
    """The first picture shows a 7, the second a 2; the numbers of each class stay the same."""
    folder = mnist(real_data, tmp_path / "raw", {0: 2, 1: 7})
    line = refused("mnist", folder, tmp_path / "data")
    assert "2 of 12 known pictures have another class: record '00000' is '7', not '2'" in line


def test_a_label_distribution_off_by_one_record_is_refused_even_of_a_part(real_data, tmp_path):
    """The 101st picture, a 6, called a 1: 1,136 ones where 1,135 are published."""
    write_link(tmp_path, "mnist", mnist(real_data, tmp_path / "raw", {100: 1}))
    line = "1,136 records of class '1', the published data has 1,135"
    with pytest.raises(DataError, match=line):
        prepare(catalogue()["mnist"], tmp_path, partial=True)


# ---------------------------------------------------------------- a small data set of one's own

OWN = """
title = "Tones"
suite = "mine"
group = "classification"
kind = "classification"
version = 1
headline = ["accuracy"]
chance = 33.3
[subsets]
test = 6
[classes]
names = ["dark", "bright", "noisy"]
[prompts.plain]
templates = ["a {} picture"]
[data]
reader = "image_folder"
[data.evidence]
"""
COUNTS = {"dark": 3, "bright": 2, "noisy": 1}


def tones(folder: Path, evidence: str, counts=COUNTS, size=(8, 6), gray=False) -> Task:
    """A task with 3 + 2 + 1 pictures below folder/data/raw/tones; each differs from the others."""
    rng = np.random.default_rng(7)
    for name, count in counts.items():
        for number in range(count):
            shape = (size[1], size[0]) if gray else (size[1], size[0], 3)
            path = folder / "data" / "raw" / "tones" / "test" / name / f"{name}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    path = folder / "tones.toml"
    path.write_text(OWN + evidence)
    return read_task(path)


def prepared(task: Task, folder: Path, partial: bool = False):
    return prepare(task, folder / "data", partial=partial)


FACTS = """
classes = [3, 2, 1]
pictures = { width = 8, height = [5, 7], colour = true }
names = '[a-z]+_\\d\\.png'
known = [{ file = "dark_*", class = "dark" }, { file = "noisy_0", class = "noisy" }]
"""


def test_data_that_agrees_with_every_fact_is_accepted_without_a_word(tmp_path):
    done = prepared(tones(tmp_path, FACTS), tmp_path)
    assert (len(done.records), done.partial) == (6, "")


@pytest.mark.parametrize(
    ("evidence", "facts", "line"),
    [
        ("pictures = { width = 8, height = 8 }", {}, "a picture of 8 x 6 pixels"),
        ("pictures = { width = [9, 20] }", {}, "the published ones are 9-20 x any"),
        ("pictures = { colour = false }", {}, "are in colour, the published ones are gray"),
        ("pictures = { colour = true }", {"gray": True}, "are gray, the published ones are in"),
        ("classes = [2, 2, 2]", {}, "3 records of class 'dark', the published data has 2"),
        ("classes = { most = [3, 1, 2] }", {}, "2 records of class 'bright', the published data"),
        ('known = [{ file = "dark_*", class = "noisy" }]', {}, "'noisy', not 'dark'"),
        ('known = [{ file = "dark_[0-9]", class = "noisy" }]', {}, "'noisy', not 'dark'"),
        ("names = '[a-z]+\\d\\.png'", {}, "is called 'test/dark/dark_0.png', not"),
    ],
)
def test_data_that_contradicts_a_fact_is_refused(tmp_path, evidence, facts, line):
    with pytest.raises(DataError) as caught:
        prepared(tones(tmp_path, evidence, **facts), tmp_path)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        ("pictures = { width = 8, height = 8 }", "a picture of 8 x 6 pixels"),
        ("classes = [2, 2, 2]", "3 records of class 'dark'"),
    ],
)
def test_a_part_of_the_data_may_not_contradict_it_either(tmp_path, evidence, line):
    """Fewer records are a part; more of one class, or another size, are other data."""
    task = tones(tmp_path, evidence, counts={"dark": 3, "bright": 1})
    with pytest.raises(DataError, match=line):
        prepared(task, tmp_path, partial=True)


def test_a_part_with_fewer_records_of_a_class_is_flagged_and_scored(tmp_path):
    done = prepared(tones(tmp_path, FACTS, counts={"dark": 3, "bright": 1}), tmp_path, partial=True)
    assert len(done.records) == 4
    assert "tones/test: 4 records, the task file promises 6" in done.partial


@pytest.mark.parametrize(
    ("evidence", "facts", "flag"),
    [
        ('unchecked = ["test"]', {"counts": {"dark": 3, "bright": 1}}, "4 records, the task file"),
        ('classes = [2, 2, 2]\nunchecked = ["classes"]', {}, "3 records of class 'dark'"),
        (
            'pictures = { width = 9, height = 9 }\nunchecked = ["pictures"]',
            {},
            "a picture of 8 x 6 pixels",
        ),
        (
            'known = [{ file = "dark_*", class = "noisy" }]\nunchecked = ["known"]',
            {},
            "3 pictures of known names have another class",
        ),
    ],
)
def test_an_unchecked_promise_that_does_not_hold_is_flagged_not_refused(
    tmp_path, evidence, facts, flag
):
    task = tones(tmp_path, evidence, **facts)
    done = prepared(task, tmp_path)
    again = prepared(task, tmp_path)  # from the stored records
    said = link(str(task.path), tmp_path / "data" / "raw" / "tones", tmp_path / "data")
    assert all(flag in words for words in (done.partial, again.partial, said))


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        ("clases = 2", "data.evidence: unknown key 'clases'. Did you mean 'classes'?"),
        (
            "pictures = { widht = 8 }",
            "data.evidence.pictures: unknown key 'widht'. Did you mean 'width'?",
        ),
        ("pictures = { width = [9, 3] }", "width = [9, 3] is no size or [smallest, largest]"),
        ("classes = [3, 2]", "classes lists 2 numbers for 3 classes"),
        ("classes = [3, 2, -1]", "classes has -1, which is no count of records"),
        ("names = '('", "names = '(' is no pattern"),
        (
            'known = [{ flie = "a", class = "dark" }]',
            "data.evidence.known[0]: unknown key 'flie'. Did you mean 'file'?",
        ),
        (
            'known = [{ file = "a", class = "drak" }]',
            "'drak' is not one class. Did you mean 'dark'",
        ),
        ('known = [{ class = "dark" }]', "known needs one of 'pixels', 'file' and 'text'"),
        ('known = [{ pixels = "5A", class = "dark" }]', "is not 16 to 64 digits 0-9a-f"),
        ('unchecked = ["clases"]', "names 'clases', which is no promise. Did you mean 'classes'?"),
    ],
)
def test_a_wrong_key_or_value_of_the_evidence_is_one_line(tmp_path, evidence, line):
    with pytest.raises(UsageError) as caught:
        tones(tmp_path, evidence)
    assert line in str(caught.value) and "tones.toml: " in str(caught.value)
    assert "data.evidence" in str(caught.value)


# ---------------------------------------------------------------- pictures that tasks share


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("name", ["coco/val2014", "coco/val2017"])
def test_train2014_is_not_another_of_cocos_folders(name, tmp_path):
    train = touch(tmp_path / "train2014", "COCO_train2014_000000000009.jpg")
    line = refused(name, train, tmp_path / "data")
    assert f"not {name}: its pictures are called like 'COCO_train2014_000000000009.jpg'" in line
    assert line.endswith("It looks like coco/train2014.")


def test_val2017_is_found_in_its_folder_or_the_one_around_it(tmp_path):
    touch(tmp_path / "coco" / "val2017", "000000000139.jpg", "000000000285.jpg")
    for folder in ("coco", "coco/val2017"):
        said = link("coco/val2017", tmp_path / folder, tmp_path / folder / "data")
        assert said.endswith(": 2 pictures; the published source has 5,000")


def test_nothing_to_link_is_said(tmp_path):
    (tmp_path / "empty" / "empty").mkdir(parents=True)
    assert "an empty folder" in refused("coco/val2017", tmp_path / "empty", tmp_path / "data")
    assert "an empty folder" in refused("mnist", tmp_path / "empty", tmp_path / "data")

    touch(tmp_path / "texts", "000000000139.json")
    line = refused("coco/val2017", tmp_path / "texts", tmp_path / "data")
    assert "it holds no pictures" in line

    (tmp_path / "notes.txt").write_text("000000000139.jpg")
    with pytest.raises((DataError, UsageError), match=r"notes\.txt: "):
        link("coco/val2017", tmp_path / "notes.txt", tmp_path / "data")
    with pytest.raises(UsageError, match="there is no such folder or archive"):
        link("coco/val2017", tmp_path / "nowhere", tmp_path / "data")
    assert read_links(tmp_path / "data") == {}


# ---------------------------------------------------------------- what the commands say


def test_verify_of_nothing_says_so(tmp_path):
    found = CliRunner().invoke(app, ["data", "verify", "mnist", "--data", str(tmp_path)])
    assert found.exit_code == 3 and "No problem" not in found.output
    assert f"nothing to verify: none of the 1 named is in {tmp_path}" in found.output


def test_tasks_shows_what_tells_a_tasks_data_from_anothers():
    shown = CliRunner().invoke(app, ["tasks", "mnist"]).output.splitlines()
    assert [line for line in shown if line.startswith("evidence")] == [
        "evidence  records of each class: 892 to 1,135 (a number of its own for each)",
        "evidence  pictures of 28 x 28 pixels, in gray",
        "evidence  12 known pictures by their pixels",
    ]
    facts = json.loads(CliRunner().invoke(app, ["tasks", "eqben", "--json"]).output)
    assert facts["evidence"]["unchecked"] == ["known"]


# ---------------------------------------------------------------- complete VALSE

# Records of each piece whose file may be absent, and pictures that no piece before it has.
STAND_INS = {
    "counting-hard": (868, 650, "v7w_{}.jpg"),
    "counting-small-quant": (900, 689, "v7w_{}.jpg"),
    "counting-adversarial": (691, 243, "v7w_{}.jpg"),
    "action-replacement": (648, 153, "acting_{}.jpg"),
    "coreference-standard": (708, 702, "COCO_train2014_{:012}.jpg"),
}


def stand_in(piece: str, shared: list[str]) -> dict[str, dict]:
    """Records in VALSE's form; the first has the task's known text and picture."""
    count, fresh, form = STAND_INS[piece]
    (known,) = (one for one in catalogue()["valse"].evidence.known if one.subset == piece)
    start = 9_000_000 + 1000 * list(STAND_INS).index(piece)
    names = [form.format(start + number) for number in range(fresh)]
    if piece == "coreference-standard":  # in which six of foil-it's pictures stand too
        names += shared[:6]
    if not any(known.file in name for name in shared):
        names[0] = f"{known.file}.jpg"
    rows = {}
    for number in range(count):
        caption = known.text if not number else f"Caption {number} of {piece}."
        name = names[number % len(names)] if number else f"{known.file}.jpg"
        rows[str(number)] = {
            "image_file": name,
            "dataset": "SWiG",
            "caption": caption,
            "foil": f"Foil {number} of {piece}.",
            "mturk": {"caption": 2 + number % 2},
        }
    return rows


def test_complete_valse_is_prepared_without_allow_partial(real_data, tmp_path):
    """6,123 pictures: six of COCO val2014 stand in two pieces. Tiny pictures stand in for them."""
    task, raw = catalogue()["valse"], tmp_path / "raw" / "valse"
    raw.mkdir(parents=True)
    for piece in sorted(task.leaves, key=lambda piece: piece in STAND_INS):
        source = real_data / "valse" / f"{piece}.json"
        if source.exists():
            content = source.read_text()
        else:
            shared = [json.loads(file.read_text()) for file in sorted(raw.glob("*.json"))]
            valid = [row for rows in shared for row in rows.values() if row["mturk"]["caption"] > 1]
            valid.sort(key=lambda row: not row["image_file"].startswith("COCO_val2014_"))
            content = json.dumps(stand_in(piece, [row["image_file"] for row in valid]))
        (raw / f"{piece}.json").write_text(content)
    Image.new("RGB", (4, 4), (200, 90, 10)).save(tmp_path / "one.jpg")
    for row in valse.read(task, Raw(task, raw)):
        path = tmp_path / "images" / row.images[0].source / row.images[0].path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(tmp_path / "one.jpg", path)

    done = prepare(task, tmp_path)

    assert len(done.records) == 7702 and done.partial == ""
    assert len({row.images[0] for row in done.records}) == 6123


# ---------------------------------------------------------------- another benchmark's own files


@pytest.mark.parametrize(("name", "other"), [("sugarcrepe", "valse"), ("valse", "sugarcrepe")])
def test_another_benchmarks_files_are_refused_and_named(name, other, tmp_path):
    demo.write(other, tmp_path / "theirs", tmp_path / "data" / "images", n=8)
    line = refused(name, tmp_path / "theirs", tmp_path / "data")
    assert line.endswith(f"It looks like the data of {other}.")


def test_more_records_than_promised_are_no_part(tmp_path):
    """Four of the first class, one of the second, two of the third: seven, six are promised."""
    counts = {"dark": 4, "bright": 1, "noisy": 2}
    task = tones(tmp_path, "classes = { least = [3, 2, 1] }", counts=counts)
    with pytest.raises(DataError, match="1 records of class 'bright', the published data has at"):
        link(str(task.path), tmp_path / "data" / "raw" / "tones", tmp_path / "data")
