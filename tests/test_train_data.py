"""Training data: every pair once an epoch, in an order that depends on the seed alone."""

import io
import json
import os
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_open_clip import Tokenizer

from fsc_bench.data import images
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import pixel_box
from fsc_bench.train.batches import Batches, Pixels, crop_box, readers, text_blocks
from fsc_bench.train.config import Recipe, TrainConfig
from fsc_bench.train.hard_negatives import FromData, hard_negatives
from fsc_bench.train.loop import load
from fsc_bench.train.material import draw, open_material
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


def test_a_shard_cut_between_two_samples_is_refused_unless_its_stats_prove_it_whole(shards):
    # Eight samples of three members; the sixth ends at a header's edge, and no end mark follows.
    whole = (shards / "00001.tar").read_bytes()
    with tarfile.open(shards / "00001.tar") as tar:
        cut = tar.getmember("0018.jpg").offset
    (shards / "00001.tar").write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"00001\.tar: ends without the mark.*after sample '0017'"):
        open_pairs(f"webdataset:{shards}", Keys())
    (shards / "00001_stats.json").write_text(json.dumps({"successes": 6}))
    assert len(open_pairs(f"webdataset:{shards}", Keys())) == 12 + 6 + 4

    # tarfile stops at the first end mark: of two tars behind one another the second would be lost.
    both = (shards / "00002.tar").read_bytes() + whole
    (shards / "00002.tar").write_bytes(both)
    with pytest.raises(DataError, match=r"00002\.tar: holds more behind its end mark"):
        open_pairs(f"webdataset:{shards}", Keys())


def add(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "content",
    [b"null", b'["a list"]', b"3", b'"text"', b"[" * 5000, b'{"other": "half \\ud83d"}', b"{"],
    ids=repr,
)
def test_json_that_is_no_object_costs_its_pair_and_not_the_run(shards, content):
    write_shard(shards / "00002.tar", range(20, 22))
    members = {"0022.jpg": jpeg(22), "0022.txt": b"x", "0022.json": content}
    add(shards / "00003.tar", members)
    pairs = open_pairs(f"webdataset:{shards}", Keys(caption="other"))
    batches = make(pairs, batch_size=23)

    (part,) = batches[0]
    assert len(pairs) == 23 and len(part.images) == 23
    assert len(part.bad) == 1 and "00003.tar/0022" in part.bad[0]


def test_samples_whose_names_hold_dots_are_told_apart(tmp_path):
    members = {
        "a.image.png": jpeg(1), "a.caption.txt": b"fields", "b.v1.jpg": jpeg(2), "b.v1.txt": b"one",
        "b.v2.jpg": jpeg(3), "b.v2.txt": b"two", "._b.v2.jpg": b"left by a Mac",
    }  # fmt: skip
    add(tmp_path / "00000.tar", members)
    add(tmp_path / "00002.tar", {"c.jpg": jpeg(4), "c.txt": b"plain"})
    pairs = open_pairs(f"webdataset:{tmp_path}", Keys())

    assert captions_of(pairs, range(4)) == ["fields", "one", "two", "plain"]
    assert [key.partition("/")[2] for key in pairs.keys] == ["a", "b.v1", "b.v2", "c"]
    assert pairs.notes == ["Of the shards up to 2, 1 are absent, such as 00001.tar."]


def table_of(folder, rows: str, name: str = "train.tsv") -> str:
    for number in range(1, 6):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    (folder / name).write_text(rows, encoding="utf-8")
    return f"coco-tsv:{folder / name}"


def test_a_lone_quote_in_a_training_table_swallows_no_row(tmp_path):
    rows = '"A man says hi\t1.jpg\ncat\t2.jpg\ndog\t3.jpg\nthe end"\t4.jpg\n"a bird"\t5.jpg\n'
    pairs = open_pairs(table_of(tmp_path, f"\ufefftitle\tfilepath\n{rows}"), Keys())

    assert captions_of(pairs, range(5)) == ['"A man says hi', "cat", "dog", 'the end"', "a bird"]
    assert pairs.keys[3] == "4.jpg"
    assert pairs.notes[0].endswith("a quote that is not closed is a letter, in 1 of 5 rows.")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("title\tfilepath\ttitle\na\t1.jpg\tb\n", "names the column 'title' twice"),
        ("title\tfilepath\na\t1.jpg\nb\n", "row 2: line 3 has 1 cells, the header 2"),
        ('title,filepath\n"a,1.jpg\nb,2.jpg\nc",3.jpg\n', "row 1: a cell in quotes would hold"),
        ("", "the table is empty"),
    ],
)
def test_a_training_table_that_cannot_be_read_for_certain_is_one_line(tmp_path, rows, says):
    with pytest.raises(DataError, match=says):
        open_pairs(table_of(tmp_path, rows), Keys())


