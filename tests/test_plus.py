"""fsc+: SugarCrepe++, hard positives, VISLA and COLA, from their raw files to their numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from draw_images import draw

from fsc_bench.data.images import Images, write_link
from fsc_bench.data.prepare import prepare, prepare_annotation, read_subsets
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.errors import DataError
from fsc_bench.records import ImageRef
from fsc_bench.report.suites import TaskFacts
from fsc_bench.run.suite import Options, run
from fsc_bench.score.blind import blind_facts
from fsc_bench.suite import shipped, suite_called
from fsc_bench.task import catalogue, select

PLUS = ("sugarcrepe_pp", "hard_positives", "visla", "cola")
TASKS = {name: catalogue()[name] for name in PLUS}


# ---------------------------------------------------------------- the suite


def test_the_suite_is_called_as_papers_call_it():
    assert suite_called("fsc+") == "fsc_plus" and suite_called("fsc") == "fsc"
    names = {task.name for task in select(["fsc+"])}
    assert names == {task.name for task in select(["fsc_plus"])} >= set(PLUS)


def test_comp_and_the_groups_stay_the_papers():
    """Neither the 35 nor the 11 of Comp grow by a suite beside them."""
    assert len(select(["fsc"])) == 35 and len(select(["compositionality"])) == 11
    facts = [TaskFacts.of(task) for task in catalogue().values() if task.suite == "fsc"]
    assert sum(task.averages["Comp"] is not None for task in facts) == 11
    assert "Comp" not in shipped()["fsc_plus"].averages
    entering = {
        name: [task.name for task in TASKS.values() if TaskFacts.of(task).averages[name]]
        for name in ("ITT", "TOT")
    }
    assert entering == {
        "ITT": ["sugarcrepe_pp", "hard_positives", "visla"], "TOT": ["sugarcrepe_pp", "visla"]
    }  # fmt: skip
    assert TaskFacts.of(TASKS["visla"]).averages == {"ITT": "text", "TOT": "tot", "Group": None}


# ---------------------------------------------------------------- the real files

# name -> (records by subset, pictures, ruler by subset and of the whole)
REAL = {
    "sugarcrepe_pp": (
        {"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245,
         "swap_att": 666},
        1542, (3.7530, 3.1726, 13.3713, 3.6735, 3.3033, 5.4547),
    ),
    "visla": ({"generic": 973, "spatial": 640}, 1191, (16.1357, 26.25, 21.1928)),
    "cola": ({"cola": 210}, 218, (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_over_drawn_pictures(name, real_data, tmp_path):
    """Counts, chance and what text alone gets: as the task file states them, by `control:blind`."""
    counts, pictures, ruler = REAL[name]
    task = TASKS[name]
    write_link(tmp_path, name, real_data / "fsc_plus" / name)
    records = prepare_annotation(task, tmp_path).records
    refs = {ref for row in records for ref in row.images}
    for ref in refs:
        draw(tmp_path / "images" / ref.source / ref.path, (24, 18))
    models = {"control:blind?rule=ruler": task.blind.ruler, "control:blind": task.blind.bigram}

    done = run(list(models), [task], Options(tmp_path, tmp_path / "runs"))

    assert done.failures == [] and len(refs) == pictures
    assert list(task.blind.ruler.values()) == list(ruler)
    metric = task.headline[0]
    for model, stated in models.items():
        found = done.results[model][name]
        cells = {node: found.metrics[node][metric] for node in (*counts, "headline")}
        assert {node: cells[node].n for node in counts} == counts
        for node, percent in stated.items():
            assert cells[node].value == pytest.approx(percent, abs=5.1e-5), node
    assert found.audits["free"] == sum(task.blind.free.values())
    for metric, percent in task.chance.items():  # free and easier items add a little
        assert 0 <= found.metrics["headline"][metric].chance - percent < 0.2


def test_hard_positives_attributes_are_there_and_its_relations_say_what_lacks(real_data, tmp_path):
    task = TASKS["hard_positives"]
    write_link(tmp_path, task.name, real_data / "fsc_plus" / task.name)

    records, left_out = read_subsets(task, tmp_path)

    assert len(records) == 10_575 and {row.right_texts for row in records} == {2}
    assert records[0].texts == ("walking elephant", "strolling elephant", "jumping elephant")
    assert records[0].images == (ImageRef("vg", "VG_100K_2/2401814.jpg"),)
    assert "vl_checklist_relations.json is not in" in left_out["replace_rel"]
    facts = blind_facts(task, records, classify=False)["replace_att"]
    assert (facts["ruler"], facts["bigram"]) == pytest.approx((18.0236, 7.6690), abs=1e-4)
    assert facts["free"] == 1


# ---------------------------------------------------------------- raw files that are damaged

PP = {"id": 0, "filename": "7.jpg", "caption": "a", "caption2": "b", "negative_caption": "c"}
HP = {
    "image_id": "7",
    "true_caption": "a",
    "false_caption": "c",
    "image_path": "data/VG_100K/7.jpg",
}
GENERIC = "filename\tcaption\tsecond positive\tnegative_caption\n"
COLA = ["https://x.org/vg/1.jpg", "a", "https://x.org/vg/2.jpg", "b"]


def read(name: str, folder: Path, subset: str = "") -> list:
    """The records of a task, or of one subset, whose raw files stand in a folder."""
    task = TASKS[name]
    task = replace(task, subsets={subset: 1}) if subset else task
    return list(load_reader(task.data.reader, name).read(task, Raw(task, folder)))


def without(row: dict, key: str) -> dict:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (without(PP, "caption2"), "record 0: has no 'caption2'"),
        (without(PP, "id"), "record 0: has no 'id'"),
        ({**PP, "caption": ["a"]}, "'caption' is ['a'], not str"),
        ({**PP, "negative_caption": " "}, "'negative_caption' is empty"),
        ({**PP, "filename": 7}, "'filename' is 7, not str"),
        ({**PP, "id": True}, "'id' is True, not int or str"),
        ("a line", "record 0: has no 'id'"),
    ],
)
def test_a_damaged_sugarcrepe_pp_is_one_line(row, words, tmp_path):
    (tmp_path / "swap_obj.json").write_text(json.dumps([row]))

    with pytest.raises(DataError) as caught:
        read("sugarcrepe_pp", tmp_path, "swap_obj")
    assert words in str(caught.value) and "swap_obj.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sugarcrepe_pp_whose_ids_repeat_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    for subset in TASKS["sugarcrepe_pp"].leaves:
        (tmp_path / "raw" / f"{subset}.json").write_text(json.dumps([PP, PP]))
    write_link(tmp_path, "sugarcrepe_pp", tmp_path / "raw")

    with pytest.raises(DataError, match=r"record 'replace_obj/0': the id is used twice"):
        prepare(TASKS["sugarcrepe_pp"], tmp_path, images=Images(tmp_path))


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        ([HP], [], "has 0 records"),
        ([HP], [{**HP, "false_caption": "d"}], "foil 'd'"),
        ([HP], [{**HP, "image_id": "8", "image_path": "data/VG_100K/8.jpg"}], "VG_100K/8.jpg"),
        ([without(HP, "true_caption")], [HP], "has no 'true_caption'"),
        ([HP], [without(HP, "false_caption")], "has no 'false_caption'"),
        ([{**HP, "image_id": "8"}], [HP], "'image_id' is '8', its picture 'data/VG_100K/7.jpg'"),
        ([{**HP, "image_path": "../7.jpg"}], [HP], "not data/VG_100K/NUMBER.jpg"),
        ({"rows": 3}, [HP], "has no 'true_caption'"),
        (7, [HP], "holds neither a list nor an object"),
    ],
)
def test_damaged_hard_positives_are_one_line(here, there, words, tmp_path):
    for folder, rows in (("data", here), ("swapped_data", there)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vl_checklist_attributes.json").write_text(json.dumps(rows))

    with pytest.raises(DataError) as caught:
        read("hard_positives", tmp_path, "replace_att")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_hard_positives_may_lie_as_their_authors_or_as_mirrors_have_them(tmp_path):
    for folder, caption in ((tmp_path, "walking"), (tmp_path / "swapped", "strolling")):
        folder.mkdir(exist_ok=True)
        path = folder / "vl_checklist_attributes.json"
        path.write_text(json.dumps([{**HP, "true_caption": caption}]))

    (row,) = read("hard_positives", tmp_path, "replace_att")

    assert (row.texts, row.right_texts) == (("walking", "strolling", "c"), 2)
    assert (row.images, row.cluster) == ((ImageRef("vg", "VG_100K/7.jpg"),), "VG_100K/7.jpg")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (COLA[:3], "not [image 1, caption 1, image 2, caption 2]"),
        ({"a": 1}, "not [image 1, caption 1, image 2, caption 2]"),
        ([COLA[0], "a", COLA[0], "b"], "both captions are of the picture 1.jpg"),
        ([COLA[0], "a", "2.png", "b"], "'2.png' is no address that ends in a number and .jpg"),
        ([COLA[0], "", COLA[2], "b"], "1 is empty"),
        ([COLA[0], "a", 2, "b"], "2 is 2, not str"),
    ],
)
def test_a_damaged_cola_is_one_line(row, words, tmp_path):
    name = "COLA_multiobjects_matching_benchmark.json"
    (tmp_path / name).write_text(json.dumps([COLA, row]))

    with pytest.raises(DataError) as caught:
        read("cola", tmp_path)
    assert f"{name}: record 1: " in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GENERIC.replace("second positive", "second"), "has no column 'second positive'"),
        (GENERIC + "1.jpg\ta\tb\n", "row 1"),
        (GENERIC + "1.jpg\ta\t\tc\n", "record row 1: 'second positive' is empty"),
        (GENERIC + "1.jpg\ta\tb\t\n", "record row 1: 'negative_caption' is empty"),
        (GENERIC + "\ta\tb\tc\n", "record row 1: 'filename' is empty"),
    ],
)
def test_a_damaged_visla_is_one_line(text, words, tmp_path):
    (tmp_path / "Generic_VISLA.tsv").write_text(text)

    with pytest.raises(DataError) as caught:
        read("visla", tmp_path, "generic")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_visla_for_which_nobody_wrote_a_foil_are_passed_over_and_told(tmp_path):
    """As 12 of the published 652; a row with one of the two wrong sentences is read or damage."""
    columns = "image\tsent1\tsent2\tBest reference (Semantically close)\tReference-2\n"
    rows = ["1.jpg\ta\tb\tc\td", "2.jpg\ta\tb\t\t", "3.jpg\ta\tb\tc\t"]
    (tmp_path / "Spatial_VISLA.tsv").write_text(columns + "\n".join(rows))
    task = TASKS["visla"]
    raw = Raw(task, tmp_path)

    found = list(load_reader("visla", "").read(replace(task, subsets={"spatial": 2}), raw))

    assert [row.id for row in found] == ["spatial/0", "spatial/2"]
    assert found[1].texts == ("a", "b", "c") and found[1].images[0].source == "coco/2017"
    assert list(raw.notes.values()) == [
        "Spatial_VISLA.tsv: 1 rows have no wrong sentence and are passed over"
    ]
    (tmp_path / "Spatial_VISLA.tsv").write_text(columns + "1.jpg\ta\tb\t\td")
    with pytest.raises(DataError, match=r"'Best reference .* is empty"):
        read("visla", tmp_path, "spatial")
