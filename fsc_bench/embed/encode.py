"""Encode: the plan's missing images and texts, each once, into the store. Nothing here knows a
score.

A run that was killed, split over processes or helped by another task's vectors should not differ
from an undisturbed one. Matrix products of one shape treat their rows alike, but products of
different shapes differ in the last bits (float32 ViT-B/32 on a CPU gives other bits for 1-3 images
than for 4-64). So with `exact`, for models whose extras say `rows_alike`, every batch has one
shape, the last one filled up with copies, and a text's shape follows from its own number of tokens
alone (`bucket`). Then results are equal bit for bit whatever happened before, on one kind of
machine and with one batch size of 16 or more. Only where a batch did not fit into memory and had to
shrink may the last bits move, and the run says so.

That is the rule on a CPU, where it costs little. On a GPU batches are a hundred times larger than
what is left at the end, so `exact` is off there unless it is asked for: nothing is filled up, and
the last bits of a vector depend on its batch.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.data.images import Images
from fsc_bench.data.jpeg import open_rgb
from fsc_bench.data.pixels import cropped
from fsc_bench.embed.batch_size import found_batch
from fsc_bench.embed.plan import Place, Plan
from fsc_bench.embed.store import Store
from fsc_bench.errors import DataError, RunError, UsageError
from fsc_bench.model import DualEncoder, as_rows, extras_of, stacked
from fsc_bench.system.budget import OverBudget
from fsc_bench.system.memory import free_memory, out_of_memory

CPU_BATCH = 32  # images at once: a CPU is fastest between 8 and 32, whatever the tower
TOKENS = 32  # text tokens at once, for each image of a batch
# MKL divides products of 5 to 11 rows among threads so that a row's place decides its last bits;
# with 12 to 320 rows, 1, 2 and 4 threads no place did, in any layer's shape of ViT-B/32 and
# smaller.
ROWS = 16
TEXTS = 4096  # tokenised at once, one lot ahead of the encoder
TRIES = 3
Progress = Callable[[str, int, int], Any]
Say = Callable[[str], Any]


def encode(
    plan: Plan,
    model: DualEncoder,
    images: Images,
    store: Store,
    batch_size: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> dict[bytes, str]:
    """Fills the store. Returns what could not be decoded: image key -> the line to show."""
    return Encoder(model, images, store, batch_size).encode(plan, progress)


class Encoder:
    """A model at work: its batch sizes, which shrink when memory runs out, outlast a task.

    batch_size: images at once; 0 finds out (batch_size.py). share: (rank, ranks), the part of the
    work that is this process's; every process makes the same division by content. exact: see the
    top of this file; None is on for a CPU, off for anything else.
    """

    def __init__(
        self,
        model: DualEncoder,
        images: Images,
        store: Store,
        batch_size: int = 0,
        say: Say = lambda line: None,
        share: tuple[int, int] = (0, 1),
        exact: bool | None = None,
    ):
        self.device = str(model.device)
        self.model = model
        self.extras = extras_of(model)
        self.exact = self.device == "cpu" if exact is None else exact
        self.images = images
        self.store = store
        self.batch_size = batch_size
        self.say = say
        self.share = share
        # Whether batches that are not full are filled up with copies.
        self.fill = self.exact and self.extras.rows_alike
        self.fitting: dict[str, int] = {}  # what -> the largest batch that memory held
        self.calls = {"images": 0, "texts": 0}

    @cached_property
    def batch(self) -> int:
        """Images at once."""
        if self.batch_size or self.device == "cpu":
            return self.batch_size or CPU_BATCH
        image, prepare = self.one_image()
        one = prepare(image)

        def trial(rows: int) -> None:
            wait_for(self.images_at_once([one] * rows, rows))

        return found_batch(self.store.folder, card(self.device), trial)

    @property
    def tokens(self) -> int:
        """Tokens of texts at once."""
        return self.batch * TOKENS

    def encode(
        self, plan: Plan, progress: Progress = lambda what, done, total: None
    ) -> dict[bytes, str]:
        """Fills the store with this process's share. Returns image key -> why it is unreadable."""
        failures = self._encode_images(plan, progress)
        self._encode_texts(plan, progress)
        self.store.sync()
        return failures

    # ---------------------------------------------------------------- images

    def _encode_images(self, plan: Plan, progress: Progress) -> dict[bytes, str]:
        groups = self._groups(plan)
        total = sum(map(len, groups))
        failures: dict[bytes, str] = {}
        ready: list[tuple[bytes, Any]] = []
        done = 0

        def store_full(least: int) -> None:
            while len(ready) >= least:
                keys, pixels = zip(*ready[: self.batch], strict=True)
                vectors = self._fitted("images", pixels, self.batch, self.images_at_once)
                self.store.put("image", keys, vectors)
                del ready[: self.batch]
                progress("images", done, total)

        for loaded in self._loaded(groups, plan.image_place):
            for key, pixels in loaded:
                done += 1
                if isinstance(pixels, DataError):
                    failures[key] = str(pixels)
                else:
                    ready.append((key, pixels))
            store_full(self.batch)
        store_full(1)
        if total:
            progress("images", total, total)
        return failures

    def _groups(self, plan: Plan) -> list[list[bytes]]:
        """The missing images of this share, those of one file together: it is decoded once."""
        files: dict[tuple, list[bytes]] = {}
        for key, (task, ref) in plan.image_place.items():
            files.setdefault((task, ref.source, ref.path), []).append(key)
        rank, ranks = self.share
        # A file goes where its first image's content sends it, whatever is missing by now.
        mine = [keys for keys in files.values() if int.from_bytes(keys[0][:8]) % ranks == rank]
        wanted = set(self.store.missing("image", [key for keys in mine for key in keys]))
        kept = [[key for key in keys if key in wanted] for keys in mine]
        return [keys for keys in kept if keys]

    def _loaded(
        self, groups: Sequence[list[bytes]], place: Mapping[bytes, Place]
    ) -> Iterator[list[tuple[bytes, Any]]]:
        """Pixels, in order. Threads decode the next batches while the encoder works; Pillow and
        numpy let go of the interpreter, so threads do as well as processes and nothing is copied
        between: beside an H100 with 16 cores they brought 984 pictures a second, processes 553.
        """
        if not groups:
            return
        pixels = self.extras.pixels
        prepare = self.model.preprocess if pixels is None else pixels.load

        def load(keys: list[bytes]) -> list[tuple[bytes, Any]]:
            task, ref = place[keys[0]]
            arrays = pixels is not None and pixels.takes_arrays
            try:
                whole = open_rgb(self.images.content(task, ref), "", arrays)
            except DataError:
                return [(key, self._why(place[key])) for key in keys]
            return [(key, crop(whole, place[key])) for key in keys]

        def crop(whole: Any, where: Place) -> Any:
            try:
                part = cropped(whole, where[1].box)
            except OverBudget:
                return self._why(where)
            return prepare(part)

        with ThreadPoolExecutor(decoders()) as pool:
            window: list[tuple[int, Future]] = []
            waiting = iter(groups)
            held = 0
            try:
                while True:
                    while held < 3 * self.batch and (keys := next(waiting, None)) is not None:
                        window.append((len(keys), pool.submit(load, keys)))
                        held += len(keys)
                    if not window:
                        return
                    count, future = window.pop(0)
                    yield future.result()
                    held -= count
            finally:
                for _, future in window:
                    future.cancel()

    def _why(self, place: Place) -> DataError:
        """Reads once more what could not be read, for the line that names the file."""
        try:
            self.images.open(*place)
        except DataError as error:
            return error
        return DataError(f"{place[0]}: the image {place[1]} could not be read the first time.")

    def images_at_once(self, pixels: Sequence[Any], rows: int) -> Any:
        """Vectors of prepared images; a tower that wants batches of one shape gets them."""
        batch = stacked(filled(pixels, rows) if self._fills("images") else pixels)
        self.calls["images"] += 1
        whole = self.extras.pixels
        return self.model.encode_images(batch if whole is None else whole.finish(batch))

    # ---------------------------------------------------------------- texts

    def _encode_texts(self, plan: Plan, progress: Progress) -> None:
        rank, ranks = self.share
        mine = plan.text_key
        if ranks > 1:
            mine = {t: k for t, k in mine.items() if int.from_bytes(k[:8]) % ranks == rank}
        texts, keys = list(mine), list(mine.values())
        wanted = np.flatnonzero(~self.store.has("text", keys))
        if not len(wanted):
            return
        work = [(keys[place], texts[place]) for place in wanted]
        del texts, keys
        if self.extras.tokens is not None:
            self._encode_tokens(work, progress)
        else:
            work.sort(key=lambda item: len(item[1]))
            for begin in range(0, len(work), self.batch):
                part = work[begin : begin + self.batch]
                keys, texts = zip(*part, strict=True)
                vectors = self._fitted("texts", texts, self.batch, self.strings_at_once)
                self.store.put("text", keys, vectors)
                progress("texts", begin + len(part), len(work))

    def _encode_tokens(self, work: list[tuple[bytes, str]], progress: Progress) -> None:
        shares = self.extras.trees is not None
        encoded = (self._sharing if shares else self._bucketed)(self._tokenised(work))
        done = 0
        for keys, vectors in encoded:
            self.store.put("text", keys, vectors)
            done += len(keys)
            progress("texts", done, len(work))

    def _sharing(self, lots: Iterator[tuple]) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """What texts of a lot begin with alike is encoded once; a batch has `tokens` tokens."""
        for keys, ids, lengths in lots:
            for chosen in self.extras.trees.batches(ids, lengths, self.tokens):
                texts = [ids[place, : lengths[place]] for place in chosen]
                n = len(texts)
                vectors = self._fitted("texts", texts, n, partial(self.tree_at_once, n))
                yield [keys[place] for place in chosen], vectors

    def tree_at_once(self, n: int, texts: Sequence[np.ndarray], rows: int) -> Any:
        """Where only `rows` of a batch's `n` texts are to fit, products are as much smaller."""
        self.calls["texts"] += 1
        if not self.fill:
            return self.extras.trees.encode(texts, 0)
        return self.extras.trees.encode(filled(texts, rows), self.tokens * rows // n)

    def _bucketed(self, lots: Iterator[tuple]) -> Iterator[tuple[Sequence[bytes], np.ndarray]]:
        """Texts of one bucket of lengths together; each bucket waits until it fills a batch."""
        waiting: dict[int, list[tuple[bytes, np.ndarray]]] = {}
        for keys, ids, lengths in lots:
            needed = buckets(lengths, ids.shape[1])
            for length in np.unique(needed).tolist():
                bin_ = waiting.setdefault(length, [])
                bin_ += [(keys[i], ids[i]) for i in np.flatnonzero(needed == length)]
                rows = self.rows(length)
                while len(bin_) >= rows:
                    yield self._one_length(bin_[:rows], length)
                    del bin_[:rows]
        for length, batch in self._rest(waiting):
            yield self._one_length(batch, length)

    def _rest(self, waiting: dict[int, list]) -> Iterator[tuple[int, list]]:
        """(length, batch) of what fills no batch: each length alone, where its shape decides bits;
        otherwise together, as many lengths as a batch takes.
        """
        batch: list = []
        longest = 0
        for length in sorted(filter(waiting.get, waiting)):
            if batch and (self.fill or len(batch) + len(waiting[length]) > self.rows(length)):
                yield longest, batch
                batch = []
            batch, longest = batch + waiting[length], length
        if batch:
            yield longest, batch

    def rows(self, length: int) -> int:
        return max(ROWS, self.tokens // length // ROWS * ROWS)

    def _one_length(self, batch: list[tuple], length: int) -> tuple[Sequence[bytes], np.ndarray]:
        keys, ids = zip(*batch, strict=True)
        what, cut = f"texts of {length} tokens", [row[:length] for row in ids]
        return keys, self._fitted(what, cut, self.rows(length), self.tokens_at_once)

    def _tokenised(self, work: Sequence[tuple[bytes, str]]) -> Iterator[tuple]:
        """(keys, ids [n, context], tokens needed [n]) in lots, one ahead of the encoder."""

        def lot(begin: int) -> tuple:
            part = work[begin : begin + TEXTS]
            return [key for key, _ in part], *self.extras.tokens.ids([text for _, text in part])

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(lot, 0)
            for begin in range(TEXTS, len(work) + TEXTS, TEXTS):
                now = ahead.result()
                if begin < len(work):
                    ahead = pool.submit(lot, begin)
                yield now

    def strings_at_once(self, texts: Sequence[str], rows: int) -> Any:
        self.calls["texts"] += 1
        return self.model.encode_texts(filled(texts, rows) if self.fill else list(texts))

    def tokens_at_once(self, ids: Sequence[np.ndarray], rows: int) -> Any:
        self.calls["texts"] += 1
        return self.extras.tokens.encode(np.stack(filled(ids, rows) if self.fill else ids))

    # ---------------------------------------------------------------- memory

    def _fitted(self, what: str, items: Sequence, rows: int, call: Callable) -> np.ndarray:
        """Unit vectors of `items`, in as many calls as memory asks for; what was done stays done.

        A batch that does not fit is tried again as it is, because the same shape gives the same
        bits and a neighbour's peak passes; then it is halved, for the rest of the run.
        """
        rows = min(rows, self.fitting.get(what, rows))
        done, begin, tries = [], 0, 0
        while begin < len(items):
            part = items[begin : begin + rows]
            try:
                vectors = call(part, rows)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                vectors = None
            if vectors is not None:
                asked = rows if self._fills(what) else len(part)
                done.append(unit_rows(vectors, asked)[: len(part)])
                begin, tries = begin + len(part), 0
                continue
            tries += 1
            free_memory(thoroughly=tries == TRIES)
            if tries < TRIES:
                time.sleep(0.05 * tries)
                continue
            if rows == 1:
                raise RunError(f"out of memory with one of the {what} alone; use another device.")
            rows = self.fitting[what] = (rows + 1) // 2
            tries = 0
            self.say(
                f"out of memory: {what} now {rows} at once. Vectors of another batch size may "
                "differ in the last bits."
            )
        return np.concatenate(done)

    def _fills(self, what: str) -> bool:
        """Whether batches of "images", or of texts, are filled up to one shape."""
        return self.fill or (what == "images" and self.extras.one_shape)

    def one_image(self) -> tuple[Image.Image, Callable]:
        """A made-up photograph, and what prepares it for the model."""
        noise = np.random.default_rng(0)
        smooth = Image.fromarray(noise.integers(0, 256, (30, 40, 3), np.uint8)).resize((640, 480))
        pixels = self.extras.pixels
        return smooth, self.model.preprocess if pixels is None else pixels.load


def filled(items: Sequence, rows: int) -> list:
    """`rows` items: those there are, and copies of the last."""
    return [*items, *[items[-1]] * (rows - len(items))]


def wait_for(result: Any) -> None:
    if hasattr(result, "cpu"):
        result.cpu()  # a GPU answers before it has worked


def bucket(length: int) -> int:
    """The number of tokens that a text of `length` tokens is encoded with: it alone decides."""
    step = 2 if length <= 32 else 4 if length <= 48 else 8
    return -(-length // step) * step


def buckets(lengths: np.ndarray, context: int) -> np.ndarray:
    table = np.array([bucket(length) for length in range(context + 1)])
    return np.minimum(table[lengths], context)


def decoders() -> int:
    """Threads that decode: one a core that is this process's own."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(32, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def card(device: str) -> str:
    """What a device is called, with its place left out: equal cards work alike."""
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return device.partition(":")[0]


def unit_rows(vectors: Any, n: int) -> np.ndarray:
    """What an encoder gave as float32 [n, d]; an adapter that breaks its promise is told so."""
    rows = as_rows(vectors)
    if rows.ndim != 2 or len(rows) != n:
        raise UsageError(f"the model gave embeddings of shape {rows.shape} for {n} items.")
    lengths = np.linalg.norm(rows, axis=1)
    good = np.isnan(lengths) | (np.abs(lengths - 1) < 1e-3)
    if not good.all():
        raise UsageError(
            f"the model's embeddings are not unit length but {lengths[~good][0]:.4g}: divide each "
            "by its norm."
        )
    return rows
