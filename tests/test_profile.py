"""Profile: counts by hand and by torch, what fits, and what is measured kept from what is not."""

import csv
import json
from dataclasses import replace

import pytest
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from fsc_bench.cli import profile as cli
from fsc_bench.cli.main import OneLineErrors
from fsc_bench.study import profile as study
from fsc_bench.study import profile_tables as tables
from fsc_bench.study.cost import Count, count, largest_batch
from fsc_bench.study.parts import (
    IMAGE,
    LOCAL_LOSS,
    OF_STEP,
    OPTIMISER,
    PLAIN,
    STEPS,
    TEXT,
    Setting,
    Workload,
    build,
    plain_calibrated,
    plain_local_score,
)
from fsc_bench.study.profile import Line, Profile
from fsc_bench.train.losses import local_hn_loss_packed

app = typer.Typer(cls=OneLineErrors)
cli.add_commands(app)
app.command("other")(lambda: None)  # a lone command would be the program itself

TINY = "ViT-S-32-alt"  # 224 pixels, 49 patches; both towers 384 or 256 wide
OF_CPU = {  # what torch's own registry leaves out: the kernel of a CPU's attention
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *four_shapes, **__: sdpa_backward_flop_count(*four_shapes[:4])
    ),
}
WORK = Workload(batch=2, negatives=3, words=5)


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        app(["profile", *map(str, arguments)])
    return end.value.code


# ---------------------------------------------------------------- counts


@pytest.fixture(scope="module")
def shapes() -> Setting:
    return Setting(build(TINY, "meta"), WORK, TINY)


@pytest.fixture(scope="module")
def counts(shapes) -> dict[str, Count]:
    found = {}
    for name, work in shapes.parts().items():
        shapes.model.zero_grad(set_to_none=True)
        found[name] = count(work, shapes.held)
    return found


def test_a_product_is_two_operations_for_each_multiplication():
    one, other = torch.ones(3, 5), torch.ones(5, 7)
    found = count(lambda: one @ other, [one, other])
    assert found.flops == 2 * 3 * 5 * 7 == 210
    assert found.given == 4 * (15 + 35) == 200
    assert found.peak == 200 + 4 * 21 and found.added == 84


def test_attention_of_a_cpu_is_counted_as_torch_counts_that_of_a_card():
    """Two products forward and five backward of 7 by 7 words in 8 numbers, of 2 x 3 heads; with no
    numbers in the tensors as with them, and the same by torch's counter over single products."""
    product, heads = 2 * 7 * 7 * 8, 2 * 3
    for device in ("cpu", "meta"):
        one = torch.ones(2, 3, 7, 8, device=device, requires_grad=True)

        def work(one=one):
            torch.nn.functional.scaled_dot_product_attention(one, one, one).sum().backward()

        assert count(work).flops == (2 + 5) * heads * product == 32_928, device
    one = torch.ones(2, 3, 7, 8)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as torchs:
        torch.nn.functional.scaled_dot_product_attention(one, one, one)
    assert torchs.get_total_flops() == 2 * heads * product


def test_bytes_are_of_the_moment_that_holds_the_most():
    def work():
        first = torch.ones(100)
        second = first + 1  # 800 bytes at once
        del first
        return second * 2  # and never 1200

    assert count(work).peak == 800


def test_the_local_loss_is_four_products_and_the_spread(counts):
    """2 pictures, 4 texts of 5 words and an end token, 49 patches, 256 dimensions; forward and
    backward two products each, and the sum of patch norms."""
    assert counts[LOCAL_LOSS].flops == 4 * 2 * (2 * 24 * 49 * 256) + 2 * (2 * 24 * 49) == 4_821_600
    # Plain: 77 places of each text, and autograd's own product for the words' gradient is none.
    assert counts[PLAIN].flops == 4 * 3 * 2 * (2 * 77 * 49 * 256) == 46_362_624


def blocks(layers: int, width: int, tokens: int, sequences: int) -> int:
    """Of transformer blocks, forward and backward: 12 w^2 multiplications a token three times, and
    attention's two products of tokens by tokens, which its backward does five of."""
    linear = 3 * 2 * 12 * width**2 * tokens
    attention = (2 + 5) * 2 * tokens**2 * width
    return sequences * layers * (linear + attention)


