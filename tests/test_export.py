"""Export and import: one run in the formats of others, and theirs as rows."""

import csv
import io
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from fsc_bench.cli.main import app
from fsc_bench.errors import UsageError
from fsc_bench.report.export import (
    bibtex,
    clip_benchmark_csv,
    every_eval_ever,
    for_latex,
    headlines,
    latex,
    model_card,
)
from fsc_bench.report.imported import import_files
from fsc_bench.report.leaderboard import columns
from fsc_bench.report.published import read_published
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result, Run, RunDirectory, task_facts
from fsc_bench.suite import default
from fsc_bench.task import catalogue, select

FSC = [TaskFacts.of(task) for task in select(["fsc"])]
KNOWN = {*columns(FSC), *default().averages}
NASTY = "open_clip:ViT-B_32/my & own | 50% <b>: #1"


def result(name: str, numbers: dict, flags=(), title="") -> Result:
    task = catalogue()[name]
    facts = task_facts(task)
    cells = {
        metric: Cell(value, value - 2.5, value + 1.5, 40, 25.0) for metric, value in numbers.items()
    }
    return Result(
        task=name, version=task.version, kind=task.kind, fingerprint=name, n=40, expected=40,
        metrics={"headline": cells}, headline=task.headline, ties=0, nan=0, flags=flags,
        facts=facts | ({"title": title} if title else {}),
    )  # fmt: skip


@pytest.fixture
def run() -> Run:
    """Three complete results of three kinds, and one that lacks pictures."""
    found = [
        result("winoground", {"group": 8.75, "text": 30.25, "image": 10.5}, title="Wino {_} & 1"),
        result("cifar10", {"accuracy": 89.5, "top5": 99.25}),
        result("flickr30k", {"i2t_r1": 78.5, "t2i_r1": 58.25, "t2i_r5": 83.5}),
        result("aro", {"text": 57.5}, flags=("3 images are missing",)),
    ]
    facts = {"model": NASTY, "fsc_bench": "0.1.0", "finished": "2026-01-02T03:04:05Z",
             "fingerprint": "e2f1", "identity": {"weights": "d922"}}  # fmt: skip
    return Run(Path("runs/mine"), facts, {one.task: one for one in found})


def test_the_hubs_own_parser_reads_every_complete_headline_out_of_the_card(run):
    card = ModelCard(model_card(run))
    found = {(one.dataset_type, one.metric_type): one for one in card.data.eval_results}

    assert card.data.model_name == NASTY
    assert {key: one.metric_value for key, one in found.items()} == {
        ("cifar10", "accuracy"): 89.5,
        ("flickr30k", "i2t_r1"): 78.5,
        ("flickr30k", "t2i_r1"): 58.25,
        ("winoground", "group"): 8.75,
    }
    one = found["winoground", "group"]
    assert one.dataset_name == "Wino {_} & 1"
    assert one.metric_args == {"chance": 25.0, "low": 6.25, "high": 10.25}
    assert "- aro: 3 images are missing" in card.text


def test_every_eval_ever_says_value_interval_source_and_licence(run):
    document = json.loads(every_eval_ever(run))
    found = {one["evaluation_result_id"]: one for one in document["evaluation_results"]}

    assert document["retrieved_timestamp"] == "1767323045"  # `date -d 2026-01-02T03:04:05Z +%s`
    assert list(found) == ["cifar10/accuracy", "flickr30k/i2t_r1", "flickr30k/t2i_r1",
                           "winoground/group"]  # fmt: skip
    score = found["winoground/group"]["score_details"]
    assert score["score"] == 8.75
    ends = score["uncertainty"]["confidence_interval"]
    assert (ends["lower"], ends["upper"], ends["confidence_level"]) == (6.25, 10.25, 0.95)
    source = found["winoground/group"]["source_data"]
    assert source["url"] == ["https://arxiv.org/abs/2204.03162"]
    assert source["additional_details"]["license"] == catalogue()["winoground"].license
    assert every_eval_ever(run) == every_eval_ever(run)


