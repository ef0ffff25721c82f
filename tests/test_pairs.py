"""Models that score pairs, through the whole pipe: each pair once, numbers worked out by hand."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from known import World, captioned, labelled, matching

from fsc_bench.errors import UsageError
from fsc_bench.models import check_named, load_model
from fsc_bench.report.ranking import measured_rows
from fsc_bench.report.suites import TaskFacts
from fsc_bench.report.tables import to_csv, to_markdown
from fsc_bench.results import read_runs
from fsc_bench.run.dry_run import dry_run
from fsc_bench.run.job import Options, Silent
from fsc_bench.run.suite import run
from fsc_bench.score.kinds.retrieval import _Way
from fsc_bench.score.rescore import rescore

# Looks the score of a picture's colour and a text up, and writes down what it is asked.
PAIRS = """
import json
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__)
TABLE = json.loads(HERE.with_suffix(".json").read_text())


class Pairs:
    identity = "a table"

    def preprocess(self, image):
        return np.asarray(image)[0, 0]

    def score_pairs(self, images, texts):
        time.sleep(TABLE.get("sleep", 0))
        names = [f"{image[2]} {text}" for image, text in zip(images, texts)]
        with HERE.with_suffix(".log").open("a") as file:
            file.write("".join(name + "\\n" for name in names if name in TABLE["scores"]))
        return np.array([TABLE["scores"].get(name, 0) for name in names], np.float32)


