"""Spec: one grammar for the names of models, training data and negatives."""

from pathlib import Path

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.system.spec import Spec


def test_a_name_a_file_and_options_are_told_apart():
    spec = Spec.read("open_clip:ViT-B-32@runs/a=b/epoch_5.pt?activation=gelu&lora_alpha=1")

    assert (spec.kind, spec.name, spec.file) == (
        "open_clip", "ViT-B-32", Path("runs/a=b/epoch_5.pt")
    )  # fmt: skip
    assert spec.place == "ViT-B-32@runs/a=b/epoch_5.pt"
    assert spec.options("activation", "lora_alpha") == {"activation": "gelu", "lora_alpha": "1"}
    assert str(spec) == "open_clip:ViT-B-32@runs/a=b/epoch_5.pt?activation=gelu&lora_alpha=1"


def test_a_name_alone_has_no_file_and_no_options():
    spec = Spec.read("rules")

    assert (spec.kind, spec.rest, spec.file, spec.options("seed")) == ("rules", "", None, {})


def test_an_option_that_is_a_spec_keeps_its_own_options():
    skeleton = "open_clip:Tiny@a.pt?activation=gelu&lora_alpha=1"
    whole = Spec.read(f"run:trained/x?skeleton={skeleton}&weights=ema")

    found = whole.options("weights", "skeleton", nested="skeleton")

    assert found == {"skeleton": skeleton, "weights": "ema"}
    other = Spec.read(f"run:trained/x?weights=ema&skeleton={skeleton}")
    assert other.options("weights", "skeleton", nested="skeleton") == found


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("sed=0", "'x:y?sed=0': option 'sed=0': write key=value with seed. Did you mean 'seed'?"),
        ("seed", "option 'seed': write key=value with seed."),
        ("seed=0&b=1", "option 'b=1'"),
    ],
)
def test_an_unknown_option_is_one_line_with_the_near_miss(options, line):
    with pytest.raises(UsageError) as caught:
        Spec.read(f"x:y?{options}").options("seed")

    assert line in str(caught.value) and "\n" not in str(caught.value)
