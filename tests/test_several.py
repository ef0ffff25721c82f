"""Records with several right texts, all of which must beat every wrong one; texts against texts."""

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from known import NOTHING, World
from test_pairs import scorer

from fsc_bench.cli.scores import results_table
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import (
    SCHEMA,
    ImageRef,
    Record,
    check_records,
    fingerprint,
    read_records,
    write_records,
)
from fsc_bench.report.ranking import measured_rows
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import read_runs
from fsc_bench.run.suite import Options, run
from fsc_bench.score.blind import classified
from fsc_bench.score.compare import compare
from fsc_bench.score.matching import between_texts, offer, outcomes
from fsc_bench.score.rescore import rescore
from fsc_bench.score.stored import open_stored
from fsc_bench.task import read_task

HAND = 1e-6


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


# ---------------------------------------------------------------- the kernel


def scored(row: list[float], texts: tuple[int, ...], right_texts: int):
    made = offer((0,), texts, right_texts)
    return outcomes(np.array([[row]], np.float32), made.right, made.alike[None])


def said(table: dict[str, np.ndarray]) -> dict[str, bool]:
    return {name: bool(values[0]) for name, values in table.items()}


@pytest.mark.parametrize(
    ("row", "text", "caption", "drop", "tie"),
    [
        ([0.7, 0.5, 0.4], True, True, False, False),
        ([0.7, 0.3, 0.4], False, True, True, False),
        ([0.3, 0.7, 0.4], False, False, False, False),
        ([0.7, 0.4, 0.4], False, True, True, True),  # the paraphrase ties with the foil
        ([0.4, 0.7, 0.4], False, False, False, True),
        ([0.7, float("nan"), 0.4], False, True, True, False),
        ([0.7, 0.5, float("nan")], False, False, False, False),
    ],
)
def test_every_right_text_beats_the_foil(row, text, caption, drop, tie):
    found = scored(row, (0, 1, 2), 2)

    wanted = {"text": text, "accuracy": text, "caption": caption, "drop": drop}
    assert said(found.hits) == said(found.strict) == wanted
    assert bool(found.ties[0]) == tie
    if tie:
        assert found.lenient["text"][0]


def test_two_right_texts_beat_both_foils():
    assert said(scored([0.6, 0.5, 0.4, 0.1], (0, 1, 2, 3), 2).hits)["text"]
    for other in ([0.6, 0.5, 0.55, 0.1], [0.6, 0.5, 0.1, 0.7]):
        assert not said(scored(other, (0, 1, 2, 3), 2).hits)["text"]
    assert said(scored([0.6, 0.5, 0.55, 0.1], (0, 1, 2, 3), 3).hits)["text"]


def test_an_option_equal_to_a_right_text_is_right_again_and_strictly_a_miss():
    """The first foil is the caption in other letters, the second one is below both."""
    found = scored([0.6, 0.5, 0.9, 0.4], (0, 1, 0, 3), 2)

    assert said(found.hits) == {"text": True, "accuracy": True, "caption": True, "drop": False}
    assert not said(found.strict)["text"] and not said(found.strict)["caption"]
    # The caption is as similar as its nearest copy; the paraphrase is not.
    assert said(scored([0.3, 0.5, 0.9, 0.4], (0, 1, 0, 3), 2).hits)["text"]
    assert said(scored([0.6, 0.3, 0.9, 0.4], (0, 1, 0, 3), 2).hits) == {
        "text": False, "accuracy": False, "caption": True, "drop": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "right_texts", "chance", "free", "easier"),
    [
        # r! w! / (r + w)!; of pairs of texts 1 right and 2 others, 1 and 4, 3 and 3
        ((0, 1, 2), 2, {"text": 100 / 3, "caption": 50, "drop": 50 / 3, "tot": 100 / 3}, 0, 0),
        ((0, 1, 2, 3), 2, {"text": 100 / 6, "caption": 100 / 3, "drop": 100 / 6, "tot": 20}, 0, 0),
        ((0, 1, 2, 3), 3, {"text": 25, "caption": 50, "drop": 25, "tot": 5}, 0, 0),
        # the paraphrase is the caption again: one right answer, near to itself
        ((0, 0, 2), 2, {"text": 50, "caption": 50, "drop": 0, "tot": 100}, 0, 1),
        # the foil is the paraphrase again: nothing is wrong
        ((0, 1, 1), 2, {"text": 100, "caption": 100, "drop": 0, "tot": 100}, 1, 0),
        # one foil twice
        ((0, 1, 2, 2), 2, {"text": 100 / 3, "caption": 50, "drop": 50 / 3, "tot": 100 / 3}, 0, 1),
    ],
)
def test_chance_is_of_the_different_answers(texts, right_texts, chance, free, easier):
    offer.cache_clear()  # another test may have asked before
    made = offer((0,), texts, right_texts)

    assert {key: made.chance[key] for key in chance} == pytest.approx(chance)
    assert made.chance["accuracy"] == made.chance["text"]
    assert (made.free, made.easier) == (bool(free), bool(easier))