model = Pairs()
"""


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def scorer(world: World, scores: dict[tuple[int, str], float], **more) -> str:
    """The name of a pair scorer: the score of the n-th colour and a text; 0 for all others."""
    table = {"scores": {f"{n} {text}": score for (n, text), score in scores.items()}, **more}
    world.folder.joinpath("pairs.json").write_text(json.dumps(table))
    world.folder.joinpath("pairs.py").write_text(PAIRS)
    return f"py:{world.folder / 'pairs.py'}:model"


def asked_for(world: World) -> list[str]:
    return sorted((world.folder / "pairs.log").read_text().splitlines())


def ask(world: World, spec: str, *tasks, **options):
    """(results by task, samples by task) of a run."""
    import pyarrow.parquet as pq

    summary = run([spec], tasks, Options(world.data, world.out, **options))
    assert summary.failures == []
    folder = summary.folders[spec]
    results = {task.name: summary.results[spec][task.name] for task in tasks}
    samples = {
        task.name: pq.read_table(folder / "samples" / f"{task.name}.parquet").to_pydict()
        for task in tasks
    }
    return results, samples


def value(result, metric: str) -> float:
    return result.metrics["headline"][metric].value


def three_pictures(world: World, **more) -> tuple[str, list]:
    """Pictures 0, 1, 2; "cap" beats "foil" of the first alone, and ties with it of the third."""
    scores = {(0, "cap"): 2, (0, "foil"): 1, (1, "cap"): 30, (1, "foil"): 40,
              (2, "cap"): -5, (2, "foil"): -5}  # fmt: skip
    pictures = [world.picture(f"{number}", float(number)) for number in range(3)]
    return scorer(world, scores, **more), pictures


def test_matching_is_counted_from_the_scores_and_each_pair_is_scored_once(world):
    """One of three is right. The shuffled pictures need no further pair: both texts are asked of
    every picture already; nor does the second task, which shares them all.

    Of pictures (0, 1) with (cap, foil): cap chooses 1, where it scores 30: miss; foil chooses 1.
    Picture 0 chooses cap, picture 1 foil: text right, image wrong.
    """
    spec, pictures = three_pictures(world)
    single = world.task("single", ["text"], {"all": 3})
    double = world.task("double", ["text"], {"all": 1})
    world.records(single, [matching([one], ["cap", "foil"]) for one in pictures])
    world.records(double, [matching(pictures[:2], ["cap", "foil"])])

    results, samples = ask(world, spec, single, double)

    assert value(results["single"], "text") == pytest.approx(100 / 3)
    assert results["single"].ties == 1
    assert samples["single"]["scores"] == [[2, 1], [30, 40], [-5, -5]]  # no cosines, whole
    assert samples["double"]["scores"] == [[2, 1, 30, 40]]
    assert value(results["double"], "text") == 100 and value(results["double"], "image") == 0
    assert results["single"].settings["scorer"] == "pairs"
    assert list(results["single"].blindness) == ["shuffled_images"]
    assert asked_for(world) == sorted(f"{n} {text}" for n in range(3) for text in ("cap", "foil"))

    again = run([spec], [single, double], Options(world.data, world.out))
    assert again.skipped == 2


CLASSES = """
[classes]
names = ["cat", "dog", "cow"]
[prompts.two]
templates = ["an etching of a {}.", "a photo of a {}."]
"""


def test_classification_scores_one_prompt_a_class_and_says_which(world):
    """Dog is taken for cow; of four pictures three are right. No etching is asked for."""
    best = ["cat", "cow", "cow", "dog"]
    scores = {
        (n, f"a photo of a {name}."): 5 if name == best[n] else n - 4
        for n in range(4)
        for name in ("cat", "dog", "cow")
    }
    spec = scorer(world, scores)
    task = world.task("animals", ["accuracy"], {"test": 4}, tables=CLASSES)
    labels = [0, 1, 2, 1]
    world.records(
        task, [labelled(world.picture(f"{n}", float(n)), label) for n, label in enumerate(labels)]
    )

    results, samples = ask(world, spec, task)

    assert value(results["animals"], "accuracy") == 75
    assert samples["animals"]["prediction_name"] == best
    assert samples["animals"]["score_label"] == [5, -3, 5, 5]
    assert results["animals"].settings["template"] == "a photo of a {}."
    assert len(asked_for(world)) == 12  # 4 pictures, 3 classes


def four_pictures(world: World):
    """Pictures at 0, 30, 60 and 90 degrees; their captions at 1, 29, 61 and 40."""
    captions = [world.text(angle) for angle in (1, 29, 61, 40)]
    pictures = [world.picture(f"{n}", 30 * n) for n in range(4)]
    task = world.task("circle", ["i2t_r1", "t2i_r1"], {"test": 4})
    world.records(task, [captioned(*pair) for pair in zip(pictures, captions, strict=True)])
    world.write_adapter()
    scores = {(0, 0): -1, (0, 1): 5, (1, 0): -3, (1, 1): 3, (1, 3): 9,
              (2, 2): -8, (2, 3): -9, (3, 2): 0, (3, 3): 4, (0, 3): 99, (3, 0): 99}  # fmt: skip
    spec = scorer(world, {(n, captions[c]): score for (n, c), score in scores.items()})
    return task, spec, captions


def test_the_best_two_of_the_first_stage_are_ranked_anew_and_the_rest_stays_behind(world):
    """Images ask: 0 is shown captions 0 and 1, and prefers 1; 1 is shown 1 and 3, prefers 3; 2 is
    shown 2 and 3, prefers 2; 3 is shown 2 and 3, prefers its own 3, second of the first stage. So
    ranks 2, 2, 1, 1.

    Texts ask: 0 keeps picture 0; 1 prefers picture 0 to its own; 2 prefers 3 to its own; 3 is shown
    1 and 2: its own, the last of the first stage, stays fourth behind 0. So 1, 2, 2, 4.

    The pairs of 99, (0, 3) and (3, 0), are beyond both ways' best two: they are never scored. Both
    ways share seven of their eight pairs each.
    """
    task, spec, captions = four_pictures(world)

    results, samples = ask(world, f"{spec}?first={world.spec}&depth=2", task)

    assert samples["circle"]["i2t_rank"] == [2, 2, 1, 1]
    assert samples["circle"]["t2i_rank"] == [[1], [2], [2], [4]]
    assert value(results["circle"], "i2t_r1") == 50 and value(results["circle"], "t2i_r1") == 25
    wanted = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3)]
    assert asked_for(world) == sorted(f"{n} {captions[c]}" for n, c in wanted)
    said = results["circle"].settings
    assert said["depth"] == 2 and said["first_stage"].startswith("known ")


def test_another_depth_is_another_number_and_the_scores_there_are_are_kept(world):
    """Of depth 1 the first stage decides alone: 1, 1, 1, 2 and 1, 1, 1, 4."""
    task, spec, _ = four_pictures(world)
    one, _ = ask(world, f"{spec}?first={world.spec}&depth=2", task)
    known = len(asked_for(world))

    other, samples = ask(world, f"{spec}?first={world.spec}&depth=1", task)

    assert samples["circle"]["i2t_rank"] == [1, 1, 1, 2]
    assert samples["circle"]["t2i_rank"] == [[1], [1], [1], [4]]
    differing = {
        name
        for name in one["circle"].parts
        if one["circle"].parts[name] != other["circle"].parts[name]
    }
    assert differing == {"depth of re-ranking"}
    assert len(asked_for(world)) == known  # every best one was among the best two


def test_a_row_of_a_pair_scorer_is_marked_and_told(world):
    task, spec, _ = four_pictures(world)
    spec = f"{spec}?first={world.spec}&depth=2"
    ask(world, spec, task)
    ask(world, world.spec, task)
    facts = [TaskFacts.of(task)]

    rows = measured_rows(read_runs([world.out]), facts)

    page = to_markdown("all", rows, [], facts)
    marked = [line for line in page.splitlines() if line.startswith("|") and "‡" in line]
    assert marked and all("pairs.py" in line for line in marked)
    assert re.search(r"## Pair scorers.*\n\n- .*ranks the best 2 of known \w{8} anew", page)
    (line,) = (line for line in to_csv(rows, facts).splitlines() if "pairs.py" in line)
    assert "pair scorer: it looks at an image and a text together" in line


def test_a_dry_run_counts_the_pairs_and_those_that_are_there(world):
    """Six of matching; of retrieval at most 4 x 2 both ways."""
    task, spec, _ = four_pictures(world)
    single = world.task("single", ["text"], {"all": 3})
    pictures = [captioned(world.picture(f"{n}", 30 * n), "x").images[0] for n in range(3)]
    world.records(single, [matching([one], ["cap", "foil"]) for one in pictures])
    options = Options(world.data, world.out)
    name = f"{spec}?first={world.spec}&depth=2"

    rows, code = dry_run([single, task], options, Silent(), [name])
    assert code == 0
    assert [(row.pairs, row.cached_pairs) for row in rows] == [(6, 0), (16, 0), (22, 0)]

    ask(world, name, single)
    rows, _ = dry_run([single, task], options, Silent(), [name])
    assert [(row.pairs, row.cached_pairs) for row in rows] == [(6, 6), (16, 0), (22, 6)]


def test_killed_and_continued_scores_no_pair_again_but_the_batch_in_flight(world):
    """Six pairs, two at once, half a second each time: killed once two are on disk."""
    spec, pictures = three_pictures(world, sleep=0.5)
    task = world.task("single", ["text"], {"all": 3})
    world.records(task, [matching([one], ["cap", "foil"]) for one in pictures])
    command = [sys.executable, "-m", "fsc_bench", "run", "-m", spec, "-t",
               str(world.folder / "single.toml"), "--data", str(world.data), "-o",
               str(world.out), "--batch-size", "2", "--quiet"]  # fmt: skip
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while time.time() < deadline:
        if sum(file.stat().st_size for file in world.data.rglob("pair-1-*.idx")) >= 2 * 40:
            break
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(world.out.rglob("tasks/*.json")), "killed too late to show anything"

    _, samples = ask(world, spec, task, batch_size=2)

    assert samples["single"]["scores"] == [[2, 1], [30, 40], [-5, -5]]
    asked = asked_for(world)
    assert len(set(asked)) == 6 and len(asked) <= 8


WRONG = {
    "?depth=0": "depth = '0': it is how many answers of the first stage are ranked anew",
    "?depth=many": "depth = 'many'",
    "?first=open_clp:ViT-B-32": "no family called 'open_clp'. Did you mean 'open_clip'?",
    "?first=control:chance&dept=3": "Did you mean 'depth'?",
}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_options_are_one_line(world, options):
    spec, _ = three_pictures(world)

    with pytest.raises(UsageError) as caught:
        check_named(spec + options)

    assert WRONG[options] in str(caught.value) and "\n" not in str(caught.value)


def refusal(spec: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_model(spec, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_of_the_wrong_kind_are_one_line(world):
    spec, _ = three_pictures(world)
    four_pictures(world)
    (world.folder / "pairs.json").write_text(json.dumps({"scores": {}}))
    other = world.folder / "other.py"
    other.write_text(PAIRS)
    other.with_suffix(".json").write_text(json.dumps({"scores": {}}))

    assert "scores pairs itself; a first stage is a dual encoder" in refusal(
        f"{spec}?first=py:{other}:model"
    )
    assert "first and depth are for models with score_pairs()" in refusal(f"{world.spec}?depth=3")
    assert "cannot be mixed" in refusal(f"wise:{spec}+{spec}?alpha=0.5")


def test_a_matrix_instead_of_pairs_is_one_line(world):
    spec, _ = three_pictures(world)
    file = Path(world.folder / "pairs.py")
    file.write_text(file.read_text().replace("np.float32)\n", "np.float32)[None]\n"))

    assert "score_pairs gives shape (1, 2) for 2 pairs; it must be (2,)" in refusal(spec)


def test_retrieval_without_a_first_stage_is_one_line(world):
    task, spec, _ = four_pictures(world)

    summary = run([spec], [task], Options(world.data, world.out))

    assert summary.exit_code == 2
    (failure,) = (str(error) for _, _, error in summary.failures)
    assert "retrieval needs a first stage" in failure and "?first=FAMILY:NAME" in failure


def test_rescored_without_the_model_it_is_the_same_and_the_lenient_tie_counts(world):
    """The third picture's tie is a hit by the lenient rule: two of three."""
    spec, pictures = three_pictures(world)
    single = world.task("single", ["text"], {"all": 3})
    world.records(single, [matching([one], ["cap", "foil"]) for one in pictures])
    ask(world, spec, single)
    (stored,) = read_runs([world.out])

    for ties, percent in (("headline", 100 / 3), ("lenient", 200 / 3)):
        cells = rescore(stored, ties).cells["single"]["headline"]
        assert cells["text"].value == pytest.approx(percent)