def test_training_sees_the_pixels_that_scoring_sees(tmp_path):
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(1, 64).repeat(8, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    (tmp_path / "x.tsv").write_text("title\tfilepath\na ramp\tramp.png\n")
    seen = np.asarray(open_pairs(f"coco-tsv:{tmp_path / 'x.tsv'}", Keys())[0].image)
    scored = np.asarray(images.decode((tmp_path / "ramp.png").read_bytes(), "ramp"))

    assert np.array_equal(seen, scored)
    # The upper eight bits of 0, 1040, 2080, ...: no column is clipped to white but the last.
    assert seen[0, :3, 0].tolist() == [0, 4, 8] and seen[0, -1].tolist() == [255] * 3
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "ramp.png", "TIFF")  # 32 bits
    with pytest.raises(BadPair, match="32-bit pixels have no agreed range"):
        open_pairs(f"coco-tsv:{tmp_path / 'x.tsv'}", Keys())[0]


def test_a_pipe_that_is_called_like_a_picture_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "x.tsv").write_text("title\tfilepath\na\tpipe.jpg\nb\t../x.jpg\n")
    pairs = open_pairs(f"coco-tsv:{tmp_path / 'x.tsv'}", Keys())
    for index, says in [(0, "is a pipe, not a file"), (1, "not a path below the COCO folder")]:
        with pytest.raises(BadPair, match=says):
            pairs[index]


def test_boxes_have_one_rounding():
    edges = (1.5, 2.5, 30.49, 40.51)

    assert pixel_box(edges) == (2, 2, 30, 41)
    assert Image.new("RGB", (50, 50)).crop(edges).size == (30 - 2, 41 - 2)


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


# --- a sample, and what is tried before training ------------------------------------------------


def recipe_of(data, **settings) -> Recipe:
    return Recipe("mine", "", TrainConfig().changed({"data": str(data), **settings}))


def test_a_sample_of_the_pairs_is_the_same_for_ever_and_a_larger_one_holds_it():
    keys = [f"00000.tar/{number:04d}" for number in range(24)]
    # By the eight first bytes of blake2b("SEED:NUMBER:KEY").
    assert draw(keys, 5, 0).tolist() == [3, 5, 7, 17, 20]
    assert set(draw(keys, 5, 0)) < set(draw(keys, 9, 0))
    assert draw(keys, 5, 1).tolist() != [3, 5, 7, 17, 20]


def test_max_pairs_takes_a_sample_and_says_so(shards):
    five, all_ = (
        open_material(recipe_of(f"webdataset:{shards}", max_pairs=count), None) for count in (5, 99)
    )
    other = open_material(recipe_of(f"webdataset:{shards}", max_pairs=5, pairs_seed=1), None)

    assert len(five.pairs) == 5 and len(set(captions_of(five.pairs, range(5)))) == 5
    assert five.notes == ("5 of 24 pairs, drawn by pairs_seed = 0.",)
    assert five.pairs[2].caption == five.pairs.caption(2)
    assert other.pairs.fingerprint != five.pairs.fingerprint != all_.pairs.fingerprint
    assert all_.notes == ("max_pairs = 99: all 24 are taken.",) and len(all_.pairs) == 24


def test_pairs_are_tried_before_training(tmp_path, shards):
    (tmp_path / "bad").mkdir()
    write_shard(tmp_path / "bad" / "00000.tar", range(4), jpg=b"damaged")
    with pytest.raises(
        DataError, match=r"of 4 pairs tried none can be used: 00000\.tar/0000: not a"
    ):
        open_material(recipe_of(f"webdataset:{tmp_path / 'bad'}"), None)
    write_shard(shards / "00002.tar", range(20, 24), jpg=b"damaged")
    found = open_material(recipe_of(f"webdataset:{shards}"), None)
    assert found.notes[0].startswith("4 of 24 pairs tried cannot be used: 00002.tar/0020: not a")