@pytest.mark.parametrize(("texts", "right_texts"), [((0, 1, 2), 2), ((0, 1, 2, 3, 3), 3)])
def test_random_similarities_score_chance(texts, right_texts):
    """20,000 records: half a point is more than three standard errors of a third."""
    made, rng = offer((0,), texts, right_texts), np.random.default_rng(4)
    alike = np.stack([made.alike] * 20_000)
    numbers = rng.normal(size=(20_000, len(set(texts))))[:, None, list(texts)]
    hits = outcomes(numbers, made.right, alike).hits
    square = rng.normal(size=(20_000, len(set(texts)), len(set(texts))))
    square = (square + square.transpose(0, 2, 1))[:, list(texts)][:, :, list(texts)]
    hits |= between_texts(square, alike).hits

    for metric, share in hits.items():
        assert 100 * share.mean() == pytest.approx(made.chance[metric], abs=1.0), metric


@pytest.mark.parametrize(
    ("pairs", "texts", "hit", "strict", "tie"),
    [
        ([0.8, 0.5, 0.7], (0, 1, 2), True, True, False),
        ([0.6, 0.5, 0.7], (0, 1, 2), False, False, False),  # the paraphrase is near to the foil
        ([0.6, 0.7, 0.5], (0, 1, 2), False, False, False),  # the caption is
        ([0.7, 0.5, 0.7], (0, 1, 2), False, False, True),
        ([float("nan"), 0.5, 0.7], (0, 1, 2), False, False, False),
        ([0.7, float("nan"), 0.5], (0, 1, 2), False, False, False),
        ([0.4, 0.5, 1.0], (0, 1, 1), True, False, False),  # the foil is the paraphrase again
        ([0.9, 0.95, 0.93], (0, 0, 2), True, True, False),  # the paraphrase is the caption again
    ],
)
def test_right_texts_are_nearer_to_each_other_than_to_the_foil(pairs, texts, hit, strict, tie):
    """pairs: caption and paraphrase, caption and foil, paraphrase and foil."""
    a, b, c = pairs
    square = np.array([[[1, a, b], [a, 1, c], [b, c, 1]]])
    found = between_texts(square, offer((0,), texts, 2).alike[None])

    assert (said(found.hits), said(found.strict)) == ({"tot": hit}, {"tot": strict})
    assert bool(found.ties[0]) == tie and said(found.lenient) == {"tot": hit or tie}


def test_of_three_right_texts_the_farthest_two_are_nearer_than_any_foil():
    """Right texts at 0, 10 and 30 degrees, a foil at -25, then at -35, then at 61."""
    for angle, hit in ((-25, False), (-35, True), (61, True), (55, False)):
        at = np.radians([0, 10, 30, angle])
        square = np.cos(at[:, None] - at[None, :])[None]
        found = between_texts(square, offer((0,), (0, 1, 2, 3), 3).alike[None])
        assert bool(found.hits["tot"][0]) == hit, angle


# ---------------------------------------------------------------- the whole way


def triples(world: World, angles, at: float = 0) -> list[Record]:
    """Records of one picture, its caption, paraphrase and foil: the degrees at which each is."""
    picture = world.picture("only", at)
    records = []
    for number, row in enumerate(angles):
        texts = [world.text(angle, f"{'pqn'[k]}{number}") for k, angle in enumerate(row)]
        records.append(Record("", "all", (picture,), tuple(texts), right_texts=2))
    return records


