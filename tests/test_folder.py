"""Folder: the published numbers as their sources state them, and the pages made of them."""

import csv
import gzip
import shutil
from pathlib import Path

import pytest

from fsc_bench.cli.compare import published
from fsc_bench.cli.report import write_pages
from fsc_bench.errors import GateError, UsageError
from fsc_bench.report.folder import write_folder
from fsc_bench.report.leaderboard import columns, present, quotable
from fsc_bench.report.published import read_published
from fsc_bench.report.seen import Seen, mean_of_others, named, read_seen
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result, Run
from fsc_bench.suite import default
from fsc_bench.task import select

BOARDS = Path(__file__).parent.parent / "leaderboards"
FSC = [TaskFacts.of(task) for task in select(["fsc"])]
KNOWN = {*columns(FSC), *default().averages}
HEADER = "model,source,table,base,train_data"


# ---------------------------------------------------------------- the quoted numbers

# (source's words for a benchmark) -> ours; the others are called alike.
OURS = {
    "comp_avg": "Comp", "zs_avg": "ZS", "i2t_avg": "I2T", "t2i_avg": "T2I", "coco": "coco_karpathy",
    "eurosat-clip": "eurosat", "fgvc-aircraft-2013b": "fgvc_aircraft", "flower102": "flowers102",
    "hateful-memes": "hateful_memes", "imagenet-1k": "imagenet1k", "imagenet": "imagenet1k",
    "kitti-distance": "kitti_distance", "oxford-iiit-pets": "oxford_pets",
    "rendered-sst2": "rendered_sst2", "resisc45-clip": "resisc45", "stanfordcar": "stanford_cars",
    "voc2007classification": "voc2007", "sugarcrepe++": "sugarcrepe_pp", "pets": "oxford_pets",
    "flowers": "flowers102", "cars": "stanford_cars", "aircraft": "fgvc_aircraft",
    "zs_avg11": "mean/zs_avg11", "zs_avg23": "mean/zs_avg23", "avg6": "mean/avg6",
}  # fmt: skip
OF_FEWER = {"mean of 12": "of 12", "mean R@1 of 2 (coco,flickr30k)": "of 2"}
WHOLE = (
    "benchmark average", "accuracy (%)", "zero-shot top-1", "mean of 11", "mean of 21",
    "mean of 21 (top-1)", "mean R@1 of 3", "ELEVATER zero-shot metric (%)",
    "mean over seeds 0,1,2",
)  # fmt: skip


def column(row) -> str:
    """The column in which a tidy row's number stands: our column where it is the whole of a
    benchmark of ours by our metric, `benchmark/part` elsewhere.
    """
    benchmark, metric = row["benchmark"], row["metric"]
    ours = OURS.get(benchmark, benchmark)
    if "@" in metric and not metric.startswith("mean"):
        way, k = metric.replace("/", " ").split(" R@")
        if benchmark == "avg":
            return way.upper() if k == "1" else f"{way.upper()}/r{k}"
        return f"{ours} {way}_r1" if k == "1" else f"{ours}/{way}_r{k}"
    if benchmark == "elevator":  # vl_compo's name for the 21 tasks
        return OURS.get(metric, metric)
    if metric == "zero-shot top-1 (%)":  # READ-CLIP's ImageNet; DeGLA's 11 have other settings
        read_clip = "READ-CLIP" in row["source"] and ours == "imagenet1k"
        return ours if read_clip or ours.startswith("mean/") else f"{ours}/top1"
    if metric in WHOLE:
        return ours if ours in KNOWN or ours.startswith("mean/") else f"{ours}/average"
    if metric.startswith("std over seeds"):
        return f"{ours}/seed_sd"
    words = {"ITT": "ITT total", "TOT": "TOT total", **OF_FEWER}
    return f"{ours}/{words.get(metric, metric)}"


