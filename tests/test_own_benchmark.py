"""One's own benchmark: the examples of `fsc-bench readers`, and the lines on the way to it."""

import importlib
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from draw_images import draw

from fsc_bench.cli.main import app
from fsc_bench.data.link import link
from fsc_bench.data.prepare import prepare
from fsc_bench.data.readers import docstring, names
from fsc_bench.errors import DataError, FscBenchError
from fsc_bench.task import read_task

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
