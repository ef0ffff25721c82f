"""How many images a card encodes at once: found by trying, kept, and the same for everybody."""

import json

import pytest
import torch

from fsc_bench.data.images import Images
from fsc_bench.embed import batch_size
from fsc_bench.embed.batch_size import found_batch
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.store import Store
from fsc_bench.model import Extras
from fsc_bench.models import load_model


class Clock:
    """Time that only a card at work spends: what else the machine does must not decide a test."""

    now = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(batch_size, "time", Clock)


class Card:
    """Encodes at a speed that its batches of more than `best` images do not raise."""

    def __init__(self, best: int, memory: int = 10**6):
        self.best, self.memory, self.sizes = best, memory, []

    def __call__(self, size: int) -> None:
        self.sizes.append(size)
        if size > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        Clock.now += 0.02 * max(1, size / self.best)


def found(folder, card, name="Card X1"):
    return found_batch(folder, name, card)


def test_the_smallest_batch_is_taken_that_no_larger_one_beats(tmp_path):
    card = Card(best=256)

    assert found(tmp_path, card) == 256
    assert max(card.sizes) == 512


def test_memory_bounds_it(tmp_path):
    assert found(tmp_path, Card(best=1024, memory=128)) == 128
    assert found(tmp_path, Card(best=1024, memory=1), "Card X2") == 64  # encode.py halves it


def test_other_errors_are_not_taken_for_memory(tmp_path):
    def broken(size):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        found(tmp_path, broken)


def test_what_was_found_is_kept_for_cards_of_that_name(tmp_path):
    assert found(tmp_path, Card(best=128)) == 128
    again = Card(best=512)
    assert found(tmp_path, again) == 128
    assert again.sizes == []
    assert found(tmp_path, again, "Card Y") == 512
    assert json.loads((tmp_path / "batch-Card-X1.json").read_text())["images"] == 128


def test_tokens_are_found_beside_the_images_of_a_file_that_knows_none(tmp_path):
    file = tmp_path / "batch-Card-X1.json"
    file.write_text('{"card": "Card X1", "images": 128}\n')
    card = Card(best=8192)

    assert found_batch(tmp_path, "Card X1", card, "tokens") == 8192
    assert sorted(set(card.sizes)) == [2048, 4096, 8192, 16384]
    assert json.loads(file.read_text()) == {"card": "Card X1", "images": 128, "tokens": 8192}
    assert found_batch(tmp_path, "Card X1", Card(best=2048), "tokens") == 8192
    assert found(tmp_path, Card(best=512)) == 128


@pytest.mark.parametrize("content", ["", "{}", '{"images": "many"}', '{"images": 0}', "[]"])
def test_a_file_that_says_nothing_is_not_believed(tmp_path, content):
    (tmp_path / "batch-Card-X1.json").write_text(content)

    assert found(tmp_path, Card(best=128)) == 128


def test_of_two_processes_that_try_at_once_the_first_decides(tmp_path):
    def late(size):  # while this one tries, another finishes
        Card(best=256)(size)
        (tmp_path / "batch-Card-X1.json").write_text('{"card": "Card X1", "images": 64}')

    assert found(tmp_path, late) == 64


def test_the_engine_asks_a_card_and_not_a_cpu(tiny_clip, tmp_path):
    model = load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu")
    assert Encoder(model, Images(tmp_path), Store(tmp_path / "cpu")).batch == 32
    assert not list((tmp_path / "cpu").glob("batch-*"))

    class Texts:
        ids = staticmethod(model.extras.tokens.ids)

        def encode(self, ids):
            Card(best=4096)(ids.size)
            return torch.zeros(len(ids), 4)

    class OnCard:
        device = "card:1"
        preprocess = staticmethod(model.preprocess)
        identity = model.identity
        extras = Extras()
        extras.pixels, extras.tokens = model.extras.pixels, Texts()

        def encode_images(self, images):
            Card(best=128)(len(images))
            return torch.zeros(len(images), 4)

    encoder = Encoder(OnCard(), Images(tmp_path), Store(tmp_path / "card"))
    assert encoder.batch == 128
    assert encoder.tokens == 4096
    kept = json.loads((tmp_path / "card" / "batch-card.json").read_text())
    assert (kept["images"], kept["tokens"]) == (128, 4096)
    told = Encoder(OnCard(), Images(tmp_path), Store(tmp_path / "card"), 7)
    assert (told.batch, told.tokens) == (7, 7 * 32)
