"""Export: one run in the formats of others: a model card, Every Eval Ever, BibTeX, LaTeX, CSV.

Each function takes a run and gives a text, and computes no number. Incomplete results stand in no
card and no schema file; the formats that can say so mark them.
"""

import csv
import io
import json
import re
import time
import uuid
from calendar import timegm
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fsc_bench.errors import UsageError
from fsc_bench.results import Cell, Result, Run, slug
from fsc_bench.system.escape import for_csv, for_markdown, for_terminal
from fsc_bench.task import WHOLE

KIND_OF_TASK = {
    "matching": "image-text-matching",
    "classification": "zero-shot-image-classification",
    "retrieval": "image-text-retrieval",
}
SCHEMA = "0.3.0"  # of Every Eval Ever


def headlines(run: Run, incomplete: bool = False) -> Iterator[tuple[Result, str, Cell]]:
    """(result, metric, number) of every headline that has a number, by task name."""
    for result in sorted(run.results.values(), key=lambda result: result.task):
        if not result.complete and not incomplete:
            continue
        for metric in result.headline:
            cell = result.metrics.get(WHOLE, {}).get(metric)
            if cell is not None and cell.value is not None:
                yield result, metric, cell


def _title(result: Result) -> str:
    return for_terminal(result.facts.get("title") or result.task)


def _left_out(run: Run) -> list[str]:
    """What an incomplete result lacks, one line each."""
    results = sorted(run.results.values(), key=lambda result: result.task)
    return [f"{one.task}: {'; '.join(one.flags)}" for one in results if not one.complete]


def _must_have_numbers(run: Run, incomplete: bool = False) -> None:
    if not any(headlines(run, incomplete)):
        raise UsageError(
            f"{run.path}: no complete result is there to export. `fsc-bench run` with the same -o "
            "finishes it."
        )


# ---------------------------------------------------------------- Hugging Face


def model_card(run: Run) -> str:
    """A model card whose `model-index` holds every complete headline."""
    from huggingface_hub import EvalResult, ModelCardData

    _must_have_numbers(run)
    results = []
    for result, metric, cell in headlines(run):
        ends = {} if cell.low is None else {"low": round(cell.low, 4), "high": round(cell.high, 4)}
        results.append(
            EvalResult(
                task_type=KIND_OF_TASK[result.kind],
                dataset_type=result.task,
                dataset_name=_title(result),
                dataset_args={"version": result.version, "n": result.n},
                metric_type=metric,
                metric_name=f"{metric} (percent)",
                metric_value=round(cell.value, 4),
                metric_args={"chance": cell.chance, **ends},
            )
        )
    data = ModelCardData(model_name=for_terminal(run.name), eval_results=results)
    lines = ["---", data.to_yaml(), "---", "", f"# {for_markdown(run.name)}", ""]
    lines += [f"Measured with fsc_bench; run {str(run.facts.get('fingerprint', ''))[:16]}.", ""]
    lines += ["| Benchmark | Metric | Percent | 95% interval | Chance |", "|---|---|---:|---|---:|"]
    for result, metric, cell in headlines(run):
        chance = "-" if cell.chance is None else f"{cell.chance:.1f}"
        lines.append(
            f"| {for_markdown(_title(result))} | {for_markdown(metric)} | {cell} | "
            f"{cell.interval or '-'} | {chance} |"
        )
    if left := _left_out(run):
        lines += ["", "Not complete, and therefore left out:", ""]
        lines += [f"- {for_markdown(line)}" for line in left]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- Every Eval Ever