def test_map_ranks_pictures_by_the_scores_themselves(world):
    """Of "cat", pictures 0 and 1 are ranked 1st and 3rd: precision 1 up to recall 0.5, 2/3 beyond.

    11 points: six of 1 and five of 2/3: 28/33. "dog" has one picture, ranked 2nd: 1/2 (by the
    devkit; else a point of 1 stands at recall 0, 6/11). "cow" has one, first: 1. As shares of an
    image's classes they would stand otherwise: picture 1 is all cat.
    """
    cat, dog, cow = (f"a photo of a {name}." for name in ("cat", "dog", "cow"))
    scores = {(0, cat): 9, (1, cat): -5, (2, cat): 4, (3, cat): -9,
              (0, dog): 3, (1, dog): -50, (2, dog): 2, (3, dog): -9,
              (0, cow): 1, (1, cow): -50, (2, cow): -3, (3, cow): 40}  # fmt: skip
    spec = scorer(world, scores)
    task = world.task("several", ["map11"], {"test": 4}, tables=CLASSES, chance=30)
    labels = [(0,), (0,), (1,), (2,)]
    world.records(task, [labelled(world.picture(f"{n}", float(n)), *labels[n]) for n in range(4)])

    results, samples = ask(world, spec, task)

    wanted = 100 * (28 / 33 + 6 / 11 + 1) / 3
    assert value(results["several"], "map11_devkit") == pytest.approx(
        100 * (28 / 33 + 1 / 2 + 1) / 3
    )
    assert value(results["several"], "map11") == pytest.approx(wanted)
    assert samples["several"]["pair_scores"][1] == [-5, -50, -50]
    (stored,) = read_runs([world.out])
    cells = rescore(stored).cells["several"]["headline"]
    assert cells["map11"].value == pytest.approx(wanted)


def test_an_answer_in_other_letters_is_scored_too_and_the_same_text_once():
    texts = ["Dog", "dog", "cat", "dog"]
    way = _Way(True, (), texts, np.zeros((1, 2)), np.zeros((4, 2)), np.array([0, 0, 1, 0]), depth=2)

    first, more = way.entries

    assert first.tolist() == [0, 2]
    assert more.tolist() == [[0, 1]]  # of answer 0 its second entry; the fourth is the same text
