"""The examples run, and give what they say."""

import importlib.util
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_training_loop_scores_its_model_every_few_steps(drawn, monkeypatch, capsys):
    monkeypatch.setenv("FSC_BENCH_DATA", str(drawn.parent))
    spec = importlib.util.spec_from_file_location("loop", EXAMPLES / "score_while_training.py")
    loop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loop)

    history = loop.train(steps=4, every=2, tasks="demo_colours", limit=5)

    prints = {scores.run.facts["identity"]["weights"] for scores in history}
    assert len(history) == len(prints) == 2  # the weights moved between the two
    assert capsys.readouterr().out.count("demo_colours accuracy") == 2
