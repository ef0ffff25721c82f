"""Data sets of CLIP_benchmark by name: `clip_benchmark:NAME`."""

from dataclasses import replace

import numpy as np
import pytest
from hub_server import Hub
from made_runs import choices, write_run
from oracle_clip_benchmark import CLASSES, KINDS, by_sample, draw

from fsc_bench.cli.main import app
from fsc_bench.clip_benchmark import eleven_points
from fsc_bench.data import download
from fsc_bench.data.link import link
from fsc_bench.data.prepare import prepare
from fsc_bench.errors import DataError, UsageError
from fsc_bench.results import RunDirectory, read_runs
from fsc_bench.score import classification
from fsc_bench.task import data_at, read_task, select

ONE = """
title = "One"
suite = "clip_benchmark"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
items = 10
[data]
reader = "records"
"""
HUB = "https://huggingface.co/datasets/clip-benchmark"


@pytest.fixture
def linked(tmp_path):
    """The data folder with one folder of each kind linked."""
    with data_at(tmp_path / "data"):
        for name, kind in KINDS.items():
            draw(tmp_path / name, kind)
            place = tmp_path / "{dataset_cleaned}"  # as clip_benchmark's --dataset_root has it
            link(f"clip_benchmark:{name}", place, tmp_path / "data")
        yield tmp_path


def test_a_linked_folder_is_a_task_with_its_own_names_templates_and_kind(linked):
    (single,) = select(["clip_benchmark:drawn_single"])
    assert single.classes == tuple(CLASSES) and single.n == 36
    assert single.prompts["clip_benchmark"].templates == (
        "a {} square.",
        "a photo of something {}.",
    )
    (several,) = select(["clip_benchmark:drawn_multi"])
    assert several.official_ties["metrics"] == ["mean_average_precision"]
    assert max(len(row.labels) for row in prepare(several, linked / "data").records) == 3
    (captions,) = select(["clip_benchmark:drawn_captions"])
    rows = prepare(captions, linked / "data").records
    assert captions.kind == "retrieval" and len(rows) == 36
    assert rows[7].texts[0].endswith(", number 7") and rows[7].texts[1].startswith("picture 7 of")


