"""What is planned and what is proved, of records made by hand: no model, and pictures of a byte."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fsc_bench.data.images import DigestCache, Images, image_digest, write_link
from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.plan import (
    Plan,
    check_prompts,
    choose_prompts,
    class_prompts,
    make_plan,
    merged,
    text_digest,
)
from fsc_bench.errors import UsageError
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.results import Result, Samples
from fsc_bench.run import proof
from fsc_bench.task import Data, Prompts, Task


def task(kind: str = "matching", **facts) -> Task:
    known = {
        "name": "hand", "title": "Hand", "suite": "own", "group": kind, "kind": kind,
        "version": 3, "headline": ("text",), "chance": {"text": 50.0}, "subsets": {"all": 2},
        "data": Data(reader="records"), **facts,
    }  # fmt: skip
    return Task(**known)


ANIMALS = {
    "classes": ("cat", "dog", "kite"),
    "prompts": {
        "long": Prompts(("a {}.", "the {}."), {"kite": "red kite"}),
        "short": Prompts(("{}",)),
    },
}


def ref(name: str, box=None) -> ImageRef:
    return ImageRef(OWN, name, box)


def prepared(of: Task, *rows: Record, **facts) -> Prepared:
    return Prepared(of, list(rows), "records 1", Path("nowhere"), **facts)


@pytest.fixture
def pictures(tmp_path):
    """(images, cache, folder) of what stands for pictures: hashing looks at their bytes alone."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in (("a", b"1"), ("b", b"2"), ("twin", b"1"), ("dropped", b"3")):
        (folder / f"{name}.png").write_bytes(content)
    write_link(tmp_path / "data", "hand", folder)
    return Images(tmp_path / "data"), DigestCache(tmp_path / "data" / "hashes.sqlite"), folder


BOX = (0, 0, 4, 8)
ROWS = (
    Record("1", "all", (ref("a.png"), ref("b.png")), ("one", "two")),
    Record("2", "all", (ref("twin.png"), ref("a.png", BOX)), ("one", "three", "four")),
    Record("3", "all", (ref("a.png"),), ("one",)),
    Record("4", "all", (ref("dropped.png"),), ("not scored",), scored=False),
)
ONE, TWO = (hashlib.sha256(content).digest() for content in (b"1", b"2"))
CROPPED = hashlib.sha256(b"1box (0, 0, 4, 8)").digest()


# ---------------------------------------------------------------- the plan


def test_a_plan_counts_every_use_and_keeps_what_is_equal_once(pictures):
    """Five pictures are used, of which two have the same bytes and one is a crop; six texts."""
    images, cache, _ = pictures
    plan = make_plan(prepared(task(), *ROWS), images, cache)

    assert {str(place[1]): key for place, key in plan.image_key.items()} == {
        "a.png": ONE, "b.png": TWO, "twin.png": ONE, "a.png[0, 0, 4, 8]": CROPPED,
    }  # fmt: skip
    assert {key: str(place[1]) for key, place in plan.image_place.items()} == {
        ONE: "a.png", TWO: "b.png", CROPPED: "a.png[0, 0, 4, 8]",
    }  # fmt: skip
    assert plan.text_key == {text: text_digest(text) for text in ("one", "two", "three", "four")}
    assert (plan.image_uses, plan.text_uses, plan.size) == (5, 6, 7)
    assert plan.unreadable == {}


def test_a_classifiers_texts_are_the_prompts_of_its_classes(pictures):
    """Two templates of three classes, or one: every picture is asked with all of them."""
    images, cache, _ = pictures
    animals = task("classification", **ANIMALS)
    rows = [Record("1", "all", (ref("a.png"),), labels=(0,))]

    plan = make_plan(prepared(animals, *rows), images, cache)
    short = make_plan(prepared(animals, *rows), images, cache, "short")

    assert [*plan.text_key] == [
        "a cat.", "the cat.", "a dog.", "the dog.", "a red kite.", "the red kite.",
    ]  # fmt: skip
    assert [*short.text_key] == ["cat", "dog", "kite"]
    assert (plan.text_uses, short.text_uses, plan.size) == (6, 3, 7)
    assert class_prompts(animals, "long")[2] == ["a red kite.", "the red kite."]


def test_a_prompt_set_is_the_wanted_one_where_the_task_has_it_and_its_first_elsewhere():
    animals = task("classification", **ANIMALS)
    assert [choose_prompts(animals, name) for name in ("short", "openai", None)] == [
        "short", "long", "long",
    ]  # fmt: skip
    for name in ("short", "openai", None):
        check_prompts(name, [animals])
    with pytest.raises(UsageError, match=r"no prompt set 'shor'\. Did you mean 'short'"):
        check_prompts("shor", [animals])


