"""A world whose every vector is stated: what a task scores in it can be worked out by hand.

`World.ask` goes the whole way: records on disk, plan, encoding, store, scores, result files, and
the CSV of a leaderboard. Pictures are plain colours that the adapter, a file of its own, looks up.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import cos, nan, radians, sin
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from fsc_bench.data.images import write_link
from fsc_bench.records import OWN, ImageRef, Record, write_records
from fsc_bench.report.ranking import measured_rows
from fsc_bench.report.suites import TaskFacts
from fsc_bench.report.tables import write
from fsc_bench.results import read_runs
from fsc_bench.run.suite import Options, Summary, run
from fsc_bench.task import KINDS, Task, read_task

SIDE = 8  # pixels of a picture's part
GROUP = {"matching": "compositionality"}  # where a kind is not called as its group
Vector = float | tuple[float, ...]  # degrees on the half circle, or the coordinates themselves
NOTHING = (nan, 0.0)  # what a broken model gives

# Whatever is not in the table (a probe, say) is the first axis.
ADAPTER = '''
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np

from fsc_bench.model import Extras, Identity

CONTENT = Path(__file__).with_suffix(".json").read_bytes()


class Words(Extras):
    """Sees so many words of a text."""

    def __init__(self, context):
        self.context = context

    def tokenize(self, texts):
        words = [text.split() for text in texts]
        ids = np.zeros((len(texts), self.context), np.int64)
        for row, some in zip(ids, words):
            row[: len(some)] = [zlib.crc32(word.encode()) for word in some[: self.context]]
        return ids, np.array([len(some) > self.context for some in words])


class Known:
    """Looks every vector up."""

    def __init__(self):
        self.table = json.loads(CONTENT)
        self.extras = Words(self.table["context"]) if self.table["context"] else Extras()
        weights = hashlib.sha256(CONTENT).hexdigest()
        self.identity = Identity(weights, "known", "none", "corner", "whole texts", 0, "fp32")

    def preprocess(self, image):
        return np.asarray(image)[0, 0]

    def encode_images(self, images):
        return self.rows("images", [" ".join(map(str, image)) for image in images])

    def encode_texts(self, texts):
        return self.rows("texts", texts)

    def rows(self, kind, names):
        width = self.table["width"]
        first = [1.0] + [0.0] * (width - 1)
        return np.array([self.table[kind].get(name, first) for name in names], np.float32)


model = Known()
'''


def coordinates(vector: Vector) -> tuple[float, ...]:
    """An angle in degrees as a point of the unit circle: nearer angles have larger cosines."""
    if isinstance(vector, tuple):
        return vector
    return cos(radians(vector)), sin(radians(vector))


@dataclass
class Answer:
    """What a run left on disk about one task: its JSON, its samples, its row of the CSV, and what
    sums the samples up, where something does.
    """

    result: dict[str, Any]
    samples: dict[str, list]
    row: dict[str, str]
    summary: dict[str, Any]

    def value(self, metric: str, node: str = "headline") -> float:
        return self.result["metrics"][node][metric]["value"]

    def chance(self, metric: str) -> float:
        return self.result["metrics"]["headline"][metric]["chance"]

    def strict(self, metric: str) -> float:
        return self.result["metrics"]["headline"][metric]["strict"]

    def interval(self, metric: str, node: str = "headline") -> list[float]:
        return self.result["metrics"][node][metric]["ci"]


@dataclass
class World:
    """A data folder, an adapter and runs below one folder; pictures and texts may be added."""

    folder: Path
    colours: dict[tuple[float, ...], tuple[int, int, int]] = field(default_factory=dict)
    texts: dict[str, Vector] = field(default_factory=dict)
    context: int = 0  # words that the adapter's tokenizer sees; 0: it has none

    def __post_init__(self) -> None:
        self.data, self.raw, self.out = (self.folder / name for name in ("data", "raw", "runs"))
        self.raw.mkdir()

    @property
    def spec(self) -> str:
        return f"py:{self.folder / 'known.py'}:model"

    def picture(self, name: str, *parts: Vector) -> ImageRef:
        """A picture of one part, or of several side by side, each of the vector that is given."""
        image = Image.new("RGB", (SIDE * len(parts), SIDE))
        for place, part in enumerate(parts):
            point = coordinates(part)
            number = len(self.colours)
            colour = self.colours.setdefault(point, (7 * number % 256, 90, number))
            image.paste(colour, (place * SIDE, 0, (place + 1) * SIDE, SIDE))
        image.save(self.raw / f"{name}.png")
        return ImageRef(OWN, f"{name}.png")

    def part(self, name: str, place: int) -> ImageRef:
        """The crop of a picture to one of its parts."""
        return ImageRef(OWN, f"{name}.png", (place * SIDE, 0, (place + 1) * SIDE, SIDE))

    def text(self, vector: Vector, text: str = "") -> str:
        """A text of that vector, by default called after it."""
        text = text or f"at {vector}"
        self.texts[text] = vector
        return text

    def task(self, name: str, headline: Sequence[str], subsets: Mapping[str, Any], **more) -> Task:
        """Writes a task file. more: `within`, `version`; tables as TOML in `tables`."""
        # "accuracy" is a metric of two kinds; here it is classification's.
        kind = next(kind for kind in reversed(KINDS) if headline[0] in KINDS[kind])
        facts = {
            "title": name,
            "suite": "known",
            "group": GROUP.get(kind, kind),
            "kind": kind,
            "version": 1,
            "headline": list(headline),
            "chance": 25,
            **more,
        }
        tables = facts.pop("tables", "")
        lines = [
            f"{key} = {inline(value) if isinstance(value, Mapping) else json.dumps(value)}"
            for key, value in facts.items()
        ]
        lines += [f"subsets = {inline(subsets)}", tables, "[data]", 'reader = "records"']
        lines += [f'options = {{ files = ["{name}.parquet"] }}']
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return read_task(path)

    def records(self, task: Task, records: Sequence[Record]) -> None:
        """Writes a task's raw data, beside the pictures, and links it."""
        numbered = [replace(row, id=f"{task.name} {place}") for place, row in enumerate(records)]
        write_records(self.raw / f"{task.name}.parquet", numbered, {})
        write_link(self.data, task.name, self.raw)

    def write_adapter(self) -> None:
        points = [coordinates(vector) for vector in self.texts.values()]
        images = {" ".join(map(str, colour)): point for point, colour in self.colours.items()}
        table = {
            "width": len(points[0]),
            "context": self.context,
            "images": images,
            "texts": dict(zip(self.texts, points, strict=True)),
        }
        (self.folder / "known.py").write_text(ADAPTER)
        (self.folder / "known.json").write_text(json.dumps(table))

    def run(self, *tasks: Task, **options: Any) -> Summary:
        """The public run of the adapter on tasks whose records are written."""
        self.write_adapter()
        summary = run([self.spec], tasks, Options(self.data, self.out, **options))
        assert summary.failures == []
        return summary

    def ask(self, task: Task, records: Sequence[Record], **options: Any) -> Answer:
        """One task from its records to its row of the leaderboard's CSV."""
        self.records(task, records)
        return self.read(task, self.run(task, **options), **options)

    def read(self, task: Task, summary: Summary, **options: Any) -> Answer:
        folder = summary.folders[self.spec]
        name = task.name + Options(self.data, self.out, **options).variant
        samples = pq.read_table(folder / "samples" / f"{name}.parquet")
        return Answer(
            json.loads((folder / "tasks" / f"{name}.json").read_text()),
            samples.to_pydict(),
            self.row(task),
            json.loads((samples.schema.metadata or {}).get(b"fsc_bench", "{}")),
        )

    def row(self, *tasks: Task) -> dict[str, str]:
        """The adapter's line of the CSV that a leaderboard of these tasks is."""
        tables = self.folder / "tables"
        facts = [TaskFacts.of(task) for task in tasks]
        write(tables, "known", measured_rows(read_runs([self.out]), facts), facts)
        with (tables / "known.csv").open(newline="", encoding="utf-8") as file:
            (row,) = (row for row in csv.DictReader(file) if row["model"] == self.spec)
        return row


def inline(tree: Mapping[str, Any]) -> str:
    """A tree of subsets as TOML writes it on one line."""
    entries = [
        f"{name} = {inline(node) if isinstance(node, Mapping) else node}"
        for name, node in tree.items()
    ]
    return f"{{ {', '.join(entries)} }}"


def matching(
    images: Sequence[ImageRef], texts: Sequence[str], subset: str = "all", cluster: str = ""
) -> Record:
    """A record of `kind = "matching"`: image i belongs with text i."""
    return Record("", subset, tuple(images), tuple(texts), cluster=cluster)


def labelled(image: ImageRef, *labels: int, cluster: str = "") -> Record:
    """A record of `kind = "classification"`."""
    return Record("", "test", (image,), labels=labels, cluster=cluster)


def captioned(image: ImageRef, *texts: str) -> Record:
    """A record of `kind = "retrieval"`."""
    return Record("", "test", (image,), texts)
