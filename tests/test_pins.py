"""Every shipped source names its version or is said to have none; no task is without a source."""

import json
import re

import pytest
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.data.offers import about, coming, lines, offers
from fsc_bench.data.sources import sources
from fsc_bench.system.facts import read_toml
from fsc_bench.task import NO_TASKS, TaskFile, catalogue, tasks_folder

FSC = [task for task in catalogue().values() if task.suite == "fsc"]
HAVE_NO_COMMIT = {
    "ILSVRC/imagenet-1k",
    "MMVP/MMVP_VLM",
    "OFA-Sys/chinese-clip-eval",
    "clip-benchmark/wds_cars",
    "clip-benchmark/wds_fgvc_aircraft",
    "clip-benchmark/wds_food101",
    "clip-benchmark/wds_mnist",
    "clip-benchmark/wds_voc2007_multilabel",
    "clip-benchmark/wds_vtab-caltech101",
    "clip-benchmark/wds_vtab-eurosat",
    "clip-benchmark/wds_vtab-flowers",
    "clip-benchmark/wds_vtab-kitti_closest_vehicle_distance",
    "clip-benchmark/wds_vtab-pets",
    "clip-benchmark/wds_vtab-resisc45",
    "djghosh/wds_vtab-kitti_closest_vehicle_distance_test",
    "kbora/Half-Truths",
    "mair-lab/vismin-bench",
    "stanfordnlp/colorswap",
}


def places():
    """(task, source) of every shipped task file that fetches something."""
    for file in sorted(tasks_folder().glob("*/*.toml")):
        if file.parent.name not in (*NO_TASKS, "demo"):
            for source in read_toml(file, TaskFile).data.sources:
                yield file.stem, source


def test_every_repository_has_a_whole_commit_or_is_one_of_the_known_few_without():
    hub = [(task, source) for task, source in places() if source.hf]
    short = [
        (task, source.hf, source.revision)
        for task, source in hub
        if source.revision and not re.fullmatch(r"[0-9a-f]{40}", source.revision)
    ]
    assert short == []
    assert {source.hf for _, source in hub if not source.revision} == HAVE_NO_COMMIT


def test_every_address_on_github_has_a_whole_commit():
    web = [(task, source.url) for task, source in places() if "github" in source.url]
    plus = [name for name, _ in web if catalogue()[name].suite == "fsc_plus"]
    assert len(web) - len(plus) == 78
    counts = {"cola": 1, "hard_positives": 4, "sugarcrepe_pp": 5, "visla": 2}
    assert {name: plus.count(name) for name in counts} == counts
    assert [one for one in web if not re.search(r"/[0-9a-f]{40}/", one[1])] == []


def test_the_annotation_files_of_valse_and_vl_checklist_are_pinned_by_content():
    """Eleven of VALSE; 46 of VL-CheckList's 56, the rest of which is pinned by its commit alone."""
    for name, files, hashed in (("valse", 11, 11), ("vl_checklist", 56, 46)):
        found = [source for task, source in places() if task == name and source.url]
        assert len(found) == files
        assert sum(bool(source.sha256 and source.bytes) for source in found) == hashed


@pytest.mark.parametrize("task", FSC, ids=lambda task: task.name)
def test_no_task_is_without_a_source_or_what_a_person_does(task, tmp_path):
    """Its own files, or the image sources that it reads, come from somewhere."""
    for offer in offers([task], tmp_path):
        assert offer.places or offer.needs or offer.todo, offer.name
        assert bool(offer.todo) == (offer.access != "open"), offer.name
        assert offer.license
        assert set(offer.needs) <= set(sources())


def test_what_would_come_fits_a_screen_and_names_size_place_and_gate(tmp_path):
    rows = {(row.kind, row.name): row for row in coming(FSC, tmp_path)}
    assert len([kind for kind, _ in rows if kind == "task"]) == 35 == len(FSC)
    assert len(rows) <= 46
    assert rows["task", "spec"].bytes == 1_560_000_000
    assert rows["task", "valse"].what == "github:Heidelberg-NLP/VALSE (11 files, pinned)"
    assert rows["task", "flowers102"].what == "hf:OFA-Sys/chinese-clip-eval (resolved)"
    assert rows["task", "winoground"].state == "gated"
    assert "Agree and access repository" in rows["task", "winoground"].todo
    # Of ARO's four tables three are of known size: 765,255,644 + 650,000,000 + 2,517,223,830
    aro = rows["task", "aro"]
    assert (aro.bytes, aro.known, about(aro.known, True)) == (None, 3_932_479_474, "over 3.9 GB")
    assert (rows["task", "whatsup"].known, about(0, True)) == (0, "unknown")