def test_every_eval_ever_fits_the_schema_of_its_package(run):
    types = pytest.importorskip(
        "every_eval_ever.eval_types", reason="every-eval-ever (Python 3.12) is not installed"
    )

    log = types.EvaluationLog(**json.loads(every_eval_ever(run)))
    assert [one.score_details.score for one in log.evaluation_results] == [89.5, 78.5, 58.25, 8.75]


def test_bibtex_holds_exactly_the_benchmarks_used_with_their_licences(run):
    text = bibtex(run)

    entries = [line for line in text.splitlines() if line.startswith("@")]
    assert entries == ["@misc{aro,", "@misc{cifar10,", "@misc{flickr30k,", "@misc{winoground,"]
    assert "  eprint = {2204.03162}," in text
    assert r"title = {{Wino \{\_\} \& 1}}" in text
    assert "Licence: MIT (annotations); Visual Genome CC BY 4.0" in text
    assert text.count("{") == text.count("}")


def test_the_latex_table_has_five_cells_a_row_and_marks_what_is_not_complete(run):
    lines = latex(run).splitlines()

    assert lines[1] == r"\begin{tabular}{llrcr}" and lines[-2:] == [
        r"\bottomrule",
        r"\end{tabular}",
    ]
    body = [line for line in lines[lines.index(r"\midrule") + 1 :] if line.endswith(r"\\")]
    assert len(body) == 5
    assert all(line.replace(r"\&", "").count("&") == 4 for line in body)
    assert body[-1] == r"Wino \{\_\} \& 1 & group & 8.8 & {[6.2, 10.2]} & 25.0 \\"
    assert "57.5* &" in body[0]
    assert r"my \& own | 50\% <b>: \#1" in lines[3]


def test_the_latex_table_is_read_by_a_parser_of_latex(run):
    walker = pytest.importorskip("pylatexenc.latexwalker", reason="pylatexenc is not installed")

    nodes, _, _ = walker.LatexWalker(latex(run), tolerant_parsing=False).get_latex_nodes()
    assert [node.environmentname for node in nodes if hasattr(node, "environmentname")] == [
        "tabular"
    ]


def test_no_character_is_a_command_of_latex():
    assert for_latex(r"\a{b}$&%#_~^") == (
        r"\textbackslash{}a\{b\}\$\&\%\#\_\textasciitilde{}\textasciicircum{}"
    )


def test_clip_benchmarks_columns_hold_fractions_of_complete_results(run):
    rows = {row["dataset"]: row for row in csv.DictReader(io.StringIO(clip_benchmark_csv(run)))}

    assert set(rows) == {"cifar10", "flickr30k", "winoground"}
    assert (rows["cifar10"]["acc1"], rows["cifar10"]["acc5"]) == ("0.895", "0.9925")
    assert rows["flickr30k"]["text_retrieval_recall@1"] == "0.785"
    assert rows["flickr30k"]["image_retrieval_recall@5"] == "0.835"
    assert rows["flickr30k"]["acc1"] == ""
    one = rows["winoground"]
    assert (one["model"], one["pretrained"]) == ("ViT-B_32", NASTY.partition("/")[2])
    assert (one["task"], one["language"]) == ("image_caption_selection", "en")


def test_a_run_without_a_complete_result_is_no_card(run):
    empty = Run(run.path, run.facts, {"aro": run.results["aro"]})

    assert list(headlines(empty)) == []
    with pytest.raises(UsageError, match="no complete result is there to export"):
        model_card(empty)
    assert "@misc{aro," in bibtex(empty)  # it was used