def every_eval_ever(run: Run) -> str:
    """The run by the schema 0.3.0 of Every Eval Ever, as JSON; checked by the package
    every-eval-ever where that is installed (the extra `eee`).
    """
    _must_have_numbers(run)
    identity = {str(k): str(v) for k, v in run.facts.get("identity", {}).items() if v is not None}
    # One file for one state of a run: the name and the results decide, not the clock.
    words = json.dumps([run.name, {t: r.fingerprint for t, r in sorted(run.results.items())}])
    finished = run.facts.get("finished")
    document: dict[str, Any] = {
        "schema_version": SCHEMA,
        "evaluation_id": f"fsc_bench/{slug(run.name)}/{uuid.uuid5(uuid.NAMESPACE_URL, words)}",
        "retrieved_timestamp": str(_seconds(finished)),
        "source_metadata": {
            "source_name": "fsc_bench",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "fsc_bench",
            "version": str(run.facts.get("fsc_bench") or "unknown"),
        },
        "model_info": {
            "name": run.name,
            "id": run.name,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                **identity,
            },
        },
        "evaluation_results": [_evaluation(*found) for found in headlines(run)],
    }
    with suppress(ImportError):
        from every_eval_ever.eval_types import EvaluationLog

        EvaluationLog(**document)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _seconds(finished: object) -> int:
    """Unix time at which a run finished; now, where it does not say."""
    try:
        return timegm(time.strptime(str(finished), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return int(time.time())


def _evaluation(result: Result, metric: str, cell: Cell) -> dict[str, Any]:
    score: dict[str, Any] = {"score": cell.value}
    if cell.low is not None:
        score["uncertainty"] = {
            "confidence_interval": {
                "lower": cell.low,
                "upper": cell.high,
                "confidence_level": 0.95,
                "method": "bootstrap over source images, or exact where n is small",
            },
            "num_samples": result.n,
        }
    paper = str(result.facts.get("paper") or "")
    source: dict[str, Any] = {"dataset_name": _title(result), "source_type": "other"}
    if link := _link(paper):
        source = {"dataset_name": _title(result), "source_type": "url", "url": [link]}
    source["additional_details"] = {
        "task": result.task,
        "version": str(result.version),
        "license": str(result.facts.get("license") or "unknown"),
    }
    config: dict[str, Any] = {
        "metric_id": metric,
        "metric_unit": "percent",
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": 0.0,
        "max_score": 100.0,
    }
    if cell.chance is not None:
        config["additional_details"] = {"chance": f"{cell.chance:g}"}
    return {
        "evaluation_result_id": f"{result.task}/{metric}",
        "evaluation_name": result.task,
        "source_data": source,
        "metric_config": config,
        "score_details": score,
    }


# ---------------------------------------------------------------- BibTeX and LaTeX


def _link(paper: str) -> str:
    """The address of a task file's `paper`; empty where it names none."""
    if match := re.fullmatch(r"arXiv:(\d{4}\.\d{4,5})(v\d+)?", paper):
        return f"https://arxiv.org/abs/{match[1]}"
    if paper.startswith("https://"):
        return paper
    return f"https://doi.org/{paper.removeprefix('doi:')}" if paper.startswith("doi:") else ""


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def for_latex(text: str) -> str:
    """The text as plain words of LaTeX: no character of it is a command."""
    return "".join(LATEX.get(one, one) for one in for_terminal(text))


def bibtex(run: Run) -> str:
    """One entry a benchmark that the run has a number of, with its licence; no other."""
    _must_have_numbers(run, incomplete=True)
    entries = []
    for result in dict.fromkeys(result.task for result, _, _ in headlines(run, incomplete=True)):
        found = run.results[result]
        paper = str(found.facts.get("paper") or "")
        fields = {"title": f"{{{for_latex(_title(found))}}}"}
        if match := re.fullmatch(r"arXiv:(\d{4}\.\d{4,5})(v\d+)?", paper):
            fields |= {"eprint": match[1], "archiveprefix": "arXiv"}
        elif paper and not _link(paper):
            fields["howpublished"] = for_latex(paper)
        if link := _link(paper):
            fields["url"] = link.translate(str.maketrans("", "", "{}\\ "))
        license = str(found.facts.get("license") or "unknown")
        fields["note"] = (
            f"Benchmark of {for_latex('fsc_bench')}, version {found.version}. Licence: "
            + for_latex(license)
        )
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        entries.append(f"@misc{{{re.sub(r'[^A-Za-z0-9_-]', '-', found.task)},\n{body}\n}}\n")
    return "\n".join(entries)


def latex(run: Run) -> str:
    r"""A `booktabs` table of every headline; `*` marks what is not complete."""
    _must_have_numbers(run, incomplete=True)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{llrcr}",
        r"\toprule",
        f"\\multicolumn{{5}}{{l}}{{{for_latex(run.name)}}} \\\\",
        r"Benchmark & Metric & Score & 95\% interval & Chance \\",
        r"\midrule",
    ]
    for result, metric, cell in headlines(run, incomplete=True):
        mark = "" if result.complete else "*"
        chance = "--" if cell.chance is None else f"{cell.chance:.1f}"
        cells = [_title(result), metric, f"{cell.value:z.1f}{mark}"]
        ends = f"[{cell.low:.1f}, {cell.high:.1f}]" if cell.low is not None else "--"
        lines.append(" & ".join([*map(for_latex, cells), f"{{{ends}}}", chance]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- CLIP_benchmark

CLASSIFICATION = {
    "accuracy": "acc1",
    "top5": "acc5",
    "mean_per_class": "mean_per_class_recall",
    "map11": "mean_average_precision",
}
TASKS = {
    "classification": "zeroshot_classification",
    "retrieval": "zeroshot_retrieval",
    "matching": "image_caption_selection",
}


def their_metric(kind: str, metric: str) -> str:
    """What CLIP_benchmark calls a metric; ours where it has none."""
    if match := re.fullmatch(r"(i2t|t2i)_r(\d+)", metric):
        way = {"i2t": "text", "t2i": "image"}[match[1]]
        return f"{way}_retrieval_recall@{match[2]}"
    if kind == "classification":
        return CLASSIFICATION.get(metric, metric)
    return "acc" if metric == "text" else metric


def clip_benchmark_csv(run: Run) -> str:
    """One line a task in the columns of `clip_benchmark build`: metrics as fractions, `dataset`,
    `model`, `pretrained`, `task`, `language`, `model_fullname`. Datasets have our names.
    """
    _must_have_numbers(run)
    spec = re.fullmatch(r"open_clip:([^/?]+)/([^?]+)", run.name)
    model, pretrained = (spec[1], spec[2]) if spec else (run.name, "")
    rows = []
    for result in sorted(run.results.values(), key=lambda result: result.task):
        cells = result.metrics.get(WHOLE, {}) if result.complete else {}
        values = {
            their_metric(result.kind, metric): repr(cell.value / 100)
            for metric, cell in cells.items()
            if cell.value is not None
        }
        if values:
            rows.append({**values, "dataset": result.task, "task": TASKS[result.kind]})
    metrics = sorted({name for row in rows for name in row} - {"dataset", "task"})
    out = io.StringIO()
    names = [*metrics, "dataset", "model", "pretrained", "task", "language", "model_fullname"]
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    common = {
        "model": for_csv(model),
        "pretrained": for_csv(pretrained),
        "language": "en",
        "model_fullname": for_csv(f"{model} {pretrained}".strip()),
    }
    for row in rows:
        writer.writerow({**row, **common})
    return out.getvalue()


FORMATS = {
    # name: (file, function)
    "card": ("README.md", model_card),
    "eee": ("every_eval_ever.json", every_eval_ever),
    "bibtex": ("benchmarks.bib", bibtex),
    "latex": ("table.tex", latex),
    "clip_benchmark": ("clip_benchmark.csv", clip_benchmark_csv),
}