def test_the_files_of_one_repository_are_one_line_with_its_commit(tmp_path):
    """A table of VL-CheckList's 56 addresses filled two screens; most said "at first fetch"."""
    found = {offer.name: lines(offer) for offer in offers(FSC, tmp_path, sources())}
    (checklist,) = found["vl_checklist"]
    assert checklist.where == "github:om-ai-lab/VL-CheckList (56 files)"
    assert (checklist.version, checklist.about) == ("6f8d6a3281c4", "over 47.3 MB")
    (crepe,) = found["crepe"]
    assert (crepe.where, crepe.version, crepe.about) == (
        "github:RAIVNLab/CREPE/.../prod_hard_negatives.zip",
        "1fa81c425f44",
        "unknown",
    )
    (whatsup,) = found["whatsup"]
    assert (whatsup.where, whatsup.version) == (
        "drive.usercontent.google.com (9 files)",
        "at first fetch",
    )
    assert max(map(len, found.values())) == 4
    assert sum(map(len, found.values())) < 100


def test_what_is_pinned_has_a_version_wherever_it_is_listed(tmp_path):
    for offer in offers(FSC, tmp_path, sources()):
        assert all(place.version for place in offer.places if place.pinned), offer.name


def test_four_of_fsc_plus_are_resolved_at_the_first_fetch_and_said_to_be(tmp_path):
    loose = ("colorswap", "half_truths", "mmvp_vlm", "vismin")
    words = ["data", "sources", "fsc+", "--data", str(tmp_path)]
    listed = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    hub = {row["name"]: place for row in listed for place in row["places"]
           if row["kind"] == "task" and place["source"].startswith("hf:")}  # fmt: skip
    assert {name: (place["pinned"], place["version"]) for name, place in hub.items()} == {
        "bivlc": (True, "0c504074819f3fa83d5d3f37018f8b43c05bda82"),
        **dict.fromkeys(loose, (False, "")),
    }
    table = CliRunner().invoke(app, words).stdout.splitlines()
    said = {
        line.split()[0] for line in table if re.search(r" hf:\S+ +resolved +at first fetch", line)
    }
    assert said == set(loose)


def test_status_ends_with_how_much_is_there_and_how_to_go_on(tmp_path):
    def shown(*words):
        done = CliRunner().invoke(app, ["data", "status", *words, "--data", str(tmp_path)])
        return done.stdout.splitlines()

    assert shown()[-1].startswith("There: 0 of 35 tasks and 0 of 9 image sources. `fsc-bench data")
    assert "over 3.9 GB" in next(line for line in shown() if line.startswith("aro "))
    (tmp_path / "images" / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "images" / "coco" / "val2017" / "000000000139.jpg").write_bytes(b"x")
    assert shown("sugarcrepe")[-1].startswith("There: 0 of 1 tasks and 1 of 1 image sources.")
    assert shown("coco/val2017")[-1] == "There: 1 of 1 image sources."


def test_the_command_lists_what_is_pinned_what_not_and_what_a_person_does(tmp_path):
    words = ["data", "sources", "flowers102", "sugarcrepe", "--json", "--data", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    crepe, flowers, images = json.loads(done.stdout)
    assert [place["pinned"] for place in flowers["places"]] == [False, False]
    assert [place["instead"] for place in flowers["places"]] == [False, True]
    assert flowers["places"][1]["differs"].startswith("the same images decoded by TensorFlow")
    assert (crepe["name"], crepe["needs"], len(crepe["places"])) == (
        "sugarcrepe",
        ["coco/val2017"],
        7,
    )
    # 361,126 + 176,843 + 312,629 + 57,569 + 154,665 + 484,593 + 158,863
    assert crepe["bytes"] == 1_706_288
    assert all(place["pinned"] for place in crepe["places"])
    assert (images["name"], images["bytes"], images["places"][0]["pinned"]) == (
        "coco/val2017",
        815_585_330,
        False,
    )

    shown = CliRunner().invoke(app, ["data", "sources", "winoground", "--data", str(tmp_path)])
    assert "Agree and access repository" in shown.stdout
    whole = CliRunner().invoke(app, ["data", "sources", "--json", "--data", str(tmp_path)])
    listed = json.loads(whole.stdout)
    assert {row["name"] for row in listed if row["kind"] == "task"} == {task.name for task in FSC}
    assert {row["name"] for row in listed if row["kind"] == "images"} == set(sources())