def test_towers_are_what_their_shapes_say(counts, shapes):
    visual, text = shapes.model.visual, shapes.model
    layers, width = len(visual.transformer.resblocks), visual.conv1.out_channels
    dimensions = visual.proj.shape[1]
    assert (layers, width, dimensions) == (12, 384, 256)
    patches = (
        2 * 2 * (2 * 49) * width * 3 * 32 * 32
    )  # forward and weights: a picture has no gradient
    projected = 3 * 2 * 2 * 50 * width * dimensions  # the class token and every patch
    assert counts[IMAGE].flops == blocks(12, width, 50, 2) + patches + projected

    layers, width = len(text.transformer.resblocks), text.token_embedding.embedding_dim
    assert (layers, width) == (10, 256)
    projected = 3 * 2 * 8 * 7 * width * dimensions
    assert counts[TEXT].flops == blocks(layers, width, 7, 8) + projected


def test_a_run_on_numbers_takes_what_shapes_say(counts):
    """torch.utils.flop_counter over the real parts, and the bytes that were alive in them."""
    real = Setting(build(TINY, "cpu"), WORK, TINY)
    for name, work in real.parts().items():
        real.model.zero_grad(set_to_none=True)
        with FlopCounterMode(display=False, custom_mapping=OF_CPU) as torchs:
            work()
        assert torchs.get_total_flops() == counts[name].flops, name
        real.model.zero_grad(set_to_none=True)
        assert count(work, real.held).added == pytest.approx(counts[name].added, rel=0.001), name


def test_the_step_is_its_parts_and_the_local_loss_what_it_adds(shapes, counts):
    whole = count(shapes.step("FSC-CLIP"), shapes.held).flops
    accuracy = 2 * 2 * 4 * 256  # each picture with its own four texts, for the log
    assert whole == accuracy + sum(counts[name].flops for name in OF_STEP if name != OPTIMISER)
    without = count(shapes.step("FSC-CLIP without local"), shapes.held).flops
    # The loss, and the projections of 49 patches and of 6 more places of 8 texts.
    dense = 3 * 2 * (2 * 49 * 384 * 256 + 8 * 6 * 256 * 256)
    assert whole - without == counts[LOCAL_LOSS].flops + dense


def test_siglip_and_resnet_are_counted_from_shapes_too():
    for architecture, patches in (("RN50", 49), ("ViT-B-16-SigLIP", 196)):
        setting = Setting(build(architecture, "meta"), WORK, architecture)
        assert setting.encoded.image_tokens.shape[1] == patches
        assert count(setting.parts()[LOCAL_LOSS]).flops > 0


def test_the_plain_local_loss_is_the_trainers():
    torch.manual_seed(0)
    patches, words = torch.randn(2, 9, 8), torch.randn(2, 3, 4, 8)
    there = torch.ones(2, 2, dtype=torch.bool)
    mask = torch.ones(2, 4, dtype=torch.bool)
    logits = [plain_local_score(patches, words[:, k], mask, torch.tensor(5.0)) for k in range(3)]
    index = torch.arange(3).repeat_interleave(4).expand(2, 12)
    ours = local_hn_loss_packed(
        patches, words.reshape(2, 12, 8), index, there, 5.0, focal_gamma=2.0, label_smoothing=0.02
    )
    torch.testing.assert_close(plain_calibrated(torch.stack(logits, 1), there), ours)


# ---------------------------------------------------------------- what fits


@pytest.mark.parametrize(
    ("capacity", "pairs"),
    [(1000, 25), (1039, 25), (1040, 26), (241, 6), (30, 0)],
)
def test_the_largest_batch_is_what_is_left_over_what_each_pair_takes(capacity, pairs):
    # 8 pairs take 320 and 16 take 640: 40 a pair, nothing beside.
    assert largest_batch((8, 320), (16, 640), capacity) == pairs


def test_what_every_batch_takes_is_set_aside():
    # 300 for weights and 50 a pair: (1000 - 300) / 50.
    assert largest_batch((4, 500), (10, 800), 1000) == 14


# ---------------------------------------------------------------- measured and worked out