SOURCES = {
    "fscclip_table1_main.csv": ("fsc_clip_paper", 276),
    "fscclip_table9_zeroshot21.csv": ("fsc_clip_paper", 242),
    "fscclip_table10_retrieval.csv": ("fsc_clip_paper", 220),
    "fscclip_ablations_tables2-5_7.csv": ("fsc_clip_ablations", 136),
    "fscclip_table8_seeds.csv": ("fsc_clip_seeds", 60),
    "repo_extended_results_long.csv": ("fsc_clip_released", 180),
    "vl_compo_results_long.csv.gz": ("vl_compo", 4242),
    "vl_compo_individual_long.csv.gz": ("vl_compo", 27472),
    "related_work_long.csv": (None, 739),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_quoted_number_stands_in_the_csv_of_its_source(real_data, name):
    stem, count = SOURCES[name]
    path = real_data / "published" / name
    with gzip.open(path, "rt") if name.endswith(".gz") else open(path) as file:
        stated = list(csv.DictReader(file))
    quoted = read_published(BOARDS / "published", KNOWN, others=quotable())
    rows: dict = {}
    for row in quoted:
        if stem is None or row.path.stem == stem:
            about = row.about
            key = (about["base"], about["train_data"], about["lora"])
            rows.setdefault(key, []).append(row)

    lacking = []
    for one in stated:
        candidates = [
            row
            for row in rows.get((one["base"], one["train_data"], one["lora"]), [])
            if row.model.startswith(one["model"])
            and one["table"] in row.about["table"]
            and row.source in one["source"]
        ]
        held = [{**row.values, **row.more}.get(column(one)) for row in candidates]
        # vl_compo's two files state some numbers twice, of which one is rounded to ten digits.
        close = 1.1e-8 if stem == "vl_compo" else 0
        if not any(x is not None and abs(x - float(one["value"])) <= close for x in held):
            lacking.append((one["model"], one["table"], column(one), one["value"], held))
    assert (len(stated), lacking) == (count, [])


def test_the_papers_and_the_released_checkpoints_numbers_both_stand_there(real_data):
    rows = read_published(BOARDS / "published", KNOWN, others=quotable())
    with open(real_data / "published" / "paper_vs_released_checkpoints.csv") as file:
        stated = list(csv.DictReader(file))
    held: dict = {"paper": set(), "released": set()}
    for row in rows:
        which = "released" if row.path.stem == "fsc_clip_released" else "paper"
        if row.model.startswith("FSC-CLIP") and row.path.stem.startswith("fsc_clip"):
            held[which] |= {(name, value) for name, value in row.values.items()}

    for one in stated:
        name = OURS.get(one["benchmark"], one["benchmark"])
        assert (name, float(one["paper"])) in held["paper"]
        assert (name, float(one["released_ckpt"])) in held["released"]
    assert len(stated) == 106


def test_a_mean_of_twelve_other_benchmarks_is_not_comp():
    rows = read_published(BOARDS / "published", KNOWN, others=quotable())
    found = [row for row in rows if row.path.stem == "vl_compo"]

    assert len(found) == 202
    assert all("Comp" not in row.values and "Comp/of 12" in row.more for row in found)
    assert all("I2T" not in row.values and len(row.values) == 36 for row in found)


def test_a_name_that_several_sources_share_is_one_sources_row():
    name, cells = published("CLIP (ViT-B-32)")

    assert (name, cells["Comp"]) == ("CLIP (ViT-B-32) [arXiv:2410.05210v1]", 46.1)
    other = "CLIP (ViT-B-32) [arXiv:2510.16540 (READ-CLIP, NeurIPS 2025)]"
    name, cells = published(other)
    assert (name, cells["whatsup"]) == (other, 41.0)
    assert "Comp" not in cells


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """The cells of the table below each heading of the third rank."""
    found: dict[str, list[list[str]]] = {}
    for part in text.split("\n### ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        cells = [line.strip("| ").replace("\\|", "\0").split(" | ") for line in lines]
        found[part.partition("(")[2].partition(")")[0]] = cells
    return found


@pytest.mark.parametrize("group", ["compositionality", "classification", "retrieval"])
def test_numbers_on_the_pages_equal_the_published_ones_to_the_printed_digit(group):
    tables = tables_of((BOARDS / f"{group}.md").read_text())
    shown = 0
    for name, (header, _, *lines) in tables.items():
        with open(BOARDS / name) as file:
            stated = {row["model"]: row for row in csv.DictReader(file)}
        for model, *cells in lines:
            row = stated[model.replace("\0", "|").replace("\\", "")]
            for column_name, cell in zip(header[1:], cells, strict=True):
                value = row[column_name]
                assert cell == (f"{float(value):.1f}" if value else "-"), (name, model, column_name)
                shown += bool(value)
    part = [task for task in FSC if task.group == group]
    names = [*present(part), *columns(part)]
    rows = read_published(BOARDS / "published", KNOWN, others=quotable())
    assert shown == sum(name in row.values for row in rows for name in names) > 1000


# ---------------------------------------------------------------- pages


@pytest.fixture
def boards(tmp_path):
    """A folder with one source: an untouched model and one that was tuned."""
    published = tmp_path / "boards" / "published"
    published.mkdir(parents=True)
    text = f"{HEADER},Comp,ZS,winoground,winoground/text,colorswap/average\n"
    text += "base,p. 1,T. 1,x,none,46.1,57.1,8.8,30.25,\n"
    text += "tuned|0,p. 1,T. 1,x,coco,54.2,55.7,9.5,31,12.5\n"
    (published / "paper.csv").write_text(text)
    return published.parent


def result(task: TaskFacts, value: float, version: int) -> Result:
    cell = Cell(value, value - 2, value + 2, 100, 25.0)
    facts = {"suite": task.suite, "group": task.group, "chance": dict(task.chance)}
    return Result(
        task=task.name, version=version, kind="matching", fingerprint="f", n=100, expected=100,
        metrics={"headline": dict.fromkeys(task.headline, cell)}, headline=task.headline,
        ties=0, nan=0, facts={**facts, "headline": list(task.headline)},
    )  # fmt: skip


def test_the_first_page_says_what_leads_and_what_it_costs(boards):
    write_pages(boards)
    text = (boards / "README.md").read_text()

    assert "| [paper](published/paper.csv) | 2 | 9 | 54.2 tuned\\|0 | 57.1 base | - | - |" in text
    assert "| [paper](published/paper.csv) | tuned\\|0 | +8.1 | -1.4 | - | - |" in text
    assert "![Comp against ZS](tradeoff.svg)" in text
    picture = (boards / "tradeoff.svg").read_text()
    assert "model: tuned|0" in picture and "at_x" in picture  # and an arrow to it from its base


def test_a_second_run_writes_the_same_bytes_and_a_stale_page_is_named(boards):
    files = write_pages(boards)
    before = [file.read_bytes() for file in files]

    assert [file.read_bytes() for file in write_pages(boards, check=True)] == before
    assert [file.read_bytes() for file in write_pages(boards)] == before
    source = boards / "published" / "paper.csv"
    source.write_text(source.read_text().replace("8.8", "8.9"))
    with pytest.raises(GateError, match=r"fsc\.csv, .*compositionality\.md: stale"):
        write_pages(boards, check=True)
    assert [file.read_bytes() for file in files] == before


def test_measured_and_published_rows_share_no_table_and_other_versions_are_named(boards):
    winoground = next(task for task in FSC if task.name == "winoground")
    runs = [
        Run(boards / "a", {"model": "mine:a"}, {"winoground": result(winoground, 41.5, 1)}),
        Run(boards / "b", {"model": "mine:old"}, {"winoground": result(winoground, 47.5, 99)}),
    ]

    write_folder(boards, runs, {"fsc": FSC})
    text = (boards / "compositionality.md").read_text()
    measured, published = text.split("## Published numbers")
    assert "mine:a" in measured and "41.5" in measured and "tuned" not in measured
    assert "mine:a" not in published and "| base | 46.1 | 8.8 |" in published
    assert "47.5" not in text and "mine:old, winoground: " in measured.split("## Left out")[1]
    assert "|  | mine:a | - |" in measured  # incomplete: no average, no rank


def test_shipped_pages_are_up_to_date(tmp_path):
    copy = shutil.copytree(BOARDS, tmp_path / "leaderboards")

    assert {file.name for file in write_pages(copy, check=True)} >= {
        "README.md", "fsc.csv", "compositionality.md", "classification.md", "retrieval.md",
        "demo.md",
    }  # fmt: skip


def test_a_folder_without_published_numbers_is_no_folder_of_leaderboards(tmp_path):
    with pytest.raises(UsageError, match="has no folder published/"):
        write_pages(tmp_path)


def test_further_columns_are_carried_and_stand_in_no_table(boards):
    row = read_published(boards / "published", {"Comp", "ZS", "winoground"})[1]

    assert row.values == {"Comp": 54.2, "ZS": 55.7, "winoground": 9.5}
    assert row.more == {"winoground/text": 31.0, "colorswap/average": 12.5}
    assert row.about == {"table": "T. 1", "base": "x", "train_data": "coco"}


# ---------------------------------------------------------------- what training may have seen


def test_shares_follow_from_promised_counts_of_subsets(tmp_path):
    tasks = select(["winoground", "aro", "valse"])
    (tmp_path / "images.toml").write_text(
        '[aro]\ncoco = ["COCO_Order"]\nvg = ["VG_*"]\n[valse]\nunknown = ["existence"]\n'
    )

    found = read_seen(tmp_path / "images.toml", tasks)
    # ARO: 25,010 of 82,695 records show COCO, 23,937 + 28,748 Visual Genome; VALSE: 505 of 7,702.
    assert (found["aro"].coco, found["aro"].vg) == pytest.approx((30.2436, 63.7100), abs=1e-4)
    assert found["valse"].unknown == pytest.approx(6.5567, abs=1e-4)
    assert found["valse"].built_on and not found["winoground"].built_on
    assert found["winoground"] == Seen(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[valsee]\ncoco = ["existence"]\n', "no task called 'valsee'. Did you mean 'valse'?"),
        ('[valse]\ncoco = ["existance"]\n', "'existance'. Did you mean 'existence'?"),
        ('[valse]\ncoco = ["e*"]\nvg = ["*"]\n', "'existence' is of coco and of vg"),
        ('[valse]\nflickr = ["*"]\n', "flickr"),
    ],
)
def test_a_benchmark_or_subset_that_is_none_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "images.toml"
    path.write_text(text)

    with pytest.raises(UsageError) as refused:
        read_seen(path, select(["valse"]))
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("coco-100k", ["COCO"]),
        ("laioncoco-600M", []),
        ("cc3m + COCO; Visual Genome", ["COCO", "VG"]),
        ("vg", ["VG"]),
        ("none", []),
    ],
)
def test_training_data_names_coco_and_vg_by_whole_words(words, names):
    assert named(words) == names


def test_comp_without_the_tasks_built_on_coco_is_the_mean_of_the_others():
    values = {"a": 40.0, "b": 91.0, "c": 23.0}

    assert mean_of_others(values, ["a", "b", "c"], ["b"]) == 31.5
    assert mean_of_others({"a": 40.0, "b": 91.0}, ["a", "b", "c"], ["b"]) is None
    assert mean_of_others(values, ["b"], ["b"]) is None


def test_the_first_page_shows_comp_without_the_benchmarks_that_training_may_have_seen():
    lines = (BOARDS / "README.md").read_text().splitlines()

    # Table 1: (29.8 + 26.3 + 34.2 + 90.9 + 9.5) / 5; CLIP (26.5 + 21.7 + 31.9 + 84.1 + 8.8) / 5.
    row = next(one for one in lines if "clip_paper" in one and "| FSC-CLIP (ViT-B-32, coco" in one
               and "| COCO |" in one)  # fmt: skip
    assert row.endswith("| COCO | 54.2 | 38.1 |")
    assert any(one.endswith("| CLIP (ViT-B-32) | neither | 46.1 | 34.6 |") for one in lines)