def test_the_command_writes_what_is_asked_for(run, tmp_path, capsys):
    directory = RunDirectory(tmp_path, "mine", "0" * 8)
    directory.write_run(run.facts)
    for one in run.results.values():
        directory.write_facts(one)

    arguments = ["export", str(directory.path), "-f", "latex,bibtex", "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        app(arguments)
    assert stopped.value.code == 0
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert files == ["benchmarks.bib", "table.tex"]
    with pytest.raises(SystemExit) as stopped:
        app(["export", str(directory.path), "-f", "latx"])
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and "'latx'" in err and "Did you mean 'latex'?" in err


# ---------------------------------------------------------------- import


def theirs(folder: Path, name: str, dataset: str, task: str, metrics: dict, **more) -> Path:
    facts = {"dataset": dataset, "model": "ViT-B-32", "pretrained": "openai", "task": task}
    path = folder / name
    path.write_text(json.dumps({**facts, "metrics": metrics, "language": "en", **more}))
    return path


def test_results_of_clip_benchmark_become_quoted_rows_marked_as_such(tmp_path):
    files = [
        theirs(tmp_path, "a.json", "wds/cifar10", "zeroshot_classification",
               {"acc1": 0.898, "acc5": 0.991, "mean_per_class_recall": 0.8979}),
        theirs(tmp_path, "b.json", "flickr30k", "zeroshot_retrieval",
               {"image_retrieval_recall@1": 0.587, "text_retrieval_recall@1": 0.788}),
        theirs(tmp_path, "c.json", "imagenet_sketch", "zeroshot_classification", {"acc1": 0.423}),
        theirs(tmp_path, "d.json", "flickr30k", "zeroshot_retrieval",
               {"text_retrieval_recall@1": 0.123}, language="de"),
    ]  # fmt: skip
    out = tmp_path / "published" / "theirs.csv"
    out.parent.mkdir()
    out.write_text(import_files(files, FSC))

    (row,) = read_published(out.parent, KNOWN)
    assert (row.model, row.source) == ("ViT-B-32 openai", "imported: CLIP_benchmark")
    assert row.values == {
        "cifar10": 89.8, "flickr30k i2t_r1": 78.8, "flickr30k t2i_r1": 58.7,
    }  # fmt: skip
    assert row.more == {
        "cifar10/acc5": 99.1, "cifar10/mean_per_class_recall": 89.79, "imagenet_sketch/acc1": 42.3,
        "flickr30k de/text_retrieval_recall@1": 12.3,
    }  # fmt: skip


def test_what_clip_benchmark_built_and_what_is_published_are_read_alike(tmp_path, run):
    built = tmp_path / "built.csv"
    built.write_text(clip_benchmark_csv(run))
    quoted = tmp_path / "quoted.csv"
    quoted.write_text("model,source,base,Comp,ours/part\nm,p. 3,b,46.1,12.25\n")
    out = tmp_path / "published" / "both.csv"
    out.parent.mkdir()
    out.write_text(import_files([built, quoted], FSC))

    first, second = sorted(read_published(out.parent, KNOWN), key=lambda row: row.source)
    assert first.source == "imported: CLIP_benchmark"
    assert first.values["cifar10"] == 89.5 and first.values["flickr30k i2t_r1"] == 78.5
    assert (second.values, second.more, second.about) == (
        {"Comp": 46.1}, {"ours/part": 12.25}, {"base": "b"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"dataset": "cifar10"}', "model"),
        ("a.json", '{"dataset": "x", "model": "m", "pretrained": "p", "task": "t", '
                   '"metrics": {"acc1": 89.8}}', "acc1"),
        ("a.csv", "dataset,model,pretrained,task,acc1\nx,m,p,t,much\n", "line 2: acc1 = 'much'"),
        ("a.csv", "dataset,model,pretrained,task,acc1\nx,m,p\n", "line 2: has not as many cells"),
        ("a.csv", "model,sourec,Comp\nm,p,1\n", "'source'"),
        ("a.txt", "x", "neither .json"),
    ],
)  # fmt: skip
def test_what_is_no_result_is_refused_in_one_line(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(UsageError) as refused:
        import_files([path], FSC)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_two_numbers_of_one_cell_are_refused(tmp_path):
    files = [
        theirs(tmp_path, f"{value}.json", "cifar10", "zeroshot_classification", {"acc1": value})
        for value in (0.898, 0.9)
    ]

    with pytest.raises(UsageError, match=r"cifar10 of 'ViT-B-32 openai' is 90\.0, 89\.8 elsewhere"):
        import_files(files, FSC)
