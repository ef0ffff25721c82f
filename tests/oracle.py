"""Adapters that know a task's answers: readers, metrics and tables must make 100 or 0 of them."""

import hashlib
from collections.abc import Sequence

import numpy as np

from fsc_bench.data.images import Images
from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.plan import class_prompts
from fsc_bench.model import Identity


class Oracle:
    """Says what the records say: a text points at its own images and away from the others.

    Every different picture (or class) is an axis. `sign` -1 makes the opposite of an oracle.
    """

    device = "cpu"

    def __init__(self, prepared: Prepared, images: Images, sign: int = 1):
        self.identity = Identity(f"oracle {sign} {prepared.task.name}", *[""] * 4, 0, "fp32")
        self.sign = sign
        self.axis: dict[bytes, dict[int, float]] = {}
        self.text: dict[str, dict[int, float]] = {}
        task = prepared.task
        names: dict[bytes, int] = {}
        for row in prepared.records:
            if not row.scored:
                continue
            keys = [self.key(images.open(task.name, ref)) for ref in row.images]
            if task.kind == "classification":
                for label in row.labels:
                    self.axis.setdefault(keys[0], {})[label if label >= 0 else ~label] = 1.0
                continue
            for place, key in enumerate(keys):
                self.axis[key] = {names.setdefault(key, len(names)): 1.0}
                for number, text in enumerate(row.texts):
                    right = task.kind == "retrieval" or place <= number < place + row.right_texts
                    points = self.text.setdefault(text, {})
                    where = names[key]
                    points[where] = 1.0 if right else points.get(where, -1.0)
        if task.kind == "classification":
            for label, texts in enumerate(class_prompts(task, next(iter(task.prompts)))):
                for text in texts:  # "missile" is two classes: it points at both
                    self.text.setdefault(text, {})[label] = 1.0
        self.width = max(len(names), len(task.classes), 1)

    @staticmethod
    def key(image) -> bytes:
        return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()

    def preprocess(self, image) -> np.ndarray:
        return np.frombuffer(self.key(image), np.uint8)

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        return self._rows([self.axis[image.tobytes()] for image in images], 1)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._rows([self.text[text] for text in texts], self.sign)

    def _rows(self, points: Sequence[dict[int, float]], sign: int) -> np.ndarray:
        rows = np.zeros((len(points), self.width), np.float32)
        for row, found in zip(rows, points, strict=True):
            row[list(found)] = list(found.values())
            row *= sign / np.linalg.norm(row)
        return rows