# ITT: the first alone. caption: 1, 2, 4. TOT, by degrees between: 30 of 40 and 70, 60 of 30, 5 of
# 30, 85 of 60, 5 of 20: 1, 3, 5.
ANGLES = [(10, -20, 50), (10, -50, 40), (60, 65, 30), (-15, 70, 45), (30, 35, 10)]


def test_both_texts_one_of_them_and_the_texts_alone(world):
    task = world.task("pp", ["text", "tot"], {"all": 5})

    found = world.ask(task, triples(world, ANGLES))

    values = {m: found.value(m) for m in ("text", "caption", "drop", "tot")}
    assert values == pytest.approx({"text": 20, "caption": 60, "drop": 40, "tot": 60}, abs=HAND)
    assert found.samples["correct_text"] == [True, False, False, False, False]
    assert found.samples["correct_caption"] == [True, True, False, True, False]
    assert found.samples["correct_drop"] == [False, True, False, True, False]
    assert found.samples["correct_tot"] == [True, False, True, False, True]
    assert found.samples["right_texts"] == [2] * 5
    cosines = np.cos(np.radians([60, 30, 90]))  # of the second record
    assert found.samples["text_scores"][1] == pytest.approx(cosines.tolist(), abs=1e-6)
    chance = {m: found.chance(m) for m in values}
    assert chance == pytest.approx({"text": 100 / 3, "caption": 50, "drop": 50 / 3, "tot": 100 / 3})
    assert (float(found.row["pp text"]), float(found.row["pp tot"])) == (20, 60)
    # The mean picture is the only one: what the model's texts alone decide of both texts.
    assert found.result["blindness"]["mean_image"] == {"text": 20}
    assert "lacks" not in found.result["audits"]


def test_equal_options_ties_and_broken_vectors_are_counted(world):
    """free: the foil is the caption in other letters. easier: the paraphrase is. A foil that ties
    with the paraphrase, a paraphrase that is no number, and two that are plainly right and wrong.
    """
    records = triples(world, [(10, 20, 10), (10, 10, 40), (10, 20, 20), (10, 15, 40), (50, 20, 40)])
    world.texts |= {"A  Dog": 10, "a dog": 10, "q3": NOTHING}
    texts = list(records[0].texts), list(records[1].texts)
    records[0] = replace(records[0], texts=("a dog", texts[0][1], "A  Dog"))
    records[1] = replace(records[1], texts=("A  Dog", "a dog", texts[1][2]))
    task = world.task("equal", ["text", "tot"], {"all": 5})

    found = world.ask(task, records)

    assert found.samples["correct_text"] == [True, True, False, False, False]
    assert found.samples["correct_tot"] == [True, True, False, False, False]
    assert (found.value("text"), found.strict("text")) == pytest.approx((40, 20), abs=HAND)
    assert (found.value("tot"), found.strict("tot")) == pytest.approx((40, 20), abs=HAND)
    assert found.chance("text") == pytest.approx((100 + 50 + 3 * 100 / 3) / 5, abs=HAND)
    assert found.chance("tot") == pytest.approx((100 + 100 + 3 * 100 / 3) / 5, abs=HAND)
    assert (found.result["ties"], found.result["nan"]) == (1, 1)
    audits = found.result["audits"]
    assert (audits["free"], audits["easier"]) == (1, 1)


def test_a_tie_between_texts_is_a_miss_and_counted(world):
    """The paraphrase and the foil are equally far from the caption, on either side."""
    task = world.task("ties", ["tot"], {"all": 2})

    found = world.ask(task, triples(world, [(0, 20, -20), (0, 20, 45)], at=3))

    assert found.value("tot") == 50 and found.result["audits"]["tot_ties"] == 1
    assert found.result["ties"] == 0


def test_records_with_one_and_with_several_right_texts_stand_in_one_task(world):
    """Of both: 2 of 3. The captions alone, and texts with texts, are of the one with two."""
    picture = world.picture("mixed", 0)
    single = [
        Record("", "one", (picture,), (world.text(a, f"a{a}"), world.text(b, f"b{b}")))
        for a, b in ((10, 20), (40, 30))
    ]
    double = [replace(row, subset="two") for row in triples(world, ANGLES[:1])]
    task = world.task("mixed", ["text"], {"one": 2, "two": 1}, within="samples")

    found = world.ask(task, [*single, *double])

    assert found.value("text", "one") == 50 and found.value("text", "two") == 100
    assert set(found.result["metrics"]["one"]) == {"text"}
    assert set(found.result["metrics"]["two"]) == {"text", "caption", "drop", "tot"}
    assert found.samples["right_texts"] == [1, 1, 2]
    assert [len(row) for row in found.samples["text_scores"]] == [0, 0, 3]


