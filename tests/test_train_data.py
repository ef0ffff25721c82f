"""Training data: every pair once an epoch, in an order that depends on the seed alone."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_open_clip import Tokenizer

from fsc_bench.errors import DataError, UsageError
from fsc_bench.train.batches import Batches, Pixels, crop_box, text_blocks
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.hard_negatives import FromData
from fsc_bench.train.loop import load
from fsc_bench.train.paraphrases import paraphrases
from fsc_bench.train.schedule import split_dev
from fsc_bench.train.sources import BadPair, Keys, Pair, open_pairs

PIXELS = Pixels(32, (0.5,) * 3, (0.25,) * 3, crop_scale=0.9)


def jpeg(number: int, size=(40, 50)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (number * 5 % 256, 90, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_shard(path, numbers, **broken) -> None:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            facts = {"key": f"{number:04d}", "other": f"other text {number}"}
            facts["two"] = [f"{number}, so", f"so, {number}"]
            members = {
                "jpg": broken.get("jpg", jpeg(number)),
                "txt": f"caption {number}".encode(),
                "json": json.dumps(facts).encode(),
            }
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    """24 pairs in three shards of 12, 8 and 4."""
    for shard, numbers in enumerate([range(12), range(12, 20), range(20, 24)]):
        write_shard(tmp_path / f"{shard:05d}.tar", numbers)
    return tmp_path


def make(pairs, **changes) -> Batches:
    settings = dict(
        pairs=pairs, indices=np.arange(len(pairs)), tokenizer=Tokenizer(), pixels=PIXELS,
        negatives=None, batch_size=6, seed=0, buckets=2,
    )  # fmt: skip
    return Batches(**{**settings, **changes})


def captions_of(pairs, indices) -> list[str]:
    return [pairs.caption(int(index)) for index in indices]


# --- sources ------------------------------------------------------------------------------------


def test_webdataset_reads_by_place_whatever_the_number_of_shards(shards):
    pairs = open_pairs(f"webdataset:{shards}", Keys())
    ranged = open_pairs(f"webdataset:{shards}/{{00000..00002}}.tar", Keys())

    assert len(pairs) == len(ranged) == 24
    assert pairs.fingerprint == ranged.fingerprint
    assert sorted(captions_of(pairs, range(24))) == sorted(f"caption {n}" for n in range(24))
    assert pairs[13].caption == "caption 13" and pairs[13].image.size == (40, 50)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2), (3, 0)])
def test_each_pair_is_seen_once_an_epoch_by_any_number_of_processes_and_workers(
    shards, world, workers
):
    pairs = open_pairs(f"webdataset:{shards}", Keys())
    seen, config = [], TrainConfig(workers=workers)
    for rank in range(world):
        batches = make(pairs, rank=rank, world=world)
        assert batches.steps_per_epoch == 4
        for parts in load(batches, range(4), config):
            for part in parts:
                ids = torch.cat([block.ids[:, 1:] for block in part.texts if len(block.ids)])
                seen += ids[:, 1].tolist()  # the word that is the pair's number

    wanted = Tokenizer()([f"caption {n}" for n in range(24)])[:, 2].tolist()
    assert sorted(seen) == sorted(wanted)


def test_webdataset_takes_captions_from_json_or_from_a_folder_beside_the_shards(shards):
    beside = shards / "coca"
    beside.mkdir()
    for number in range(24):
        (beside / f"{number:04d}.txt").write_text(f"coca {number}\nsecond line\n")

    assert open_pairs(f"webdataset:{shards}", Keys(caption="other")).caption(3) == "other text 3"
    assert open_pairs(f"webdataset:{shards}", Keys(caption="coca")).caption(3) == "coca 3"
    with pytest.raises(DataError, match="Did you mean 'other'"):
        open_pairs(f"webdataset:{shards}", Keys(caption="othr"))


def test_a_shard_cut_short_or_absent_is_an_error_and_not_a_smaller_data_set(shards):
    whole = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(whole[: len(whole) // 2])
    (shards / "00001_stats.json").write_text(json.dumps({"successes": 8}))
    with pytest.raises(DataError, match=r"00001\.tar"):
        open_pairs(f"webdataset:{shards}", Keys())
    with pytest.raises(DataError, match=r"1 shards are absent, such as 00003\.tar"):
        open_pairs(f"webdataset:{shards}/{{00000..00003}}.tar", Keys())


def test_coco_tsv_finds_images_below_links_and_names_the_near_miss(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "C_1.jpg").write_bytes(jpeg(1))
    table = tmp_path / "train.tsv"
    table.write_text(
        "\ttitle\tfilepath\tneg_caption\n0\ta dog and a cat\tcoco/val2014/C_1.jpg\t"
        "['a cat and a dog']\n1\t\tcoco/val2014/C_1.jpg\t[]\n"
        "2\tx\tcoco/val2014/absent.jpg\t__import__('os')\n"
    )
    keys = Keys(negatives="data")
    pairs = open_pairs(f"coco-tsv:{table}", keys, {"coco/val2014": str(folder)})

    assert pairs[0].negatives == ("a cat and a dog",)
    for index, says in [(1, "caption is empty"), (2, "not a list")]:
        with pytest.raises(BadPair, match=says):
            pairs[index]
    with pytest.raises(UsageError, match=r"no column 'titel'.*Did you mean 'title'"):
        open_pairs(f"coco-tsv:{table}", Keys(caption="titel"))


def test_parquet_finds_its_columns_and_counts_a_damaged_image_as_one_pair(tmp_path):
    path = tmp_path / "pairs.parquet"
    images = [{"bytes": jpeg(1), "path": None}, {"bytes": b"no image", "path": None}]
    pd.DataFrame({"image": images, "text": ["one", "two"]}).to_parquet(path)
    pairs = open_pairs(f"parquet:{path}", Keys())

    assert pairs[0].caption == "one" and pairs[0].image.size == (40, 50)
    with pytest.raises(BadPair, match="not a readable image"):
        pairs[1]
    with pytest.raises(UsageError, match="no column 'txt' for the caption"):
        open_pairs(f"parquet:{path}", Keys(caption="txt"))


class TwoCaptions:
    """Five pairs of three images: "a", "b" twice, and "c" twice with one caption."""

    rows = (("a", "one"), ("b", "two"), ("b", "three"), ("c", "four"), ("c", "four"))
    keys = tuple(key for key, _ in rows)

    def __len__(self):
        return 5

    def caption(self, index):
        return self.rows[index][1]

    def __getitem__(self, index):
        return Pair(Image.new("RGB", (8, 8)), self.caption(index))


def test_another_caption_of_the_same_image_is_a_paraphrase():
    pairs = TwoCaptions()
    config = TrainConfig(positives="captions", positive_text_weight=1.0)
    found = paraphrases(config, pairs)
    drawn = found.draw(range(5), [pairs[n] for n in range(5)], [np.random.default_rng(0)] * 5)

    assert drawn == [None, "three", "two", None, None]
    assert paraphrases(TrainConfig(positives="captions"), pairs) is None  # its loss is off


def test_paraphrases_come_from_a_column_of_sentences_or_lists(tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    table = tmp_path / "train.tsv"
    table.write_text(
        "title\tfilepath\tpos_caption\tother\na dog\t1.jpg\tone dog\t1\n"
        "a cat\t1.jpg\t['one cat', 'some cat']\t2\na bird\t1.jpg\t\t3\na fox\t1.jpg\t[3]\t4\n"
    )
    pairs = open_pairs(f"coco-tsv:{table}", Keys(positives="data"))

    assert [pairs[n].positives for n in range(3)] == [("one dog",), ("one cat", "some cat"), ()]
    with pytest.raises(BadPair, match="the paraphrases are not a list of strings"):
        pairs[3]
    other = open_pairs(f"coco-tsv:{table}", Keys(positives="other"))
    assert other[0].positives == ("1",) and other.fingerprint != pairs.fingerprint
    with pytest.raises(UsageError, match=r"no column 'pos_captoin'.*Did you mean 'pos_caption'"):
        open_pairs(f"coco-tsv:{table}", Keys(positives="pos_captoin"))


def test_parquet_and_webdataset_bring_paraphrases_too(tmp_path, shards):
    path = tmp_path / "pairs.parquet"
    image = {"bytes": jpeg(1), "path": None}
    texts = [["one", "uno"], ["two", "dos"]]
    rows = {"image": [image] * 2, "text": texts, "paraphrase": ["1", None]}
    pd.DataFrame(rows).to_parquet(path)
    column = open_pairs(f"parquet:{path}", Keys(positives="data"))
    row = open_pairs(f"parquet:{path}", Keys())

    assert [column[n].positives for n in range(2)] == [("1",), ()]
    assert [row[n].positives for n in range(2)] == [("uno",), ("dos",)]
    assert row[0].caption == "one"
    tars = open_pairs(f"webdataset:{shards}", Keys(positives="other"))
    assert tars[3].caption == "caption 3" and tars[3].positives == ("other text 3",)
    both = open_pairs(f"webdataset:{shards}", Keys(caption="two"))
    assert both[3].caption == "3, so" and both[3].positives == ("so, 3",)
    with pytest.raises(DataError, match=r"no paraphrase 'othr'.*Did you mean 'other'"):
        open_pairs(f"webdataset:{shards}", Keys(positives="othr"))
    with pytest.raises(UsageError, match="set positive_key to the JSON field"):
        open_pairs(f"webdataset:{shards}", Keys(positives="data"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"positives": "captions"}, "no image has a second caption"),
        ({"positives": "data"}, "set positive_key to their column"),
    ],
)
def test_a_paraphrase_loss_without_any_paraphrase_is_one_line(shards, settings, says):
    config = TrainConfig().changed({**settings, "positive_text_weight": 1.0})
    with pytest.raises(UsageError, match=says):
        paraphrases(config, open_pairs(f"webdataset:{shards}", Keys()))


def test_a_paraphrase_is_the_rows_last_text_and_changes_nothing_else(shards):
    pairs = open_pairs(f"webdataset:{shards}", Keys(positives="other"))
    found = paraphrases(TrainConfig(positives="data", positive_text_weight=1.0), pairs)
    (plain,), (ours,) = make(pairs)[1], make(pairs, positives=found)[1]

    assert plain.positive_mask is None and ours.positive_mask.tolist() == [True] * 6
    assert torch.equal(plain.images, ours.images)
    texts = {
        place
        for block in ours.texts
        for place in zip(block.image_index.tolist(), block.text_index.tolist(), strict=True)
    }
    assert texts == {(row, place) for row in range(6) for place in (0, 1)}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "give --data KIND:PATH"),
        ("webdatset:x", "Did you mean 'webdataset'"),
        ("parquet:nowhere", "there is no Parquet file"),
        ("webdataset:nowhere", "no .tar shards"),
        ("coco-tsv:nowhere.tsv", "no such file"),
    ],
)
def test_data_that_is_not_there_is_one_line(data, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError), match=says):
        open_pairs(data, Keys())


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_step_and_on_nothing_else(shards):
    pairs = open_pairs(f"webdataset:{shards}", Keys())
    batches = make(pairs)
    straight = [batches[step] for step in range(8)]
    fresh = make(open_pairs(f"webdataset:{shards}", Keys()))

    for step in (7, 2):
        ours, theirs = straight[step][0], fresh[step][0]
        assert torch.equal(ours.images, theirs.images)
        assert all(torch.equal(a.ids, b.ids) for a, b in zip(ours.texts, theirs.texts, strict=True))
    assert not np.array_equal(batches.batch_indices(0), batches.batch_indices(4))  # next epoch
    assert not np.array_equal(batches.batch_indices(0), make(pairs, seed=1).batch_indices(0))


def test_processes_and_parts_cut_the_same_batch(shards):
    pairs = open_pairs(f"webdataset:{shards}", Keys())
    whole = make(pairs)[1][0].images
    shared = [make(pairs, rank=rank, world=2)[1][0].images for rank in (0, 1)]
    parted = [part.images for part in make(pairs, parts=3)[1]]

    assert torch.equal(torch.cat(shared), whole)
    assert torch.equal(torch.cat(parted), whole)


def test_an_unusable_pair_is_counted_and_another_takes_its_place(shards):
    write_shard(shards / "00001.tar", range(12, 20), jpg=b"damaged")
    pairs = open_pairs(f"webdataset:{shards}", Keys())
    batches = make(pairs)
    parts = [batches[step][0] for step in range(4)]

    assert all(len(part.images) == 6 for part in parts)
    reasons = [reason for part in parts for reason in part.bad]
    assert len(reasons) >= 8 and all("not a readable image" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 25}, "batch_size = 25 is larger than the data: 24 pairs"),
        ({"batch_size": 9, "world": 2}, "does not divide into 2 processes"),
    ],
)
def test_a_batch_must_fit_the_data_and_the_processes(shards, changes, says):
    with pytest.raises(UsageError, match=says):
        make(open_pairs(f"webdataset:{shards}", Keys()), **changes)


def test_length_blocks_hold_every_text_once_and_pad_less():
    texts = ["a b c d e f g h i j", "a", "a b", "a b c", "x", "y z"]
    rows, places = [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 2]
    ids = Tokenizer()(texts)
    one, two = (text_blocks(ids, rows, places, buckets) for buckets in (1, 2))

    assert [block.ids.shape for block in one] == [(6, 12)]
    assert [block.ids.shape for block in two] == [(5, 5), (1, 12)]
    found = {
        (int(row), int(place)): block.ids[n]
        for block in two
        for n, (row, place) in enumerate(zip(block.image_index, block.text_index, strict=True))
    }
    for text, row, place in zip(ids, rows, places, strict=True):
        cut = found[row, place]
        assert torch.equal(cut, text[: len(cut)]) and not text[len(cut) :].any()
    # Words and the end token count, the start token and padding do not: "a b c" has four.
    assert two[0].token_mask[-1].tolist() == [False, True, True, True, True]


def test_crops_keep_nine_tenths_of_the_area_and_stay_inside():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        left, top, right, bottom = crop_box(640, 480, 0.9, rng)
        assert 0 <= left < right <= 640 and 0 <= top < bottom <= 480
        shares.append((right - left) * (bottom - top) / (640 * 480))
    assert min(shares) > 0.89 and max(shares) <= 1.0
    # No crop of an allowed aspect: the largest in the middle.
    assert crop_box(100, 1000, 0.9, rng) == (0, 433, 100, 566)


def test_pixels_without_a_crop_are_those_of_the_models_own_preprocessing():
    import open_clip

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    theirs = open_clip.image_transform(32, is_train=False, mean=(0.5,) * 3, std=(0.25,) * 3)(image)
    ours = PIXELS.normalise(torch.from_numpy(PIXELS(image, None).copy())[None])[0]

    assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_dev_split_parts_images_and_not_captions():
    class FivePerImage:
        keys = tuple(f"{n // 5}.jpg" for n in range(1000))

        def __len__(self):
            return 1000

    training, dev = split_dev(FivePerImage(), 0.1, seed=0)

    assert len(training) + len(dev) == 1000 and 50 < len(dev) < 150
    assert not {n // 5 for n in training} & {n // 5 for n in dev}


def test_the_datas_own_negatives_are_taken_in_order_or_drawn():
    class Own:
        caption, negatives = "a b", ("b a", "", "a b")

    own, rng = FromData(("swap", "replace", "shuffle")), np.random.default_rng(0)
    assert own.draw([Own], [rng]) == [["b a", None, None]]  # empty, and equal to the caption
    drawn = FromData(("one", "two")).draw([Own], [rng])[0]
    assert len(drawn) == 2 and set(drawn) <= {"b a", None}
