"""Library: the calls that a Python program makes, `fsc_bench.score` and its three companions.

They raise the exceptions that the command line shows as one line (errors.py). `score` is meant for
a training loop: it leaves the model, the random numbers and autograd as it found them.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsc_bench.errors import UsageError
from fsc_bench.model import MEMBERS, DualEncoder, check_model
from fsc_bench.models import load_model
from fsc_bench.report.leaderboard import averages, columns, headline_cell
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result, Run, read_runs
from fsc_bench.suite import place_of
from fsc_bench.system.escape import shortened
from fsc_bench.system.remote import refuse_remote
from fsc_bench.task import Task, catalogue, data_folder, default_suite, select

if TYPE_CHECKING:
    import pandas as pd

    from fsc_bench.score.compare import Comparison

__all__ = ["Change", "Scores", "compare", "load_model", "score", "tasks"]

Progress = Callable[[str, int, int], Any]


@dataclass(frozen=True)
class Scores:
    """What `score` gives. results: by task. run: the run as the leaderboard reads it; its folder is
    kept while this object lives, or for good where `out` was named.
    """

    model: str
    results: Mapping[str, Result]
    run: Run

    @property
    def _tasks(self) -> list[TaskFacts]:
        return [TaskFacts.read(result) for result in self.results.values()]

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The headline numbers by column, as the leaderboard calls them."""
        found = {
            name: headline_cell(task, self.results[task.name], metric)
            for name, (task, metric) in columns(self._tasks).items()
        }
        return {name: cell for name, cell in found.items() if cell is not None}

    @cached_property
    def averages(self) -> dict[str, float]:
        """Comp, ZS, I2T and T2I in percent; only those whose whole group of a suite was scored."""
        suites = {task.suite for task in self._tasks}
        whole = [TaskFacts.of(task) for task in catalogue().values() if task.suite in suites]
        return {name: cell.value for name, cell in averages(self.cells, whole).items()}

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a headline number: task, metric, score, low, high (percent), chance, n, note."""
        import pandas as pd

        rows = []
        for name, (task, metric) in columns(self._tasks).items():
            cell = self.cells.get(name)
            if cell is not None:
                known = [cell.value, cell.low, cell.high, task.chance[metric]]
                rows.append([task.name, metric, *known, self.results[task.name].n, cell.note])
        names = ["task", "metric", "score", "low", "high", "chance", "n", "note"]
        return pd.DataFrame(rows, columns=names)

    def report(self) -> str:
        """The table and the averages as text; flagged numbers with what is to be known of them."""
        lines = [self.table.drop(columns="note").to_string(index=False, float_format="%.1f")]
        lines += [f"{name} {value:.1f}" for name, value in self.averages.items()]
        lines += [f"* {name}: {cell.note}" for name, cell in self.cells.items() if cell.note]
        return "\n".join(lines)


@dataclass(frozen=True)
class Change:
    """What `compare` gives. comparison: all that `fsc-bench compare` shows, as values."""

    comparison: "Comparison"

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row an average or task: a, b, difference, its interval (percent), p, holm, n."""
        import pandas as pd

        rows = []
        for line in (*self.comparison.averages, *self.comparison.tasks):
            one = line.found
            rows.append([line.name, line.metric, one.a, one.b, one.difference, one.low, one.high,
                         one.p, one.holm, line.n, line.fixed, line.broken])  # fmt: skip
        names = ["name", "metric", "a", "b", "difference", "low", "high", "p", "holm", "n", "fixed",
                 "broken"]  # fmt: skip
        return pd.DataFrame(rows, columns=names)

    def verdict(self, margin: float = 0.0) -> str:
        """BETTER, WORSE, SAME, UNDECIDED or TRADE-OFF, of b against a; margin in percent points."""
        return self.comparison.verdict(margin)


def tasks(wanted: str | Path | Task | Iterable = "all") -> list[Task]:
    """Tasks by name, group, suite, selection (`fast`, `demo-fast`), glob, path, or a list of these.

    Raises UsageError, with the near miss, for a word that selects nothing.
    """
    words = [wanted] if isinstance(wanted, str | Path | Task) else wanted
    if not isinstance(words, Iterable):
        raise UsageError(
            f"tasks: {shortened(str(wanted))} is a {type(wanted).__name__}; give a name, a path or "
            "a list of them."
        )
    found: dict[str, Task] = {}
    for word in words:
        if not isinstance(word, str | Path | Task):
            raise UsageError(f"tasks: {shortened(str(word))} is a {type(word).__name__}, no name.")
        chosen = [word] if isinstance(word, Task) else select(str(word).split(","))
        found |= {task.name: task for task in chosen}
    if not found:
        raise UsageError('tasks: an empty list; name one, such as "fast".')
    return list(found.values())