def test_a_model_that_scores_pairs_has_no_text_to_text_score_and_says_why(world, capsys):
    """The texts score 3, 2, 1 and 3, 1, 2: one of two is right; that alone is compared."""
    task = world.task("pp", ["text", "tot"], {"all": 2})
    records = triples(world, ANGLES[:2])
    world.records(task, records)
    rows = ((3, 2, 1), (3, 1, 2))
    spec = scorer(world, {(0, text): score for row, scores in zip(records, rows, strict=True)
                          for text, score in zip(row.texts, scores, strict=True)})  # fmt: skip
    world.write_adapter()
    models = [spec, world.spec]
    summary = run(models, [task], Options(world.data, world.out))
    assert summary.failures == []

    result = summary.results[spec]["pp"]
    why = "a model that scores pairs gives no vectors of texts that could be compared"
    assert set(result.metrics["headline"]) == {"text", "caption", "drop"}
    assert result.metrics["headline"]["text"].value == 50
    assert result.lacks == {"tot": why}
    capsys.readouterr()
    results_table({spec: summary.results[spec]}, [task])
    assert f"- pp tot: {why}" in capsys.readouterr().out
    pairs, vectors = sorted(read_runs([world.out]), key=lambda one: one.name != spec)
    found = compare(pairs, vectors, flips=1)
    assert [(line.metric, line.found.difference) for line in found.tasks] == [("text", 0)]
    assert found.notes == [f"pp: no tot: {why}"]
    assert "text_scores" not in open_stored(pairs, "pp").columns
    rows = {row.model: row for row in measured_rows([pairs, vectors], [TaskFacts.of(task)])}
    row, other = rows[spec], rows[world.spec]
    assert row.left_out == {"pp tot": why} and "pp tot" not in row.cells
    assert other.cells["pp tot"].value == 50


def test_a_finished_run_is_counted_again_by_other_rules(world):
    records = triples(world, [*ANGLES, (10, 20, 20)])
    world.ask(world.task("pp", ["text", "tot"], {"all": 6}), records)
    (found,) = read_runs([world.out])

    values = {
        rule: {m: cell.value for m, cell in rescore(found, rule).cells["pp"]["headline"].items()}
        for rule in ("headline", "lenient")
    }
    # The sixth: caption right, a tie of the paraphrase; texts: 10 degrees of 10 and 0.
    assert values["headline"] == pytest.approx(
        {"text": 100 / 6, "caption": 400 / 6, "drop": 50, "tot": 50}
    )
    assert values["lenient"] == pytest.approx(
        {"text": 200 / 6, "caption": 400 / 6, "drop": 200 / 6, "tot": 50}
    )


def test_the_margin_is_of_the_text_that_is_least_ahead(world):
    from fsc_bench.score.clusters import source_images
    from fsc_bench.score.kinds.matching import margins

    records = triples(world, ANGLES[:3])
    world.texts |= {"P0": 25}
    records[0] = replace(records[0], texts=(*records[0].texts, "P0"))  # the caption again
    world.ask(world.task("pp", ["text", "tot"], {"all": 3}), records)
    (found,) = read_runs([world.out])
    stored = open_stored(found, "pp")
    told = stored.told(source_images({"pp": stored.marks})["pp"])

    def cos(angle: float) -> float:
        return float(np.cos(np.radians(angle)))

    texts = margins(told, "text")
    assert texts[1:] == pytest.approx([cos(50) - cos(40), cos(65) - cos(30)], abs=1e-6)
    assert margins(told, "caption")[1:] == pytest.approx(
        [cos(10) - cos(40), cos(60) - cos(30)], abs=1e-6
    )
    assert margins(told, "tot")[1:] == pytest.approx(
        [cos(60) - cos(30), cos(5) - cos(30)], abs=1e-6
    )
    assert np.isnan(margins(told, "drop")).all() and np.isnan(margins(told, "image")).all()


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("right_texts", [2, 3], "'right_texts' does not fit the texts of a sample"),
        ("right_texts", [0, 2], "'right_texts' does not fit the texts of a sample"),
        ("text_scores", [[0.1], [0.1, 0.2, 0.3]], "not one text score for each two texts"),
        ("text_scores", ["a", "b"], "the column 'text_scores' is of type string"),
    ],
)
def test_a_strangers_samples_are_looked_at(world, column, values, words):
    world.ask(world.task("pp", ["text", "tot"], {"all": 2}), triples(world, ANGLES[:2]))
    (found,) = read_runs([world.out])
    path = found.path / "samples" / "pp.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values)), path)

    with pytest.raises(UsageError, match=words):
        stored = open_stored(found, "pp")
        stored.columns.arrow("text_scores")