def test_a_name_of_the_package_has_its_names_and_templates_before_its_data_are_there(tmp_path):
    with data_at(tmp_path):
        (task,) = select(["clip_benchmark:pets"])
    assert len(task.classes) == 37 and "Abyssinian" in task.classes
    assert task.n == 0 and task.suite == "clip_benchmark"


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [
        ("imagenetv2", "classification", 0),  # names come with the data
        ("imagenet-r", "classification", 0),
        ("objectnet", "classification", 0),
        ("stl10", "classification", 0),
        ("vtab/pets", "classification", 37),
        ("vtab-caltech101", "classification", 102),
        ("wds/flickr8k", "retrieval", 0),
        ("xtd10", "retrieval", 0),
    ],
)
def test_what_the_package_builds_is_known_by_name(tmp_path, name, kind, classes):
    with data_at(tmp_path):
        (task,) = select([f"clip_benchmark:{name}"])
    assert (task.kind, len(task.classes)) == (kind, classes)
    assert task.data.sources[0]["hf"] == f"clip-benchmark/wds_{task.name.partition(':')[2]}"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("clip_benchmark:sun398", "no data set called 'sun398'.*Did you mean 'sun397'"),
        ("clip_benchmark:imagenetv3", "called 'imagenetv3'.*Did you mean 'imagenetv2'"),
        ("clip_benchmark:a b", "after 'clip_benchmark:' stands the name of a data set"),
        ("clip_benchmark:sun397@v1.0", "stand the 40 digits of a commit of clip-benchmark/wds_sun"),
        (f"clip_benchmark:cars@{HUB}/wds_{{dataset}}/tree/dev", "the 40 digits of a commit of c"),
        ("clip_bench:sun397", "no task called 'clip_bench:sun397'"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_near_miss(tmp_path, word, line):
    with data_at(tmp_path), pytest.raises(UsageError, match=line) as told:
        select([word])
    assert "\n" not in str(told.value)


def test_a_folder_of_an_unknown_type_is_refused(linked):
    (linked / "drawn_multi" / "dataset_type.txt").write_text("multi-label")
    with pytest.raises(DataError, match="'multi-label' is none of classification"):
        select(["clip_benchmark:drawn_multi"])


def test_of_equal_scores_the_first_class_wins_as_in_clip_benchmark():
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.2, 0.1, 0.3], [0.4, 0.6, 0.5]])
    labels = np.array([0, 1, 2, 1])
    found = classification.shares(classification.places(scores, labels), labels)
    assert found["acc1"] == 0.75
    assert found["mean_per_class_recall"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_mean_average_precision_by_hand():
    scores = np.array([[0.9, 0.1], [0.5, 0.4], [0.3, 0.8]])
    truth = np.array([[1, 0], [0, 1], [1, 0]])
    # Class 0: hits at places 1 and 3, (1 + 2/3) / 2; class 1: one hit at place 2.
    assert classification.mean_average_precision(scores, truth) == pytest.approx(
        (5 / 6 + 1 / 2) / 2
    )


def test_the_oracle_tells_a_single_sample_that_differs():
    """Three captions of two pictures; the second caption's picture comes second."""
    kept = {"scores": np.array([[0.9, 0.1], [0.4, 0.5], [0.2, 0.3]]),
            "positive": np.array([[1, 0], [1, 0], [0, 1]], bool)}  # fmt: skip
    hits = {1: ([1, 0, 1], [1, 0]), 5: ([1, 1, 1], [1, 1]), 10: ([1, 1, 1], [1, 1])}
    for k, (image, text) in hits.items():
        kept |= {f"image {k}": np.array(image, bool), f"text {k}": np.array(text, bool)}
    own = {"t2i_rank": [[1, 2], [1]], "i2t_rank": [1, 2]}

    assert sum(other for _, _, other in by_sample("retrieval", kept, own)) == 0
    own["t2i_rank"] = [[1, 1], [1]]
    told = {what: other for what, _, other in by_sample("retrieval", kept, own) if other}
    assert told == {"image rank": 1, "image found at 1": 1}

    kept = {"logits": np.array([[50.0, 30.0], [20.0, 40.0]]), "target": np.array([0, 0])}
    own = {"labels": [[0], [0]], "prediction": [0, 0], "score_label": [0.5, 0.2]}
    told = {what: other for what, _, other in by_sample("", kept, own) if other}
    assert told == {"class taken": 1}
    kept = {"logits": 100 * np.array([[0.9, 0.1], [0.5, 0.4]])}
    told = by_sample("multilabel", kept, {"scores": [[0.5, 0.1], [0.9, 0.4]]})
    assert [other for _, _, other in told] == [2, 2]


# ---------------------------------------------------------------- from the Hub and from a mirror


def files_of(folder) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with one data set of clip_benchmark, whose names no package has, and a mirror of it."""
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FSC_BENCH_DATA", str(tmp_path / "data"))
    draw(tmp_path / "imagenetv2", "")
    files = files_of(tmp_path / "imagenetv2")
    with Hub() as hub:
        hub.redirect(monkeypatch)
        hub.repository("clip-benchmark/wds_imagenetv2", files)
        hub.files = {f"wds_imagenetv2/{name}": content for name, content in files.items()}
        yield hub


def ran(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        app([str(word) for word in words])
    found = capsys.readouterr()
    return end.value.code or 0, found.out, found.err


NAME = "clip_benchmark:imagenetv2"


def test_the_hubs_newest_commit_is_taken_told_and_kept(hub, tmp_path, capsys):
    code, _, err = ran(capsys, "run", "-t", NAME, "-m", "control:chance", "-o", tmp_path / "runs")
    assert code == 3 and f"data get {NAME}" in err and len(err.splitlines()) <= 2
    first = hub.repositories["clip-benchmark/wds_imagenetv2"].newest
    code, _, err = ran(capsys, "data", "get", NAME)
    assert code == 0 and f"no commit is known; the newest, {first}, is taken, now and later" in err
    hub.repositories["clip-benchmark/wds_imagenetv2"].push({"test/nshards.txt": b"1"})

    code, _, err = ran(capsys, "data", "get", NAME)  # another commit came: nothing changes
    assert (code, err) == (0, "")
    lock = tmp_path / "lock.toml"
    assert ran(capsys, "data", "lock", lock, NAME)[0] == 0 and first in lock.read_text()
    (task,) = select([NAME])
    assert (task.n, task.classes) == (36, tuple(CLASSES))
    assert len(prepare(task, tmp_path / "data").records) == 36
    code, _, err = ran(capsys, "data", "get", f"{NAME}@{40 * 'a'}")
    assert (code, len(err.splitlines())) == (2, 1) and f"was fetched at {first}. Delete" in err


def test_a_mirror_is_fetched_shard_by_shard_and_stays_the_source(hub, tmp_path, capsys):
    second = hub.files.pop("wds_imagenetv2/test/1.tar")
    word = f"{NAME}@{hub.url}/files/wds_{{dataset_cleaned}}"
    code, _, err = ran(capsys, "data", "get", word)
    assert code == 3 and "/files/wds_imagenetv2/test/1.tar answers 404" in err
    assert "partial" in ran(capsys, "data", "status", NAME)[1]

    hub.files["wds_imagenetv2/test/1.tar"] = second
    asked = len(hub.asked)
    code, _, err = ran(capsys, "data", "get", NAME)  # the mirror is remembered
    fetched = [path for _, path, *_ in hub.asked[asked:]]
    assert (code, err) == (0, "")
    # What is there is not fetched again; that a set lacks dataset_type.txt is asked each time.
    assert fetched == ["/files/wds_imagenetv2/dataset_type.txt",
                       "/files/wds_imagenetv2/test/1.tar"]  # fmt: skip
    (task,) = select([NAME])
    assert len(prepare(task, tmp_path / "data").records) == 36
    lock = tmp_path / "lock.toml"
    assert ran(capsys, "data", "lock", lock, NAME)[0] == 0 and "test/1.tar" in lock.read_text()


def test_a_mirror_that_says_no_number_of_shards_is_refused(hub, capsys):
    hub.files["wds_imagenetv2/test/nshards.txt"] = b"two"
    code, _, err = ran(capsys, "data", "get", f"{NAME}@{hub.url}/files/wds_{{dataset}}")
    assert code == 3 and "nshards.txt says 'two', no number of shards. It was not kept." in err


# ---------------------------------------------------------------- tables


def test_their_metrics_stand_in_a_table_of_their_own_apart_from_the_suites(tmp_path, capsys):
    (tmp_path / "one.toml").write_text(ONE)
    task = read_task(tmp_path / "one.toml")
    columns = choices([("items", f"p{n}", n < 7) for n in range(10)])
    for model, hits in (("mine:a", 63.5), ("mine:b", 71.25)):
        run = write_run(tmp_path / "runs", model, [(task, columns)])
        result = run.results["one"]
        told = {"source": "clip_benchmark's", "metrics": {"acc1": hits, "acc5": None}}
        RunDirectory.at(run.path).write_facts(replace(result, official=told))
    page = tmp_path / "page.html"
    words = ("leaderboard", tmp_path / "runs", "-o", tmp_path / "out", "--html", page)
    assert ran(capsys, *words)[0] == 0

    text = (tmp_path / "out" / "clip-benchmark.md").read_text()
    table = text.partition("## Official metrics")[2].partition("\n## ")[0]
    assert "clip_benchmark's. No average and no rank is of them." in table
    assert "| Model | one acc1 | one acc5 |" in table and "| mine:b | 71.2 | - |" in table
    assert "71.2" not in text.replace(table, "")
    csv = (tmp_path / "out" / "clip-benchmark.csv").read_text().splitlines()
    assert csv[0].endswith("official one acc1,official one acc5,notes")
    assert any(line.startswith("mine:a") and line.endswith(",63.5000,,") for line in csv)
    assert "one acc1 71.2 (clip_benchmark's)" in page.read_text()
    assert not (tmp_path / "out" / "fsc.csv").exists()


def test_a_metric_of_a_strangers_result_that_is_no_percentage_is_refused(tmp_path):
    (tmp_path / "one.toml").write_text(ONE)
    columns = choices([("items", f"p{n}", n < 7) for n in range(10)])
    run = write_run(tmp_path / "runs", "mine:a", [(read_task(tmp_path / "one.toml"), columns)])
    told = {"source": "theirs", "metrics": {"acc1": 163.5}}
    RunDirectory.at(run.path).write_facts(replace(run.results["one"], official=told))
    with pytest.raises(UsageError, match=r"one\.json: official: metrics.*100"):
        read_runs([run.path])


# ---------------------------------------------------------------- chance


def test_chance_of_several_labels_is_what_random_rankings_get():
    # Of 2 pictures one shows the class: at place 1 all 11 terms are 1, at place 2 one is, ten 0.5.
    by_hand = 100 * (1 + 6 / 11) / 2
    assert eleven_points(2, (1,)) == pytest.approx(by_hand, abs=3)
    assert eleven_points(7, (7, 0)) == 100.0  # a class that no picture shows has no precision
    # VOC2007's test split: its task file states 15.8169, of 1,000 drawn rankings of its own.
    voc = (204, 239, 282, 172, 212, 174, 721, 322, 417, 127, 190, 418, 274, 222, 2007, 224, 97, 223,
           259, 229)  # fmt: skip
    assert eleven_points(4952, voc) == pytest.approx(15.8169, abs=0.05)


def test_a_folder_of_several_labels_has_that_chance(linked):
    (task,) = select(["clip_benchmark:drawn_multi"])
    shown = np.zeros(6, int)
    for row in prepare(task, linked / "data").records:
        shown[list(row.labels)] += 1
    assert task.chance == {"map11": eleven_points(36, tuple(shown.tolist()))}
    assert 9.1 < task.chance["map11"] < 60
