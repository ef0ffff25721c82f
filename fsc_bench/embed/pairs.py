"""Pairs: scores of images with texts by a model that looks at both together, each pair once, kept
in the store. Nothing here knows why a pair is wanted.

A pair's key is made of the digests of its image's content and its text, so that tasks, records and
both ways of retrieval share what they have in common. Pairs are scored image by image: what of an
image no text changes is computed once. Each batch is in the store before the next one begins.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsc_bench.embed.encode import Encoder, Progress
from fsc_bench.embed.plan import Plan, Wanted
from fsc_bench.embed.store import Store, as_keys
from fsc_bench.errors import DataError, UsageError
from fsc_bench.model import as_rows, depth_of, stacked
from fsc_bench.system.memory import free_memory, out_of_memory


def pair_keys(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """uint64 [n, 4] of the keys of images and texts, uint64 [n, 4] each: 128 bits of both digests.

    The first word, by which an index is sorted, is of both: all pairs of an image would share the
    image's. (From it and the image's own first word follows the text's.)
    """
    return np.stack([images[:, 0] ^ texts[:, 0], images[:, 0], images[:, 1], texts[:, 1]], axis=1)


@dataclass(frozen=True)
class PairScores:
    """What a store holds of a task's pairs. depth: how many answers retrieval ranks anew."""

    plan: Plan
    store: Store
    depth: int

    def keys(self, task: str, wanted: Wanted) -> np.ndarray:
        """uint64 [n, 4]."""
        plan = self.plan
        images = as_keys([plan.image_key[(task, ref)] for ref in wanted.refs])
        texts = as_keys([plan.text_key[text] for text in wanted.texts])
        return pair_keys(images[wanted.image], texts[wanted.text])

    def scores(self, task: str, wanted: Wanted) -> np.ndarray:
        """float32 [n] of pairs that were scored."""
        if not len(wanted.image):
            return np.empty(0, np.float32)
        return self.store.get("pair", self.keys(task, wanted))[:, 0]


class PairEncoder(Encoder):
    """A pair scorer at work; see `Encoder`. first: its first stage at work, for retrieval."""

    first: Encoder | None = None
    rows = 0  # pairs at once, where memory held fewer than a batch

    def scores_of(self, plan: Plan) -> PairScores:
        return PairScores(plan, self.store, depth_of(self.model))

    def images_at_once(self, pixels: Sequence[Any], rows: int) -> Any:
        """What the model reads of prepared images, before it sees a text."""
        batch, whole = stacked(pixels), self.extras.pixels
        batch = batch if whole is None else whole.finish(batch)
        self.calls["images"] += 1
        read = getattr(self.model, "read_images", None)
        return batch if read is None else read(batch)

    def score(
        self,
        plan: Plan,
        task: str,
        blocks: Iterable[Wanted],
        progress: Progress = lambda what, done, total: None,
    ) -> dict[bytes, str]:
        """Scores this process's share of what the store lacks. Returns image key -> why it is
        unreadable.
        """
        failures: dict[bytes, str] = {}
        for wanted in blocks:
            missing = self._missing(plan, task, wanted)
            done, total = 0, sum(len(texts) for texts in missing.values())
            for count in self._score(plan, missing, failures):
                done += count
                progress("pairs", done, total)
        self.store.sync()
        return failures

    def _missing(self, plan: Plan, task: str, wanted: Wanted) -> dict[bytes, list[str]]:
        """The texts with which each image is to be scored, in the order of the images."""
        keys = self.scores_of(plan).keys(task, wanted)
        _, first = np.unique(np.ascontiguousarray(keys).view("V32").ravel(), return_index=True)
        first.sort()
        places = first[~self.store.has("pair", keys[first])]
        rank, ranks = self.share
        found: dict[bytes, list[str]] = {}
        images = [plan.image_key[(task, ref)] for ref in wanted.refs]
        for image, text in zip(
            wanted.image[places].tolist(), wanted.text[places].tolist(), strict=True
        ):
            key = images[image]
            if int.from_bytes(key[:8]) % ranks == rank:
                found.setdefault(key, []).append(wanted.texts[text])
        return found

    def _score(
        self, plan: Plan, missing: dict[bytes, list[str]], failures: dict[bytes, str]
    ) -> Iterator[int]:
        """Scores lots of images with their texts; gives how many pairs each batch had."""
        files: dict[tuple, list[bytes]] = {}
        for key in missing:
            task, ref = plan.image_place[key]
            files.setdefault((task, ref.source, ref.path), []).append(key)
        ready: list[tuple[bytes, Any]] = []
        for loaded in self._loaded(list(files.values()), plan.image_place):
            for key, pixels in loaded:
                if isinstance(pixels, DataError):
                    failures[key] = str(pixels)
                else:
                    ready.append((key, pixels))
            while len(ready) >= self.batch:
                yield from self._lot(ready[: self.batch], missing, plan)
                del ready[: self.batch]
        if ready:
            yield from self._lot(ready, missing, plan)

    def _lot(
        self, ready: Sequence[tuple[bytes, Any]], missing: dict[bytes, list[str]], plan: Plan
    ) -> Iterator[int]:
        keys, pixels = zip(*ready, strict=True)
        read = _fitted(lambda part: [self.images_at_once(part, len(part))], pixels)
        images = [(part, place) for part in read for place in range(len(part))]
        pairs = [(image, text) for image, key in enumerate(keys) for text in missing[key]]
        pairs.sort(key=lambda pair: len(pair[1]))  # texts of one length waste no padding
        begin = 0
        while begin < len(pairs):
            rows = self.rows or self.batch
            part = pairs[begin : begin + rows]
            scores = _fitted(lambda some: [self.pairs_at_once(images, some)], part, self._shrink)
            image_keys = as_keys([keys[image] for image, _ in part])
            text_keys = as_keys([plan.text_key[text] for _, text in part])
            self.store.put("pair", pair_keys(image_keys, text_keys), np.concatenate(scores))
            begin += len(part)
            yield len(part)

    def pairs_at_once(
        self, images: Sequence[tuple[Any, int]], pairs: Sequence[tuple[int, str]]
    ) -> np.ndarray:
        """float32 [n, 1] of (place in images, text); an image is (what was read, its row there)."""
        rows = [images[image] for image, _ in pairs]
        if all(part is rows[0][0] for part, _ in rows):
            shown = rows[0][0][[place for _, place in rows]]
        else:
            shown = stacked([part[place] for part, place in rows])
        self.calls["texts"] += 1
        found = as_rows(self.model.score_pairs(shown, [text for _, text in pairs]))
        if found.shape != (len(pairs),):
            raise UsageError(
                f"the model gave scores of shape {found.shape} for {len(pairs)} pairs; it must be "
                f"({len(pairs)},)."
            )
        return found[:, None]

    def _shrink(self, rows: int) -> None:
        """Fewer pairs at once, for the rest of the run."""
        self.rows = rows
        self.say(
            f"out of memory: pairs now {rows} at once. Scores of another batch size may differ in "
            "the last bits."
        )


def _fitted(
    call: Callable[[Sequence], list], items: Sequence, told: Callable[[int], Any] | None = None
) -> list:
    """What `call` gives of all items, of halves where memory does not hold them together."""
    try:
        return call(items)
    except Exception as error:
        if len(items) == 1 or not out_of_memory(error):
            raise
    free_memory(thoroughly=True)
    half = (len(items) + 1) // 2
    if told:
        told(half)
    return _fitted(call, items[:half], told) + _fitted(call, items[half:], told)
