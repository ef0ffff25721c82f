"""Attack: adapters with the mistakes that people make: one line with file, method and fault.

Each goes through `fsc-bench run` on a task of four pictures, so that what shows only after the
trial on two pictures and two texts is met as well.
"""

import re

from outcomes import Tally, command, main, tried, unprintable, workplace
from toml_files import TASK, raw_data

GOOD = """
import numpy as np

def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

class Model:
    calls = 0

    def preprocess(self, image):
        return np.asarray(image.resize((4, 4)), np.float32)

    def encode_images(self, images):
        Model.calls += 1
        return unit(np.asarray(images).reshape(len(images), -1)[:, :8] + 1)

    def encode_texts(self, texts):
        return unit([[len(text), 1, 2, 3, 4, 5, 6, 7] for text in texts])

model = Model()
"""
IMAGES = "return unit(np.asarray(images).reshape(len(images), -1)[:, :8] + 1)"
TEXTS = "return unit([[len(text), 1, 2, 3, 4, 5, 6, 7] for text in texts])"
PIXELS = "return np.asarray(image.resize((4, 4)), np.float32)"


def images(line: str) -> tuple[str, str]:
    return IMAGES, line


def texts(line: str) -> tuple[str, str]:
    return TEXTS, line


def pixels(line: str) -> tuple[str, str]:
    return PIXELS, line


def end(line: str) -> tuple[str, str]:
    return "model = Model()", f"model = Model()\n{line}"


CASES: list[tuple[str, str]] = [
    ("import numpy as np", "import nowhere_to_be_found"),
    ("import numpy as np", "import numpy as np\nraise SystemExit(3)"),
    ("import numpy as np", "def f(:"),
    ("import numpy as np", "import numpy as np\n\0"),
    ("model = Model()", "model = 3"),
    ("model = Model()", "model = None"),
    ("model = Model()", "import numpy as model"),
    ("model = Model()", "def model(path): return Model()"),
    ("model = Model()", "def model(): raise RuntimeError('no weights\\nhere')"),
    ("model = Model()", "def model(): return None"),
    ("def encode_texts", "def encode_text"),
    ("def preprocess(self, image)", "def preprocess(self)"),
    end("model.identity = 3"),
    end("model.identity = ''"),
    end("model.notes = 3"),
    end("model.extras = 3"),
    end("model.device = 'gpu'"),
    end("model.device = 3"),
    end("type(model).identity = property(lambda self: 1 / 0)"),
    end("type(model).device = property(lambda self: 1 / 0)"),
    end("type(model).notes = property(lambda self: 1 / 0)"),
    end("model.tokenize = lambda texts: None"),
    end("model.encode_texts = 'x'"),
    pixels("return image"),
    pixels("return None"),
    pixels("return {'pixel_values': np.zeros(3)}"),
    pixels("return np.asarray(image, np.float32)"),
    pixels("return np.asarray(image.resize((4, 4)), object)"),
    pixels("raise ValueError('two\\nlines \\x1b[2J')"),
    pixels("import sys; sys.exit(0)"),
    images("return None"),
    images("return [[1.0, 0.0]] * len(images)"),
    images("return np.ones((len(images), 8), np.float32)"),
    images("return np.ones(len(images), np.float32)"),
    images("return unit(np.ones((1, 8)))"),
    images("return unit(np.ones((len(images) + 1, 8)))"),
    images("return unit(np.ones((len(images), 5)))"),
    images("return np.ones((len(images), 8), int)"),
    images("return unit(np.ones((len(images), 8))).astype(complex)"),
    images("return unit(np.ones((len(images), 8))).astype(object)"),
    images("return np.full((len(images), 8), np.inf, np.float32)"),
    images("return np.zeros((len(images), 8), np.float32)"),
    images("return np.zeros((len(images), 0), np.float32)"),
    images("assert False"),
    images("raise MemoryError('no')"),
    images("return unit(np.ones((2, 8)))"),
    images("return unit(np.ones((len(images), 8 if Model.calls < 2 else 7)))"),
    images("return unit(np.ones((len(images), 8))) * (1 if Model.calls < 2 else 9)"),
    images("return unit(np.ones((len(images), 8))) if Model.calls < 2 else None"),
    images("return unit(np.ones((len(images), 8))).astype(float if Model.calls < 2 else int)"),
    texts("return None"),
    texts("return unit([[1, 2, 3]] * len(texts))"),
    texts("return unit([[1, 2, 3, 4, 5, 6, 7, 8]] * 3)"),
    texts("return texts"),
    texts("return unit([[ord(text[99])] * 8 for text in texts])"),
    texts("return self.nothing(texts)"),
]


def attack(count: int = len(CASES), every: int = 1) -> Tally:
    cases = CASES[:: max(1, every)][:count]
    with workplace() as folder:
        raw_data(folder / "data" / "raw" / "tiny")
        (folder / "tiny.toml").write_text(TASK)

        def one(number: int) -> tuple[str, str]:
            old, new = cases[number]
            assert old in GOOD, old
            (folder / f"a{number}.py").write_text(GOOD.replace(old, new))
            spec = f"py:a{number}.py:model"
            words = ["run", "-t", "tiny.toml", "-m", spec, "--data", "data", "-o", "runs"]
            ran = command(*words, "--device", "cpu")
            return outcome(ran.code, ran.err, ran.out, number), f"{new}: {ran.err[-200:]!r}"

        return tried(len(cases), one)


def outcome(code: int | None, err: str, out: str, number: int) -> str:
    if code is None or "Traceback" in err:
        return "traceback"
    if unprintable(err) or unprintable(out):
        return "raw on the terminal"
    if code == 0:
        return "silent"
    lines = [line for line in err.splitlines() if line.startswith("fsc-bench:")]
    named = [line for line in lines if re.search(rf"a{number}\.py", line)]
    return "refused" if named else "another line"


if __name__ == "__main__":
    main(attack, len(CASES))
