"""One's own benchmark: the examples of `fsc-bench readers` and of tasks/README.md, and the lines on
the way to it.
"""

import importlib
import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from draw_images import draw
from PIL import Image

from fsc_bench.cli.main import app
from fsc_bench.data.link import link
from fsc_bench.data.prepare import prepare
from fsc_bench.data.readers import docstring, names
from fsc_bench.errors import DataError, FscBenchError
from fsc_bench.records import ImageRef, Record, check_records
from fsc_bench.task import catalogue, read_task

COLUMNS = "image,caption,foil\n0.png,a cat on a mat,a dog on a mat\n1.png,a red cup,a blue cup\n"
CAPTIONS = [
    {"image": "0.png", "caption": ["a cat", "a cat on a mat"]},
    {"image": "1.png", "caption": ["a dog", "a dog in a bog"]},
]


def shards(folder):
    """A tar with two samples, as the example of `wds` describes it."""
    (folder / "test").mkdir()
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for number in range(2):
            draw(folder / f"{number}.jpg")
            tar.add(folder / f"{number}.jpg", f"s{number}.jpg")
            label = tarfile.TarInfo(f"s{number}.cls")
            label.size = 1
            tar.addfile(label, io.BytesIO(str(number).encode()))
    (folder / "classnames.txt").write_text("cat\ndog\n")