# ---------------------------------------------------------------- records and task files


def test_records_with_one_right_text_are_stored_as_before(tmp_path):
    """Neither the fingerprint nor the columns of a file change by the new field."""
    one = Record("a", "all", (ImageRef(".", "0.png"),), ("right", "wrong"))
    two = replace(one, texts=("right", "also", "wrong"), right_texts=2)
    write_records(tmp_path / "one.parquet", [one], {})
    write_records(tmp_path / "two.parquet", [one, replace(two, id="b")], {})

    assert pq.read_schema(tmp_path / "one.parquet").names == SCHEMA.names
    assert read_records(tmp_path / "two.parquet") == [one, replace(two, id="b")]
    assert fingerprint([one])[:16] == "d4440505c10ae1f9"  # as before there was the field
    assert fingerprint([two]) != fingerprint([replace(two, right_texts=1)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"right_texts": 3}, "right_texts = 3 of 3 texts and 1 images"),
        ({"right_texts": 0}, "right_texts = 0 of 3 texts"),
        ({"images": (ImageRef(".", "0.png"),) * 3}, "right_texts = 2 of 3 texts and 3 images"),
        ({"right_texts": 1}, "'headline' names 'tot', which is of records with several right"),
    ],
)
def test_records_that_cannot_have_several_right_texts_are_one_line(world, change, words):
    task = world.task("pp", ["text", "tot"], {"all": 1})
    row = replace(triples(world, ANGLES[:1])[0], id="a")
    check_records(task, [row], "here")

    with pytest.raises(DataError) as caught:
        check_records(task, [replace(row, **change)], "here")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_better_when_it_is_less_heads_no_table(world):
    path = world.task("pp", ["text"], {"all": 1}).path
    path.write_text(path.read_text().replace('["text"]', '["drop"]'))

    with pytest.raises(UsageError, match="headline = 'drop': less of it is better"):
        read_task(path)


def test_columns_say_how_many_of_the_texts_are_right(tmp_path, tiny):
    from draw_images import draw

    from fsc_bench.data.link import link
    from fsc_bench.data.prepare import prepare

    raw = tmp_path / "own"
    for name in ("0.png", "1.png"):
        draw(raw / name)
    (raw / "items.csv").write_text(
        "image,caption,again,foil\n0.png,a cat,one cat,a dog\n1.png,a cup,one cup,a cap\n"
    )
    toml = tmp_path / "mine.toml"
    toml.write_text(
        'title = "Mine"\nsuite = "mine"\ngroup = "compositionality"\nkind = "matching"\n'
        'version = 1\nheadline = ["text", "tot"]\nchance = 33.3333\n[subsets]\nitems = 2\n'
        '[data]\nreader = "columns"\n[data.options]\nimages = "image"\n'
        'texts = ["caption", "again", "foil"]\nright_texts = 2\n'
    )
    link(str(toml), raw, tmp_path / "data")
    found = prepare(read_task(toml), tmp_path / "data").records

    assert [(row.texts, row.right_texts) for row in found] == [
        (("a cat", "one cat", "a dog"), 2),
        (("a cup", "one cup", "a cap"), 2),
    ]


def test_the_classifier_learns_from_every_right_text():
    """Which of the right two stands first tells nothing: it is a coin's."""
    coin = random.Random(3)
    texts = []
    for k in range(80):
        right = [f"thing {k % 3}", f"really thing {k % 3}"]
        coin.shuffle(right)
        texts.append((*right, f"no thing {k % 3}"))
    groups = np.arange(80) // 2

    assert classified(texts, groups, [2] * 80).mean() == 1
    assert classified(texts, groups).mean() < 0.7
