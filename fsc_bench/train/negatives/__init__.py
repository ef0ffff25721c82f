"""Hard negatives: texts that say something else than their caption in nearly the same words.

Generators stand behind one protocol, each known by the name of its module:

    rules       bundled lexicon and tagger; offline, thousands of captions a second (the default)
    spacy       the paper's recipe: parser, WordNet, re-inflection; needs the extra and a model
    file:PATH   negatives made before: what `build` wrote, or a column of the data

`build` makes a Parquet file once, so that training never parses text. A caption may lack a kind of
negative; the losses mask what is missing.
"""

import hashlib
import importlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import entry_points
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.files import write_atomically
from fsc_bench.system.spec import Spec
from fsc_bench.train.negatives.text import Random

BLOCK = 2048  # captions a process works on at a time, and a row group of the file
SCHEMA = pa.schema(
    [("caption", pa.string()), ("kind", pa.string()), ("negatives", pa.list_(pa.string()))]
)


@runtime_checkable
class NegativeGenerator(Protocol):
    """Captions to hard negatives. It must pickle, to work in several processes.

    name, version: recorded with what it made; a version changes whenever the output may.
    kinds: what it makes, such as ("swap", "replace", "shuffle"); K of the losses is their number.
    """

    name: str
    kinds: tuple[str, ...]
    version: str

    def generate(self, caption: str, rng: Random, count: int = 4) -> dict[str, list[str]]:
        """Up to `count` different negatives for every kind; an empty list is a missing kind.

        None equals the caption once case, punctuation and spaces are ignored. `rng` is the only
        chance it uses: `random.Random` or `numpy.random.Generator`.
        """


def load_generator(spec: str) -> NegativeGenerator:
    """The generator that `rules`, `spacy` or `file:PATH` names.

    Other packages add theirs with the entry-point group `fsc_bench.negatives`: a module with
    `load(argument) -> NegativeGenerator`. Raises UsageError, one line, with the near miss.
    """
    parsed, known = Spec.read(spec), generators()
    if parsed.kind not in known:
        hint = near_miss(parsed.kind, known) or f" There are: {', '.join(sorted(known))}."
        raise UsageError(f"negatives {spec!r}: no generator called {parsed.kind!r}.{hint}")
    return known[parsed.kind]().load(parsed.rest)


def generators() -> dict[str, Callable[[], object]]:
    """Every generator by name, with a function that imports its module."""
    found: dict[str, Callable[[], object]] = {}
    for name in ("rules", "spacy", "file"):
        found[name] = partial(importlib.import_module, f"{__name__}.{name}")
    for point in entry_points(group="fsc_bench.negatives"):
        found.setdefault(point.name, point.load)
    return found


def caption_rng(seed: int, caption: str) -> random.Random:
    """The chance for one caption: the same wherever the caption stands and whoever works on it."""
    digest = hashlib.sha256(f"{seed}\n{caption}".encode(errors="surrogatepass")).digest()
    return random.Random(digest)


def build(
    captions: Sequence[str],
    generator: NegativeGenerator,
    seed: int,
    candidates_per_kind: int,
    out: Path,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Write the negatives of `captions` to the Parquet file `out`; returns the file's metadata.

    Columns: caption, kind, negatives (a list of at least one). A caption that comes twice is
    written once; a missing kind has no row. The same captions, generator, seed and number give the
    same bytes, whatever `processes`. The file appears when it is whole, and replaces an older one.
    progress(done, total) is called after each block, in different captions. Raises UsageError.
    """
    if candidates_per_kind < 1:
        raise UsageError(f"candidates {candidates_per_kind}: there must be at least 1 a kind.")
    if processes < 1:
        raise UsageError(f"processes {processes}: there must be at least 1.")
    different = list(dict.fromkeys(captions))
    if not different:
        raise UsageError("there are no captions to make negatives of.")
    metadata = {
        "generator": generator.name,
        "version": generator.version,
        "kinds": ",".join(generator.kinds),
        "seed": str(seed),
        "candidates_per_kind": str(candidates_per_kind),
        "captions_sha256": captions_sha256(captions),
    }
    out = Path(out)
    blocks = [different[k : k + BLOCK] for k in range(0, len(different), BLOCK)]
    make = partial(_make_block, generator, seed, candidates_per_kind)

    def write(place: Path) -> None:
        done = 0
        with pq.ParquetWriter(place, SCHEMA.with_metadata(metadata), compression="zstd") as file:
            for block, rows in zip(blocks, _map(make, blocks, processes), strict=True):
                file.write_table(pa.table(rows, schema=file.schema), row_group_size=3 * BLOCK)
                done += len(block)
                if progress:
                    progress(done, len(different))

    write_atomically(out, write)
    return metadata


def captions_sha256(captions: Iterable[str]) -> str:
    """What identifies a list of captions, order and repetitions included."""
    digest = hashlib.sha256()
    for caption in captions:
        try:
            data = caption.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"caption {caption[:60]!r} is no text: {error.reason}.") from error
        digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def show(
    captions: Sequence[str],
    generator: NegativeGenerator,
    n: int = 10,
    *,
    seed: int = 0,
    candidates_per_kind: int = 1,
) -> list[tuple[str, dict[str, list[str]]]]:
    """`n` captions, evenly from all, each with its negatives by kind, as `build` makes them."""
    step = max(len(captions) // max(n, 1), 1)
    return [
        (caption, _generate(generator, seed, candidates_per_kind, caption))
        for caption in captions[: n * step : step]
    ]


def _map(make: Callable, blocks: list[list[str]], processes: int) -> Iterator[dict[str, list]]:
    if processes == 1 or len(blocks) == 1:
        yield from map(make, blocks)
        return
    # Spawned, for forking a process that runs threads (torch, pyarrow) may hang.
    with ProcessPoolExecutor(min(processes, len(blocks)), get_context("spawn")) as pool:
        yield from pool.map(make, blocks)


def _make_block(
    generator: NegativeGenerator, seed: int, count: int, captions: list[str]
) -> dict[str, list]:
    rows: dict[str, list] = {name: [] for name in SCHEMA.names}
    for caption in captions:
        for kind, negatives in _generate(generator, seed, count, caption).items():
            if negatives:
                for name, value in zip(SCHEMA.names, (caption, kind, negatives), strict=True):
                    rows[name].append(value)
    return rows


def _generate(
    generator: NegativeGenerator, seed: int, count: int, caption: str
) -> dict[str, list[str]]:
    made = generator.generate(caption, caption_rng(seed, caption), count)
    return {kind: made[kind] for kind in generator.kinds}