def test_hard_negatives_that_no_caption_has_are_refused(tmp_path, shards):
    table = tmp_path / "other.tsv"
    table.write_text("title\tneg_caption\nanother caption\t['caption another']\n")
    settings = {"negatives": f"file:{table}", "negative_kinds": ["neg_caption"]}
    wanted = recipe_of(f"webdataset:{shards}", global_hn_weight=0.5, **settings)
    with pytest.raises(UsageError, match="none of 24 captions tried has a hard negative"):
        open_material(wanted, hard_negatives(wanted.config))
    table.write_text("title\tneg_caption\n caption 3 \t['caption 30']\n")
    found = open_material(wanted, hard_negatives(wanted.config))
    assert found.tried == ("Of 24 captions tried have a hard negative: neg_caption 1.",)


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


class Known:
    """Three pairs with two kinds of hard negatives and paraphrases, some of them absent."""

    keys, fingerprint = ("0", "1", "2"), "known"
    negatives = (("swap 0", "shuffle 0"), ("", "shuffle 1"), ("swap 2", ""))
    positives = (("other 0",), (), ("other 2",))

    def __len__(self):
        return 3

    def caption(self, index):
        return f"caption {index}"

    def __getitem__(self, index):
        picture = Image.new("RGB", (32, 32), (40 * index, 0, 0))
        return Pair(picture, f"caption {index}", self.negatives[index], self.positives[index])


def test_each_text_of_a_batch_lies_in_its_image_s_row_and_at_its_own_place():
    pairs = Known()
    found = paraphrases(TrainConfig(positives="data", positive_text_weight=1.0), pairs)
    batches = make(
        pairs, batch_size=3, negatives=FromData(("swap", "shuffle")), positives=found, augment=False
    )
    (part,) = batches[0]
    order = batches.batch_indices(0).tolist()
    rows = {
        (order[int(row)], int(place)): block.ids[n, : block.end[n] + 1].tolist()
        for block in part.texts
        for n, (row, place) in enumerate(zip(block.image_index, block.text_index, strict=True))
    }

    # 0 is the caption, 1 and 2 the hard negatives, 3 the paraphrase.
    told = {
        (0, 0): "caption 0", (0, 1): "swap 0", (0, 2): "shuffle 0", (0, 3): "other 0",
        (1, 0): "caption 1", (1, 2): "shuffle 1", (2, 0): "caption 2", (2, 1): "swap 2",
        (2, 3): "other 2",
    }  # fmt: skip
    ids = dict(zip(told, Tokenizer()(list(told.values())), strict=True))
    assert rows == {place: ids[place][: int(ids[place].argmax()) + 1].tolist() for place in told}
    there = {0: [True, True], 1: [False, True], 2: [True, False]}
    assert part.negative_mask.tolist() == [there[pair] for pair in order]
    assert part.positive_mask.tolist() == [pair != 1 for pair in order]
    assert part.images[:, 0, 0, 0].tolist() == [40 * pair for pair in order]


def test_a_training_picture_is_cut_to_its_box():
    # No crop of a picture this narrow has an allowed aspect: its box is rows 433 to 566 of 1,000.
    pixels = np.full((1000, 100, 3), 200, np.uint8)
    pixels[:433], pixels[566:] = 10, 60
    seen = PIXELS(Image.fromarray(pixels), np.random.default_rng(0))

    assert seen.shape == (3, 32, 32) and set(np.unique(seen)) == {200}


@pytest.mark.parametrize(("workers", "found"), [(0, 0), (7, 7)])
def test_the_number_of_readers_is_the_one_that_is_asked_for(workers, found):
    assert readers(TrainConfig(workers=workers), make(Known(), batch_size=3)) == found


def test_readers_are_as_many_as_cores_and_never_more_than_shared_memory_holds():
    config, small = TrainConfig(workers=-1), make(Known(), batch_size=3)
    cores = len(os.sched_getaffinity(0))

    assert readers(config, small) == min(4, cores)
    huge = make(Known(), batch_size=3, pixels=Pixels(10**7, (0.5,) * 3, (0.5,) * 3))
    assert readers(config, huge) == 0


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