def score(
    model: str | Any,
    tasks: str | Path | Task | Iterable | None = None,
    *,
    preprocess: Callable | None = None,
    tokenizer: Callable | None = None,
    processor: Any = None,
    name: str = "",
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 0,
    limit: int | None = None,
    prompts: str | None = None,
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Scores a model object, or a model by name, and leaves it as it was.

    model: a name for `load_model`; an object with the members of `fsc_bench.model.DualEncoder`; an
    open_clip model with its `preprocess` (for validation) and `tokenizer`; a transformers model
    with its `processor`. DistributedDataParallel and torch.compile are looked through.
    tasks: as `fsc_bench.tasks` takes them; without it the default suite. name: what the results
    call the model. data: the data folder. out: keeps the run and the embeddings there; without it
    both are temporary. device: where to score, such as "cuda"; the model returns to where it was.
    progress: called with (what, done, total).

    Training mode of every module, gradients, autograd, autocast and the random numbers of Python,
    numpy and torch are put back, after an error too. In a run of several processes each that calls
    it works alone: call it in one. Raises an FscBenchError for what goes wrong with any task.
    """
    from fsc_bench.run.keeping import unchanged

    chosen = _tasks(default_suite() if tasks is None else tasks)
    with unchanged() as keep:
        encoder = _encoder(model, preprocess, tokenizer, processor, device or "", keep)
        made = model if isinstance(model, str) else f"object:{encoder.identity.architecture}"
        label = name or made
        refuse_remote(out or "")
        folder = Path(out).expanduser() if out else Path(tempfile.mkdtemp(prefix="fsc-bench-"))
        try:
            options = _options(
                chosen, data, folder, limit, prompts, allow_partial, batch_size, encoder
            )
            results, path = _scored(label, encoder, chosen, options, progress)
            scores = Scores(label, results, read_runs([path])[0])
        except BaseException:
            if not out:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    if not out:
        weakref.finalize(scores, shutil.rmtree, folder, True)
    return scores


_tasks = tasks  # `score` has an argument of that name


def _options(chosen, data, folder, limit, prompts, allow_partial, batch_size, encoder) -> Any:
    from fsc_bench.run.job import Options

    return Options(
        data=data_folder(data) / place_of(chosen),
        out=folder,
        limit=limit,
        prompts=prompts,
        allow_partial=allow_partial,
        precision=encoder.identity.precision,
        batch_size=batch_size,
        embeddings=folder / "embeddings",
    )


def _scored(label: str, encoder: DualEncoder, chosen, options, progress) -> tuple[dict, Path]:
    """(results by task, the run's folder). Raises what went wrong first."""
    from fsc_bench.run.job import Silent
    from fsc_bench.run.suite import run_loaded
    from fsc_bench.system.distributed import Ranks

    reporter = Silent()
    if progress is not None:
        reporter.progress = progress
    if any(task.drawn for task in chosen):
        from fsc_bench.demo.build import build

        build(options.data, ranks=Ranks(), suites={task.suite for task in chosen})
    summary = run_loaded(label, encoder, chosen, options, reporter)
    for _, _, error in summary.failures:
        raise error
    return summary.results[label], summary.folders[label]


def _encoder(model, preprocess, tokenizer, processor, device: str, keep) -> DualEncoder:
    """The model behind the protocol, in evaluation mode, on the device that is wanted."""
    if isinstance(model, str):
        return load_model(model, device or "auto")
    if all(getattr(model, member, None) is not None for member in MEMBERS):
        for part in (*getattr(model, "__dict__", {}).values(), model):
            keep(part)
        return _as_it_is_now(check_model(model, type(model).__name__))
    bare = keep(model, device)
    kind = type(bare).__name__
    if processor is not None:
        from fsc_bench.models.hf import wrapped

        return wrapped(bare, processor, device=device or None)
    if not (hasattr(bare, "encode_image") and hasattr(bare, "encode_text")):
        lacks = [member for member in MEMBERS if getattr(bare, member, None) is None]
        raise UsageError(
            f"model: a {kind} without {', '.join(lacks)}. Give an object that has them, an "
            "open_clip model with preprocess= and tokenizer=, or a transformers model with "
            "processor=."
        )
    for word, given in (("preprocess", preprocess), ("tokenizer", tokenizer)):
        if not callable(given):
            said = "is missing" if given is None else f"is a {type(given).__name__}, not callable"
            raise UsageError(
                f"model: a {kind} needs preprocess= and tokenizer=; {word} {said}. open_clip gives "
                "them by create_model_and_transforms and get_tokenizer."
            )
    from fsc_bench.models.open_clip import wrapped as open_clip_model

    return open_clip_model(bare, preprocess, tokenizer)


def _as_it_is_now(model: DualEncoder) -> DualEncoder:
    """The model, known by the weights that it has now: it may have been trained since it was made.
    Another's adapter says itself what it is.
    """
    from fsc_bench.models.open_clip import OpenClip, state_digest

    if isinstance(model, OpenClip):
        model.identity = replace(model.identity, weights=state_digest(model.model))
    return model


def compare(a: Scores | Run | str | Path, b: Scores | Run | str | Path, flips: int = 0) -> Change:
    """What `fsc-bench compare` says of two runs: of `Scores`, or of run folders. flips: how many
    flipped samples are wanted. Raises UsageError where there is nothing to compare.
    """
    from fsc_bench.score.compare import compare as compare_runs

    return Change(compare_runs(_run(a), _run(b), flips=flips))


def _run(given: Any) -> Run:
    if isinstance(given, Scores):
        return given.run
    if isinstance(given, Run):
        return given
    if not isinstance(given, str | Path):
        raise UsageError(f"compare: a {type(given).__name__}; give Scores or a run's folder.")
    runs = read_runs([Path(given).expanduser()])
    if len(runs) != 1:
        raise UsageError(f"{given}: {len(runs)} runs are there; name the folder of one.")
    return runs[0]