def records(folder):
    rows = [
        {
            "id": f"r{number}", "subset": "items", "texts": ["a cup", "a cap"],
            "images": [{"source": ".", "path": f"{number}.png"}],
        }
        for number in range(2)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")


FILES = {
    "columns": (["images/0.png", "images/1.png"], {"items.csv": COLUMNS}, None),
    "image_folder": (["test/cat/0.png", "test/cat/1.png", "test/dog/2.png"], {}, None),
    "image_list": (
        ["pictures/0.png", "pictures/1.png"],
        {"test.csv": "image,label\n0.png,cat\n1.png,dog\n"},
        None,
    ),
    "wds": ([], {}, shards),
    "karpathy": (["0.png", "1.png"], {"test.json": json.dumps(CAPTIONS)}, None),
    "records": (["0.png", "1.png"], {}, records),
    "any_layout": (["test/cat/0.png", "test/dog/1.png"], {}, None),
}


def made(tmp_path, reader: str, old: str = "", new: str = ""):
    """(task file, raw folder) of a reader's example; `new` stands for `old` in it."""
    pictures, texts, make = FILES[reader]
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in pictures:
        draw(raw / name)
    for name, text in texts.items():
        (raw / name).write_text(text)
    if make:
        make(raw)
    example = importlib.import_module(f"fsc_bench.data.readers.{reader}").EXAMPLE
    assert old in example
    (tmp_path / "mine.toml").write_text(example.replace(old, new))
    return tmp_path / "mine.toml", raw


@pytest.mark.parametrize("reader", FILES)
def test_the_example_of_a_reader_works_as_it_stands(tmp_path, reader):
    toml, raw = made(tmp_path, reader)
    said = link(str(toml), raw, tmp_path / "data")
    found = prepare(read_task(toml), tmp_path / "data")

    assert "records, as the task file promises" in said
    assert len(found.records) == read_task(toml).n
    assert found.partial == ""


def test_every_general_reader_has_an_example_and_every_reader_a_first_line():
    with_example = {
        name
        for name in names()
        if hasattr(importlib.import_module(f"fsc_bench.data.readers.{name}"), "EXAMPLE")
    }

    assert with_example == set(FILES)
    assert all(docstring(name).partition("\n")[0].endswith((".", "...")) for name in names())


def ran(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        app([str(argument) for argument in arguments])
    found = capsys.readouterr()
    return end.value.code or 0, found.out, found.err


@pytest.mark.parametrize("reader", ["columns", "sugarcrepe", "any_layout"])
def test_a_reader_tells_its_options_with_their_defaults_and_an_example(capsys, reader):
    code, out, _ = ran(capsys, "readers", reader)
    module = importlib.import_module(f"fsc_bench.data.readers.{reader}")

    assert code == 0
    assert docstring(reader).partition("\n")[0] in out
    assert all(f"    {key} = " in out for key in module.OPTIONS)
    assert f'reader = "{reader}"' in out


def test_a_reader_that_is_not_there_comes_with_the_near_miss(capsys):
    code, _, err = ran(capsys, "readers", "colums")

    assert (code, err) == (2, "fsc-bench: no reader called 'colums'. Did you mean 'columns'?\n")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('texts  = ["caption", "foil"]', "", "has the columns image, caption, foil; which hold"),
        ('["caption", "foil"]', '["caption"]', "one image (image) and one text (caption)"),
        ('["caption", "foil"]', '["caption", "fool"]', "has no column 'fool'. Did you mean 'foil'"),
        ('"items.csv"', "3", "'files': must be a list, not 3"),
        ('texts  =', 'text   =', "the reader 'columns' has no such option. Did you mean 'texts'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_first_try_names_the_columns_that_are_there(tmp_path, old, new, words):
    toml, raw = made(tmp_path, "columns", old, new)

    with pytest.raises(FscBenchError) as caught:
        said = link(str(toml), raw, tmp_path / "data")
        assert "cannot be read yet" in said
        raise DataError(said)
    assert words in str(caught.value)


def test_other_counts_come_with_a_block_to_paste(tmp_path):
    toml, raw = made(tmp_path, "columns", "items = 2", "items = 7")
    toml.write_text(toml.read_text().replace("[data]\n", "[counts]\nimages = 9\n[data]\n"))

    said = link(str(toml), raw, tmp_path / "data")

    assert said.endswith("[subsets]\nitems = 2\n[counts]\nimages = 2\ntexts = 4")
    block = said[said.index("[subsets]") :]
    text = toml.read_text()
    start, end = text.index("[subsets]"), text.index("[data]")
    toml.write_text(f"{text[:start]}{block}\n{text[end:]}")
    assert "2 records, as the task file promises" in link(str(toml), raw, tmp_path / "data")


# ---------------------------------------------------------------- tasks/README.md, as it stands

README = (Path(__file__).parent.parent / "tasks" / "README.md").read_text()
SECTION = README.partition("## A private benchmark in five minutes")[2].partition("\n## ")[0]
EXAMPLES = {part.partition("toml title=\"")[2].partition(".toml")[0]: part
            for part in SECTION.split("\n### ")[1:]}  # fmt: skip
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
RED, GREEN, OLIVE, BLUE = (220, 0, 0), (0, 200, 0), (90, 200, 0), (0, 10, 210)
# Where the pictures of an example lie, and what they show (3.png is not what its text says).
PICTURES = {
    "pairs": ("pairs/pictures", (RED, OLIVE, GREEN)),
    "captions": ("captions/pictures", (RED, OLIVE, GREEN)),
    "shades": (".", (RED, GREEN, OLIVE, GREEN)),
    "tars": (".", (RED, GREEN, OLIVE, BLUE)),
}
# A model that knows colours: a picture is its mean colour, a text the colours that it names.
COLOURS = """
import numpy as np

class Colours:
    def preprocess(self, image):
        return np.asarray(image.convert("RGB").resize((4, 4)), np.float32)

    def encode_images(self, images):
        return unit([np.asarray(one).reshape(-1, 3).mean(0) for one in images])

    def encode_texts(self, texts):
        return unit([[float(word in text) for word in ("red", "green", "blue")] for text in texts])

def unit(rows):
    rows = np.asarray(rows, np.float32) + 1e-6
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
"""


def written(name: str, folder: Path) -> list[str]:
    """Writes an example's files into a folder, as README has them. Returns its commands."""
    commands: list[str] = []
    for _, title, text in FENCE.findall(EXAMPLES[name]):
        if title:
            (folder / title).parent.mkdir(exist_ok=True)
            (folder / title).write_text(text)
        else:
            commands += text.splitlines()
    place, colours = PICTURES[name]
    (folder / place).mkdir(exist_ok=True)
    for number, colour in enumerate(colours, 1):
        Image.new("RGB", (40, 30), colour).save(folder / place / f"{number}.png")
    return commands


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """An empty folder, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSC_BENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "colours.py").write_text(COLOURS)
    return tmp_path


def typed(capsys, command: str) -> tuple[int, str, str]:
    words = shlex.split(command)
    if words[0] == "fsc-bench":
        return ran(capsys, *words[1:])
    words = [sys.executable if words[0] == "python" else words[0], *words[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def made_and_linked(capsys, name: str, folder: Path) -> tuple[int, str, str]:
    """An example as far as `data link`."""
    *before, run = written(name, folder)
    assert run == f"fsc-bench run -t ./{name}.toml -m control:chance"
    for command in before:
        code, out, err = typed(capsys, command)
        if code:
            break
    return code, out, err


def test_there_are_four_examples():
    assert set(EXAMPLES) == set(PICTURES) and len(EXAMPLES) == 4


@pytest.mark.parametrize(
    ("name", "n", "numbers"),
    [
        ("pairs", 3, {"text": 200 / 3}),  # green is not "a blue car"
        # The only caption of 3.png is of blue; of four captions one finds its picture first: olive
        # is not as green as green, and is nearest to blue.
        ("captions", 3, {"i2t_r1": 200 / 3, "t2i_r1": 25.0}),
        ("shades", 4, {"accuracy": 75.0, "mean_per_class": 200 / 3}),
        ("tars", 4, {"accuracy": 50.0}),  # 3.png and 4.png are shown wrong
    ],
)
def test_an_example_of_the_readme_gives_the_number_that_follows_from_its_pictures(
    stranger, capsys, name, n, numbers
):
    code, _, err = made_and_linked(capsys, name, stranger)
    assert code == 0 and f"{n} records, as the task file promises" in err

    chance = f"run -t ./{name}.toml -m control:chance --device cpu"
    code, out, _ = ran(capsys, *chance.split(), "--json")
    (told,) = json.loads(out)["results"]["control:chance"].values()
    assert (code, told["n"], told["flags"]) == (0, n, [])
    colours = chance.replace("control:chance", "py:colours.py:Colours")
    code, out, _ = ran(capsys, *colours.split(), "--json")
    (found,) = json.loads(out)["results"]["py:colours.py:Colours"].values()
    headline = {metric: found["metrics"]["headline"][metric]["value"] for metric in numbers}
    assert (code, headline) == (0, pytest.approx(numbers))


def without(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "words"),
    [
        ("pairs", "pairs/items.csv", "right,wrong", "right,worng",
         "items.csv: has no column 'wrong'. Did you mean 'worng'"),
        ("pairs", "pairs/items.csv", "3.png", "4.png", "4.png"),
        ("pairs", "pairs/items.csv", "", "", "items.csv: is empty: it has no columns"),
        ("pairs", "pairs/items.csv", "3.png,a blue car,a green car\n", "",
         "2 records, the task file promises 3"),
        ("pairs", "pairs.toml", 'images = "image"', 'images = "image"\nid = "right"\nlabels = 1',
         "has no such option. Did you mean 'label'"),
        ("pairs", "pairs/items.csv", "3.png,a blue car", "3.png,a red cup", "'a red cup'"),
        ("captions", "captions/captions.jsonl", '"captions": ["a blue', '"caption": ["a blue',
         "captions.jsonl: record row 3: has no 'captions'"),
        ("captions", "captions/captions.jsonl", '["a blue car"]}', '["a blue car"]',
         "line 3: is not JSON"),
        ("captions", "captions/captions.jsonl", '"3.png"', '"5.png"', "5.png"),
        ("captions", "captions/captions.jsonl", "", "", "captions.jsonl: is empty"),
        ("shades", "make_shades.py", '"label"', '"klass"', "has no column 'label'"),
        ("shades", "shades.toml", '"red", "green"', '"red", "gren"', "no class is called 'green'"),
        ("tars", "make_tars.sh", "3.png 3.cls", "3.png", "1.tar: record 3: needs one image and"),
        ("tars", "make_tars.sh", "printf 2 > 3.cls", "printf 7 > 3.cls", "label 7 is out of range"),
        ("tars", "make_tars.sh", "4.png 4.cls", "", "3 records, the task file promises 4"),
    ],
)  # fmt: skip
def test_a_usual_mistake_in_an_example_is_one_line(stranger, capsys, name, file, old, new, words):
    *before, run = written(name, stranger)
    path = stranger / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else "")
    if words == "'a red cup'":  # two records of one id
        task = stranger / "pairs.toml"
        task.write_text(task.read_text() + 'id = "right"\n')
    for command in before:
        _, _, linked = typed(capsys, command)
    assert words in linked or "pictures are not there" in linked

    code, _, err = typed(capsys, f"{run} --device cpu --quiet")
    (line,) = [one for one in err.splitlines() if one.startswith("fsc-bench: ")]
    assert code in (2, 3) and words in line


def test_a_byte_order_mark_is_no_part_of_a_column(stranger, capsys):
    *before, _ = written("pairs", stranger)
    path = stranger / "pairs" / "items.csv"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert "3 records, as the task file promises" in typed(capsys, before[0])[2]


# ---------------------------------------------------------------- what a record needs


@pytest.mark.parametrize(
    ("name", "images", "texts", "labels", "said"),
    [
        ("coco_karpathy", 1, 0, 0, "1 picture and no text; a record of a retrieval task needs one"),
        ("coco_karpathy", 2, 5, 0, "2 pictures and 5 texts; a record of a retrieval task needs on"),
        ("winoground", 2, 3, 0, "2 pictures and 3 texts; a record of a matching task needs one pi"),
        ("winoground", 1, 1, 0, "1 picture and 1 text; a record of a matching task needs one pict"),
        ("mnist", 3, 0, 1, "3 pictures; a record of a classification task needs one picture."),
        ("mnist", 1, 0, 2, "2 labels; a record of a classification task needs one label."),
        ("mnist", 1, 0, 0, "no label; a record of a classification task needs one label."),
    ],
)
def test_a_record_of_the_wrong_shape_is_told_what_it_has_and_what_it_needs(
    name, images, texts, labels, said
):
    """It said "1 images, 0 texts; needs 1 and some"."""
    task = catalogue()[name]
    row = Record(
        id="7",
        subset=next(iter(task.leaves)),
        images=tuple(ImageRef("own", f"{place}.png") for place in range(images)),
        texts=tuple(f"a text, {place}" for place in range(texts)),
        labels=tuple(range(labels)),
    )
    with pytest.raises(DataError) as caught:
        check_records(task, [row], "here.csv")
    assert f"here.csv: record '7': {said}" in str(caught.value)