def test_plans_are_merged_by_sum_and_the_first_place_of_a_picture_stays():
    one, two = ("one", ref("a.png")), ("two", ref("b.png"))
    broken = ("two", ref("c.png"))
    both = merged(
        [
            Plan({one: ONE}, {ONE: one}, {"x": b"x"}, 3, 5),
            Plan({two: ONE}, {ONE: two, TWO: two}, {"x": b"x", "y": b"y"}, 4, 6, {broken: "no"}),
        ]
    )
    assert both.image_key == {one: ONE, two: ONE}
    assert both.image_place == {ONE: one, TWO: two}
    assert both.text_key == {"x": b"x", "y": b"y"}
    assert (both.image_uses, both.text_uses, both.size) == (7, 11, 4)
    assert both.unreadable == {broken: "no"}


def test_what_was_hashed_is_not_read_again_and_progress_is_told_of_what_is(tmp_path):
    """Of 501 pictures after 500 and at the end; then of one that changed; then of none."""
    folder = tmp_path / "raw"
    folder.mkdir()
    refs = [ref(f"{number}.png") for number in range(501)]
    for number, one in enumerate(refs):
        (folder / one.path).write_bytes(b"%d" % number)
    write_link(tmp_path / "data", "hand", folder)
    item = prepared(task(), Record("1", "all", tuple(refs)))

    def planned():
        told = []
        plan = make_plan(
            item, Images(tmp_path / "data"), DigestCache(tmp_path / "data" / "hashes.sqlite"),
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
        return plan, told

    first, told = planned()
    assert told == [(500, 501), (501, 501)]
    assert len(first.image_place) == 501
    (folder / "7.png").write_bytes(b"other")
    second, told = planned()
    assert told == [(1, 1)]
    changed = ("hand", refs[7])
    assert second.image_key[changed] == hashlib.sha256(b"other").digest()
    assert second.image_key == {**first.image_key, changed: second.image_key[changed]}
    third, told = planned()
    assert told == []
    assert third.image_key == second.image_key


def test_a_picture_that_is_missing_or_no_file_is_unreadable_and_stops_no_other(pictures):
    images, cache, folder = pictures
    (folder / "folder.png").mkdir()
    rows = [Record("1", "all", tuple(ref(f"{name}.png") for name in ("a", "none", "folder")))]

    plan = make_plan(prepared(task(), *rows), images, cache)

    assert [str(place[1]) for place in plan.image_key] == ["a.png"]
    lines = {str(place[1]): line for place, line in plan.unreadable.items()}
    assert [*lines] == ["none.png", "folder.png"]
    assert "none.png is missing" in lines["none.png"]
    assert "folder.png" in lines["folder.png"]


def test_pixels_of_another_shape_or_kind_and_another_crop_are_another_picture():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    whole = image_digest(pixels, None)
    assert whole == hashlib.sha256(b"pixels (2, 3) uint8" + bytes(range(6))).digest()
    others = [pixels.reshape(3, 2), pixels.view(np.int8), pixels + 1]
    assert len({whole, *(image_digest(other, None) for other in others)}) == 4
    assert image_digest(np.asfortranarray(pixels), None) == whole
    assert image_digest(b"1", None) == ONE
    assert image_digest(b"1", BOX) == CROPPED


# ---------------------------------------------------------------- the proof


def proved(pictures, rows=ROWS, of=None, model="m", **facts):
    """(item, plan, parts)."""
    item = prepared(of or task(), *rows, **facts)
    images, cache, _ = pictures
    plan = make_plan(item, images, cache)
    return item, plan, proof.parts(item, plan, model)


def result(item: Prepared, found, n: int = 3) -> Result:
    bare = Result("hand", item.task.version, item.task.kind, "", n, 3, {}, ("text",), 0, 0)
    return replace(bare, parts=found, fingerprint=proof.fingerprint(found))


def sealed(item, plan, found, folder: Path) -> tuple[Result, Path]:
    """The result of a run, and its samples as they lie on disk."""
    scored = [row for row in item.records if row.scored]
    bare = Samples({"id": [row.id for row in scored]})
    whole, samples = proof.sealed(result(item, {}), bare, item, plan, found)
    path = folder / "samples.parquet"
    pq.write_table(pa.table(dict(samples.columns)), path)
    return whole, path


def test_a_result_is_sealed_with_its_parts_and_the_beginnings_of_its_pictures(pictures, tmp_path):
    item, plan, found = proved(pictures)
    whole, path = sealed(item, plan, found, tmp_path)

    one, two, cropped = (key.hex()[:16] for key in (ONE, TWO, CROPPED))
    assert pq.read_table(path).to_pydict() == {
        "id": ["1", "2", "3"],
        "image_digests": [[one, two], [one, cropped], [one]],
    }
    assert whole.parts == found
    assert proof.difference(whole, found, item, plan, path) == ""
    assert proof.shown_digest(item, plan, ref("none.png")) == ""


def test_the_parts_do_not_depend_on_the_order_of_keys_and_name_prompts_where_there_are_some(
    pictures,
):
    one = proved(pictures, of=task(chance={"text": 50.0, "group": 10.0}))[2]
    other = proved(pictures, of=task(chance={"group": 10.0, "text": 50.0}))[2]
    assert one == other
    assert "prompts" not in one and "class names" not in one
    rows = [Record("1", "all", (ref("a.png"),), labels=(0,))]
    animals = proved(pictures, rows, task("classification", **ANIMALS))[2]
    assert {"prompts", "class names"} < animals.keys()


def test_which_records_are_left_matters_where_the_data_are_not_complete(pictures):
    half = [proved(pictures, rows, partial="some")[2]["records"] for rows in (ROWS[:2], ROWS[1:3])]
    whole = [proved(pictures, rows)[2]["records"] for rows in (ROWS[:2], ROWS[1:3])]
    assert half[0] != half[1]
    assert whole[0] == whole[1]  # there the fingerprint of the records says it


def test_what_changed_is_named_and_what_only_follows_from_it_is_not(pictures, tmp_path):
    item, plan, found = proved(pictures)
    whole, path = sealed(item, plan, found, tmp_path)

    def why(old: Result = whole, **changes) -> str:
        parts = {name.replace("_", " "): digest for name, digest in changes.items()}
        return proof.difference(old, {**found, **parts}, item, plan, path)

    assert why(kind="other", texts="other") == "the kind changed"
    assert why(texts="other", notes_on_the_data="other") == (
        "the notes on the data changed and the texts changed"
    )
    assert why(headline="other", chance="other") == "the headline changed and the chance changed"
    assert why(replace(whole, version=2), version="other") == "the task's version is 3, not 2"
    assert why(records="other") == "the records changed"
    assert why(replace(whole, n=1_002), records="other") == "there are 3 records instead of 1,002"
    # As many records as before say nothing about another part.
    assert why(replace(whole, n=5), kind="other") == "the kind changed"
    more = {**found, "prompts": "one"}
    assert proof.difference(result(item, more), found, item, plan, path) == "the prompts changed"


def test_a_result_whose_parts_are_not_noted_or_not_those_it_was_sealed_with_does_not_stand(
    pictures, tmp_path
):
    item, plan, found = proved(pictures)
    whole, path = sealed(item, plan, found, tmp_path)
    words = "it was scored by a version that did not note what decides its number"
    for broken in (
        replace(whole, parts={}),
        replace(whole, parts={}, fingerprint=proof.fingerprint({})),
        replace(whole, fingerprint="0" * 64),
    ):
        assert proof.difference(broken, found, item, plan, path) == words


def test_pictures_of_other_content_are_counted_once_and_those_out_of_the_score_never(
    pictures, tmp_path
):
    """Of a, b, twin and a's crop the two of a changed; a stands in two records. So did `dropped`,

    which no score knows, so that alone it changes nothing.
    """
    item, plan, found = proved(pictures)
    whole, path = sealed(item, plan, found, tmp_path)
    *_, folder = pictures
    (folder / "dropped.png").write_bytes(b"another")
    item, plan, now = proved(pictures)
    assert now == found

    (folder / "a.png").write_bytes(b"another")
    item, plan, now = proved(pictures)
    words = "2 of 4 pictures have other content"
    assert proof.difference(whole, now, item, plan, path) == words

    # Records that the samples do not name, and records whose pictures became more, are no matter.
    kept = pq.read_table(path).to_pydict()
    kept = {"id": ["1", "9"], "image_digests": [kept["image_digests"][0][:1], ["0" * 16]]}
    pq.write_table(pa.table(kept), path)
    assert proof.difference(whole, now, item, plan, path) == "1 of 4 pictures have other content"
    for gone in (lambda: path.write_bytes(b"no table"), path.unlink):
        gone()
        assert proof.difference(whole, now, item, plan, path) == "the pictures changed"


def test_an_unreadable_picture_is_part_of_the_proof(pictures):
    *_, folder = pictures
    rows = [Record("1", "all", (ref("a.png"), ref("none.png")))]
    without = proved(pictures, rows)[2]
    (folder / "none.png").write_bytes(b"")
    with_it = proved(pictures, rows)[2]
    assert without["pictures"] == hashlib.sha256(ONE + b"unreadable").hexdigest()
    assert with_it["pictures"] == hashlib.sha256(ONE + hashlib.sha256().digest()).hexdigest()