def made(name: str, left: str, seconds: tuple[float, ...], flops: int) -> Profile:
    """A profile of which every part takes the same."""
    names = [*OF_STEP, PLAIN, *STEPS]
    lines = {
        one: Line(one, "step" if one in STEPS else "part" if one in OF_STEP else "beside",
                  None if one == OPTIMISER else flops, 1_000_000, None, seconds,
                  2_000_000 if seconds else None)
        for one in names
    }  # fmt: skip
    return Profile(name, 224, 49, flops // 100, lines, {"FSC-CLIP": 12, "NegCLIP": 14}, left)


def test_a_time_is_worked_out_at_the_rate_that_was_measured_and_stands_apart():
    both = [made("small", "", (0.2, 0.5, 0.3), 6_000), made("large", "no room", (), 44_000)]
    small, large = study.with_worked_seconds(both)

    assert small.lines[IMAGE].worked_seconds is None and small.lines[IMAGE].median == 0.3
    assert large.lines[IMAGE].worked_seconds == pytest.approx(2.2)  # 44,000 at 20,000 a second
    assert large.lines[OPTIMISER].worked_seconds == pytest.approx(2.2)  # 440 parameters at 200
    assert large.lines[IMAGE].seconds == () and large.lines[IMAGE].bytes is None

    rows = {row[0]: row[1:] for row in tables.rows(large) if row}
    assert rows[IMAGE] == ["-", "-", "-", "4.4e-05", "1.0", "2,200.0"]
    assert tables.title(large).endswith("worked out, not run: no room")
    rows = {row[0]: row[1:] for row in tables.rows(small) if row}
    assert rows[IMAGE] == ["300.0", "100.00", "2.0", "6e-06", "1.0", "-"]
    assert rows[tables.SUM][0] == "1,800.0"  # six parts of 0.3 s


def test_a_share_is_a_step_over_the_same_step_in_the_same_repeat():
    one = made("small", "", (2.0, 4.0), 100)
    with_local = replace(one.lines["NegCLIP + local"], seconds=(2.1, 4.4), worked_flops=103)
    one = replace(one, lines={**one.lines, "NegCLIP + local": with_local})
    ratio = study._with_ratios(one).ratios["local loss on NegCLIP"]

    assert ratio.measured == pytest.approx((1.05, 1.1)) and ratio.worked_out == 1.03
    found = study.Found((study._with_ratios(one),), "cpu", 10**9)
    row = dict(zip(tables.summary_header(found), tables.summary(found)[0], strict=False))
    assert row["local loss on NegCLIP"] == "+7.50% [+5.00% to +10.00%]"


# ---------------------------------------------------------------- the command


def test_the_batch_that_is_found_fits_and_a_tenth_more_does_not(shapes):
    moments = 8 * sum(value.numel() for value in shapes.trainable.values())
    room = 3_000_000_000
    found = study._fitting(shapes.model, "FSC-CLIP", WORK, TINY, moments, room)

    def peak(batch: int) -> int:
        setting = Setting(shapes.model, replace(WORK, batch=batch), TINY)
        shapes.model.zero_grad(set_to_none=True)
        return count(setting.step("FSC-CLIP"), setting.held).peak + moments

    assert peak(found) <= room < peak(found * 11 // 10)


def test_what_cannot_run_is_worked_out_and_written(tmp_path, capsys):
    """A card that is not here; where there is one, no second is allowed."""
    size = ["--batch", 2, "--words", 5, "--limit", 0, "--device", "cuda"]
    assert run("-a", TINY, *size, "--json", "-o", tmp_path) == 0

    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "profile.json").read_text()) == printed
    (one,) = printed["profiles"]
    assert one["worked_out_because"]
    lines = {line["part"]: line for line in one["lines"]}
    assert lines[LOCAL_LOSS]["worked_out"]["flops"] == 4_821_600
    assert all(line["measured"] == {"seconds": [], "bytes": None} for line in lines.values())
    if not torch.cuda.is_available():
        assert one["worked_out_because"] == "no CUDA card here"
        assert one["largest_batch_worked_out"] == {"FSC-CLIP": None, "NegCLIP": None}
    table = list(csv.DictReader((tmp_path / "profile.csv").read_text().splitlines()))
    assert {row["measured_seconds"] for row in table} == {""}
    assert [row["worked_out_flops"] for row in table if row["part"] == LOCAL_LOSS] == ["4821600"]
    picture = tmp_path / "profile.svg"
    assert not picture.exists() or "worked out" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-a", "ViT-B-23"], "Did you mean 'ViT-B-32'?"),
        (["-a", TINY, "-a", TINY], "named twice"),
        (["-a", TINY, "--batch", "1"], "--batch 1: it must be at least 2"),
        (["-a", TINY, "--batch", "9999999"], "--batch 9999999: it must be at most 65,536"),
        (["-a", TINY, "--negatives", "0"], "--negatives 0: it must be at least 1"),
        (["-a", TINY, "--repeats", "0"], "--repeats 0: it must be at least 1"),
        (["-a", TINY, "--words", "76"], "has room for 75 words"),
        (["-a", TINY, "--memory", "nan"], "--memory nan: write gigabytes"),
        (["-a", TINY, "--limit", "-1"], "--limit -1: seconds are 0 or more"),
        (["-a", TINY, "--device", "cpuu"], "Did you mean 'cpu'?"),
        (["-a", "convnext_base"], "has no local loss to profile: its image tower"),
        (["-a", "roberta-ViT-B-32"], "one of transformers, gives no words"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(arguments, says, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
