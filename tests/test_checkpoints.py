"""Checkpoint files: every wrapping is read to the same weights, what is wrong is one line, and
nothing that a file holds is executed.
"""

import argparse
import datetime
import json
import pathlib
import pickle
import re
import zipfile
from collections import defaultdict, deque

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from fsc_bench.errors import UsageError
from fsc_bench.models import load_model
from fsc_bench.models.checkpoints.fit import resembles
from fsc_bench.models.checkpoints.reading import read_content
from fsc_bench.models.checkpoints.state import open_state, read_state

STATE = {"visual.proj": torch.arange(6.0).reshape(2, 3), "logit_scale": torch.tensor(4.5)}


def under(prefix: str, state=STATE) -> dict[str, torch.Tensor]:
    return {prefix + name: value.clone() for name, value in state.items()}


def refusal(file) -> str:
    with pytest.raises(UsageError) as caught:
        read_content(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(found, state=STATE) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


# ---------------------------------------------------------------- wrappers and containers

PREFIXES = (
    "", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.",
    "model.module._orig_mod.", "module.model.",
)  # fmt: skip


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_that_all_names_carry_are_stripped(tmp_path, prefix, ending):
    file = tmp_path / f"model{ending}"
    save = save_file if ending == ".safetensors" else torch.save
    save(under(prefix), file)

    assert same(read_state(file))


def test_a_wrapper_that_some_names_carry_stays(tmp_path):
    state = under("model.") | {"teacher.proj": torch.ones(2)}
    torch.save(state, tmp_path / "some.pt")

    assert read_state(tmp_path / "some.pt").keys() == state.keys()


def test_wrappers_of_a_compiled_or_sharded_part_are_stripped_inside_names(tmp_path):
    state = {
        "visual._orig_mod.proj": STATE["visual.proj"],
        "_fsdp_wrapped_module.logit_scale": STATE["logit_scale"],
    }
    torch.save(state, tmp_path / "parts.pt")

    assert same(read_state(tmp_path / "parts.pt"))


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model", "module"])
@pytest.mark.parametrize("format", [True, False], ids=["zip", "old"])
def test_known_containers_are_opened(tmp_path, container, format):
    content = {"epoch": 5, container: under("module."), "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=format)

    assert same(read_state(tmp_path / "a.pt"))


def test_averaged_weights_and_openais_numbers_are_read_without_their_counters(tmp_path):
    numbers = {"n_averaged": torch.tensor(7), "input_resolution": torch.tensor(224)}
    torch.save(under("module.") | numbers, tmp_path / "swa.pt")
    found = open_state(tmp_path / "swa.pt")

    assert same(found.tensors)
    assert found.notes[0].endswith("not weights: n_averaged, input_resolution.")


def test_of_two_sets_of_weights_none_is_taken_and_of_a_name_and_weights_the_weights(tmp_path):
    torch.save({"model": STATE, "state_dict": under("")}, tmp_path / "two.pt")
    with pytest.raises(UsageError, match=r"under 'state_dict' and 'model', and which are meant"):
        read_state(tmp_path / "two.pt")

    torch.save({"model": {"name": "ViT-B-32"}, "state_dict": STATE}, tmp_path / "one.pt")
    assert same(read_state(tmp_path / "one.pt"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "ema": under("")}, "It holds 'epoch' (int), 'ema' (2 tensors)."),
        ({"state_dict": {}}, "It holds 'state_dict' (dict)."),
        ({}, "It holds an empty dictionary."),
        ([STATE], "It holds a list."),
        ({"w": np.ones(2)}, "numpy"),
        (argparse.Namespace(a=1), "It holds an object of argparse.Namespace."),
    ],
    ids=["unknown container", "empty state", "empty", "list", "numpy arrays", "no dictionary"],
)
def test_a_file_without_a_state_dict_is_told_what_it_holds(tmp_path, content, words):
    torch.save(content, tmp_path / "other.pt")

    with pytest.raises(UsageError) as caught:
        read_state(tmp_path / "other.pt")
    assert "holds no state dict of tensors" in str(caught.value)
    assert words in str(caught.value)


# ---------------------------------------------------------------- what lies beside the weights

DTYPES = ("bool", "int8", "int64", "uint16", "float16", "float32", "float64", "complex64")
BESIDE = {
    **{kind: np.dtype(kind).type(1) for kind in DTYPES},
    "array": np.zeros((2, 3), np.float32),
    "names": np.array(["a", "b"], object),
    "moment": np.datetime64("2024-01-01"),
    "random state": np.random.RandomState(3).get_state(),
    "settings": argparse.Namespace(lr=1e-5, out=pathlib.Path("/x"), nested=argparse.Namespace()),
    "path": pathlib.PurePosixPath("/x"),
    "date": datetime.datetime(2024, 5, 6),
    "counts": defaultdict(int, {"a": 1}),
    "recent": deque([1, 2], maxlen=5),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("format", [True, False], ids=["zip", "old"])
def test_harmless_values_beside_the_weights_are_left_out(tmp_path, kind, format):
    content = {"state_dict": STATE, "extra": BESIDE[kind]}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=format)

    assert same(read_state(tmp_path / "a.pt"))


def test_what_was_left_out_is_said_and_numbers_are_not(tmp_path):
    content = {"model": STATE, "args": BESIDE["settings"], "lr": np.float32(1)}
    torch.save(content, tmp_path / "a.pt")

    (note,) = open_state(tmp_path / "a.pt").notes
    assert note.startswith(f"{tmp_path / 'a.pt'}: not read, because it is not weights: argparse.N")
    assert "numpy" not in note


class Runs:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(Runs.marker),))


@pytest.mark.parametrize("place", ["weights", "beside"])
@pytest.mark.parametrize("format", [True, False], ids=["zip", "old"])
def test_nothing_of_a_file_is_executed(tmp_path, monkeypatch, place, format):
    monkeypatch.setattr(Runs, "marker", str(tmp_path / "executed"), raising=False)
    content = {"state_dict": Runs() if place == "weights" else STATE, "extra": Runs()}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=format)

    assert "loads without executing it: it holds more than tensors" in refusal(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


class Mine(torch.nn.Linear):
    """A model of somebody's own."""


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"epoch": 1, "model": m}])
def test_a_whole_module_is_refused_with_a_command_that_saves_its_weights(tmp_path, wrap):
    module = Mine(3, 2)
    torch.save(wrap(module), tmp_path / "whole.pt")
    line = refusal(tmp_path / "whole.pt")
    script = re.search(r'python -c "(.*)"', line)[1]
    exec(script, {})

    assert "a whole pickled module (test_checkpoints.Mine)" in line
    assert same(read_state(tmp_path / "whole-weights.safetensors"), module.state_dict())


@pytest.mark.parametrize(
    "name", ["a$(touch executed).pt", "a`touch executed`.pt", 'a";touch x".pt']
)
def test_the_command_that_is_offered_holds_nothing_that_a_shell_would_execute(tmp_path, name):
    """The name of a file may be a stranger's, and a user pastes the command."""
    torch.save(Mine(3, 2), tmp_path / name)
    command = refusal(tmp_path / name).partition("save its weights alone: ")[2]

    assert command.startswith('python -c "import torch;')
    assert "torch.load('FILE.pt', " in command
    assert "touch" not in command and command.count('"') == 2


@pytest.mark.parametrize("how", ["class", "protocol", "pickle"])
def test_what_cannot_be_read_safely_comes_with_a_command_that_goes_on(tmp_path, how):
    file = tmp_path / "research.pt"
    if how == "class":
        torch.save({"state_dict": STATE, "config": Runs.__new__(Mine)}, file)
    if how == "protocol":
        torch.save({"model": STATE, "epoch": 2}, file, pickle_protocol=4)
    if how == "pickle":
        file.write_bytes(pickle.dumps(STATE))
    line = refusal(file)
    exec(re.search(r'python -c "(.*)"', line)[1], {})
    (made,) = tmp_path.glob("research-*")

    assert "Where you trust it" in line
    assert same(read_state(made))


# ---------------------------------------------------------------- several sets, several files


def said(file, part="") -> tuple[str, ...]:
    """The notes of a file that holds the weights, without its path."""
    state = open_state(file, part)
    assert same(state.tensors)
    return tuple(note.replace(f"{file}: ", "") for note in state.notes)


def test_a_model_in_a_container_in_a_container_and_below_a_net_are_read(tmp_path):
    for content in ({"model": {"state_dict": STATE}}, under("net."), under("clip_model.module.")):
        torch.save(content, tmp_path / "a.pt")
        assert said(tmp_path / "a.pt") == ()


def test_weights_beside_the_ones_that_are_read_are_told_and_can_be_asked_for(tmp_path):
    file = tmp_path / "a.pt"
    torch.save({"model": STATE, "model_ema": under("module."), "epoch": 4}, file)
    other = {name: value + 1 for name, value in STATE.items()}

    (note,) = said(file)
    assert note.startswith(
        "holds weights under 'model_ema' too, which are not read; the option par"
    )
    assert said(file, "model_ema") == ()
    torch.save({"state_dict": {**under("student.clip."), **under("teacher.", other)}}, file)
    assert said(file, "student.clip") == ("2 tensors outside of 'student.clip' are left out.",)
    torch.save({"ema": STATE}, file)
    with pytest.raises(
        UsageError, match=r"\(2 tensors\)\. The option part=ema reads its weights\."
    ):
        read_state(file)
    torch.save({"state_dict": STATE, "state_dict_ema": STATE}, file)
    with pytest.raises(UsageError, match=r"nothing is called so\. Did you mean 'state_dict_ema'"):
        open_state(file, "state_dict_em")


def test_parameters_of_a_loss_beside_a_lightning_model_are_left_out_and_said(tmp_path):
    state = {**under("model."), "loss.temperature": torch.ones(1), "criterion.w": torch.ones(2)}
    content = {"state_dict": state, "pytorch-lightning_version": "2.1.0", "loops": {"a": 1}}
    torch.save(content, tmp_path / "last.ckpt")

    (note,) = said(tmp_path / "last.ckpt")
    assert note == "not read, because it is not weights: loss.temperature, criterion.w."


def test_a_number_among_the_tensors_is_left_out_and_said(tmp_path):
    torch.save({**STATE, "epoch": 3, "name": "x", "best": None}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match="holds no state dict of tensors"):
        read_state(tmp_path / "a.pt")  # three of five are no tensors

    torch.save({**STATE, "epoch": 3}, tmp_path / "a.pt")
    assert said(tmp_path / "a.pt") == ("not read, because it is not weights: epoch.",)


def test_float64_is_read_and_its_rounding_said(tmp_path):
    torch.save({name: value.double() for name, value in STATE.items()}, tmp_path / "a.pt")
    state = open_state(tmp_path / "a.pt")
    assert state.notes[0].endswith("weights in float64 are rounded to float32.")
    torch.save({name: value.bfloat16() for name, value in STATE.items()}, tmp_path / "a.pt")
    assert open_state(tmp_path / "a.pt").notes == ()


def sharded(folder, name="model.safetensors.index.json", first="a.safetensors"):
    """Two shards and their index, as transformers writes them."""
    save_file({"visual.proj": STATE["visual.proj"]}, folder / "a.safetensors")
    save_file({"logit_scale": STATE["logit_scale"]}, folder / "b.safetensors")
    places = {"visual.proj": first, "logit_scale": "b.safetensors"}
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 28}, "weight_map": places}))
    return folder / name


def test_a_checkpoint_in_several_files_is_read_by_its_index(tmp_path):
    assert same(read_state(sharded(tmp_path)))


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("../a.safetensors", "names the part '../a.safetensors'; parts lie beside it"),
        ("/a.safetensors", "names the part '/a.safetensors'; parts lie beside it"),
        ("gone.safetensors", "its part gone.safetensors is not in"),
        ("b.safetensors", "no part holds 'visual.proj', which it promises"),
    ],
)
def test_an_index_that_its_parts_do_not_keep_is_one_line(tmp_path, first, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        read_state(sharded(tmp_path, first=first))


def test_a_part_that_holds_more_than_the_index_says_and_an_evil_part_are_refused(
    tmp_path, monkeypatch
):
    index = sharded(tmp_path)
    save_file(under(""), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"holds 'logit_scale', which model\.safetensors\.index"):
        read_state(index)

    monkeypatch.setattr(Runs, "marker", str(tmp_path / "executed"), raising=False)
    torch.save({"visual.proj": Runs()}, tmp_path / "a.bin")
    index.write_text(json.dumps({"weight_map": {"visual.proj": "a.bin"}}))
    with pytest.raises(UsageError, match="loads without executing it"):
        read_state(index)
    assert not (tmp_path / "executed").exists()


# ---------------------------------------------------------------- damage


def whole(folder) -> dict[str, bytes]:
    state = {"w": torch.ones(500)}
    torch.save(state, folder / "zip")
    torch.save(state, folder / "old", _use_new_zipfile_serialization=False)
    save_file(state, folder / "safe")
    np.savez(folder / "numpy.npz", w=np.ones(2))
    found = {name: (folder / name).read_bytes() for name in ("zip", "old", "safe")}
    return found | {"numpy": (folder / "numpy.npz").read_bytes()}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605219813\n"
DAMAGE = {
    "empty.pt": (lambda w: b"", "the file is empty. Copy or download it again."),
    "empty.safetensors": (lambda w: b"", "the file is empty."),
    "lfs.pt": (lambda w: POINTER, "a Git LFS pointer to 605,219,813 bytes, not the weights."),
    "lfs.safetensors": (lambda w: POINTER, "`git lfs pull` in its repository fetches them."),
    "cut.pt": (lambda w: w["zip"][:900], "cut short: a PyTorch checkpoint without its end (900"),
    "cut-old.pt": (lambda w: w["old"][:900], "cut short: 900 bytes are there."),
    "cut.safetensors": (lambda w: w["safe"][:900], "cut short: its header promises 2,072 bytes, "
                        "900 are there."),
    "cut-header.safetensors": (lambda w: w["safe"][:20], "cut short: its header promises 72 bytes"),
    "page.pt": (lambda w: b"<!DOCTYPE html><title>Sign in", "a web page or XML"),
    "zeros.pt": (lambda w: bytes(900), "zeros only: a download that did not end"),
    "text.pt": (lambda w: b"not found", "it begins with b'not found'"),
    "gone.safetensors": (lambda w: b"Entry not found", "neither safetensors nor written by torch"),
    "safe.pt": (lambda w: w["safe"], "safetensors under a name that ends in .pt. Rename it to "
                "safe.safetensors."),
    "zip.safetensors": (lambda w: w["zip"], "not safetensors as its name says. Rename it to zip.p"),
    "numpy.pt": (lambda w: w["numpy"], "that torch.save did not write (it holds 'w.npy')"),
    "packed.pt": (lambda w: b"\x1f\x8b" + bytes(50), "a gzip archive. Unpack it"),
    "header.safetensors": (lambda w: w["safe"][:9] + b"!" + w["safe"][10:], "damaged: its header"),
    "pickle.pt": (lambda w: w["old"][:300] + b"\xff" * 40 + w["old"][340:], "damaged, or not a ch"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_one_line_that_says_what_is_wrong(tmp_path, name):
    damage, words = DAMAGE[name]
    (tmp_path / name).write_bytes(damage(whole(tmp_path)))

    line = refusal(tmp_path / name)
    assert line.startswith(str(tmp_path / name))
    assert words in line


def test_a_flipped_bit_in_the_weights_of_an_archive_is_refused(tmp_path):
    """Torch reads it as other weights; the archive knows the sum of each part."""
    file = tmp_path / "a.pt"
    torch.save({"w": torch.ones(500), "b": torch.ones(3)}, file)
    content = bytearray(file.read_bytes())
    place = content.index(torch.ones(500).numpy().tobytes()) + 1000
    content[place] ^= 4
    file.write_bytes(content)

    assert "the part 'a/data/0' is not what was saved (its checksum differs)" in refusal(file)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(500)}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state(file)["w"].sum() == 500  # nothing is noted: nothing can be checked


def test_an_archive_that_another_program_rewrote_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "a.pt")
    parts = zipfile.ZipFile(tmp_path / "a.pt")
    parts = [(name, parts.read(name)) for name in parts.namelist()]
    for name, more, method, words in (
        ("packed.pt", [], zipfile.ZIP_DEFLATED, "its parts are packed"),
        ("twice.pt", [("b/data.pkl", b"")], zipfile.ZIP_STORED, "parts of one name"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for part in [*parts, *more]:
                archive.writestr(*part)
        assert words in refusal(tmp_path / name)


def test_tuples_in_tuples_without_end_are_refused_before_they_end_the_interpreter(tmp_path):
    deep = ()
    for _ in range(201):
        deep = (deep,)
    torch.save({"state_dict": STATE, "args": deep[0]}, tmp_path / "deep.pt")
    torch.save({"state_dict": STATE, "args": deep}, tmp_path / "deeper.pt")

    assert same(read_state(tmp_path / "deep.pt"))
    assert "more than 200 tuples within tuples" in refusal(tmp_path / "deeper.pt")


def test_tensors_without_numbers_or_with_more_than_the_file_has_are_refused(tmp_path):
    file = tmp_path / "a.pt"
    for tensor, words in (
        (torch.empty(5, device="meta"), "'w' is without numbers"),
        (torch.eye(3).to_sparse(), "'w' is sparse or quantised"),
        (torch.ones(1).expand(2**30), "'w' is of 1,073,741,824 numbers, in a file of"),
    ):
        torch.save({"w": tensor}, file)
        with pytest.raises(UsageError, match=words):
            read_state(file)
    torch.save({"w": torch.ones(1).expand(2**20)}, file)
    assert read_state(file)["w"].shape == (2**20,)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning"
)
def test_a_torchscript_archive_is_code_and_its_command_saves_the_weights(tmp_path):
    torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)).save(tmp_path / "clip.pt")
    line = refusal(tmp_path / "clip.pt")
    exec(re.search(r'python -c "(.*)"', line)[1], {})

    assert "a TorchScript archive, which is code as well as weights" in line
    assert list(read_state(tmp_path / "clip-weights.pt")) == ["weight", "bias"]


def test_a_folder_and_an_absent_file_are_one_line(tmp_path):
    assert "a folder, not a checkpoint file" in refusal(tmp_path)
    assert "cannot be read: No such file" in refusal(tmp_path / "gone.pt")


def test_a_thousand_kinds_of_damage_are_refused_or_read_never_a_traceback(tmp_path):
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for kind, content in whole(tmp_path).items():
        file = tmp_path / f"a{'.safetensors' if kind == 'safe' else '.pt'}"
        for _ in range(60):
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[rng.integers(0, min(len(damaged), 1200), 3)] = rng.integers(0, 256, 3)
            file.write_bytes(damaged.tobytes()[: int(rng.integers(1, 2 * len(damaged)))])
            try:
                read_content(file)
                outcomes["read"] += 1
            except UsageError as error:
                assert "\n" not in str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


# ---------------------------------------------------------------- into a model


@pytest.fixture(scope="module")
def tensors(tiny_clip):
    return load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu").model.state_dict()


def loaded(tiny_clip, folder, state, options="?activation=gelu"):
    torch.save(state, folder / "a.pt")
    return load_model(f"open_clip:{tiny_clip}@{folder / 'a.pt'}{options}", "cpu")


def misfit(tiny_clip, folder, state, options="?activation=gelu") -> str:
    with pytest.raises(UsageError) as caught:
        loaded(tiny_clip, folder, state, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_named_missing_and_unexpected_both(tiny_clip, tensors, tmp_path):
    state = {name: value for name, value in tensors.items() if not name.startswith("visual.ln")}
    state |= {f"extra.{place}": torch.ones(1) for place in range(5)}
    line = misfit(tiny_clip, tmp_path, state)

    assert (
        "missing keys (4): visual.ln_pre.weight, visual.ln_pre.bias, visual.ln_post.weight and 1 "
        "more; unexpected keys (5): extra.0, extra.1, extra.2 and 2 more"
    ) in line
    assert f"resemble a CLIP with a ViT: {tiny_clip}" in line


def test_whole_and_complex_numbers_are_no_weights(tiny_clip, tensors, tmp_path):
    for kind in (torch.int32, torch.complex64):
        state = {**tensors, "visual.proj": tensors["visual.proj"].to(kind)}
        line = misfit(tiny_clip, tmp_path, state)
        assert f"other types: visual.proj {kind}, here torch.float32" in line


def test_names_of_a_file_are_shown_printably(tiny_clip, tensors, tmp_path):
    state = {**tensors, "a\nb\x1b[2J": torch.ones(1), "x" * 3000: torch.ones(1)}
    line = misfit(tiny_clip, tmp_path, state)

    assert r"a\nb\x1b[2J" in line and line.isprintable() and len(line) < 1000


def test_a_prefix_that_nobody_knows_is_named(tiny_clip, tensors, tmp_path):
    line = misfit(tiny_clip, tmp_path, under("student.clip.", tensors))

    assert "every key of the file begins with 'student.clip.'" in line
    assert f"resemble a CLIP with a ViT: {tiny_clip}" in line


def test_another_architecture_is_recognised_by_its_sizes():
    config = open_clip.get_model_config("ViT-B-16")
    with torch.device("meta"):
        state = open_clip.CLIP(**config).state_dict()

    assert resembles(state).startswith("a CLIP with a ViT: ViT-B-16, ViT-B-16-quickgelu")
    assert resembles({"text_model.encoder.layers.0.x": 1}) == "a transformers CLIP or SigLIP"
    assert resembles({"nothing": 1}) == "no model that is known here"


@pytest.mark.parametrize(
    ("name", "there", "words"),
    [
        ("positional_embedding", 248, "has 248 tokens of text in the file, 77 in this"),
        ("visual.positional_embedding", 50, "has 50 places of a picture in the file, 17 in this"),
    ],
)
def test_other_position_embeddings_are_refused_with_both_numbers(
    tiny_clip, tensors, tmp_path, name, there, words
):
    state = {**tensors, name: torch.zeros(there, tensors[name].shape[1])}

    assert f"{name} {words}" in misfit(tiny_clip, tmp_path, state)


def test_a_bias_that_moves_no_ranking_is_left_out_and_said(tiny_clip, tensors, tmp_path):
    state = {**tensors, "logit_bias": torch.tensor(-10.0), "logit_scale": torch.tensor([2.0])}
    model = loaded(tiny_clip, tmp_path, state)

    assert model.model.state_dict()["logit_scale"] == 2.0
    assert model.extras.notes == (
        "The file's logit_bias (-10) is left out: one number added to every cosine moves no "
        "ranking.",
    )


def with_factors(tensors):
    """A weight of ones [64, 64], A of [2, 64] and B of [64, 2] as LoRA of rank 2 has them."""
    state = dict(tensors)
    stem = "visual.transformer.resblocks.0.attn.out_proj."
    state[stem + "weight"] = torch.ones(64, 64)
    state[stem + "lora_A"] = torch.full((2, 64), 3.0)
    state[stem + "lora_B"] = torch.full((64, 2), 0.5)
    return stem, state


def test_lora_factors_are_folded_in_with_the_scale_that_the_user_names(
    tiny_clip, tensors, tmp_path
):
    stem, state = with_factors(tensors)
    model = loaded(tiny_clip, tmp_path, under("module.", state), "?activation=gelu&lora_alpha=1")

    # B A = 2 x 0.5 x 3 = 3 everywhere; alpha / rank = 1/2; 1 + 3 / 2.
    assert torch.equal(model.model.state_dict()[stem + "weight"], torch.full((64, 64), 2.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("?activation=gelu", "holds LoRA factors, whose scale alpha / rank it cannot say"),
        ("?activation=gelu&lora_alpha=0", "lora_alpha='0' must be a number above 0"),
        ("?activation=gelu&lora_alpha=x", "lora_alpha='x' must be a number above 0"),
    ],
)
def test_lora_factors_without_a_scale_are_refused(tiny_clip, tensors, tmp_path, options, words):
    _, state = with_factors(tensors)

    assert words in misfit(tiny_clip, tmp_path, state, options)


def test_lora_alpha_for_plain_weights_and_half_a_pair_are_refused(tiny_clip, tensors, tmp_path):
    option = "?activation=gelu&lora_alpha=1"
    assert "the file holds no LoRA factors" in misfit(tiny_clip, tmp_path, tensors, option)

    stem, state = with_factors(tensors)
    del state[stem + "lora_B"]
    assert f"but no {stem}lora_B: it is not whole" in misfit(tiny_clip, tmp_path, state, option)


def test_a_file_whose_logit_scale_lies_elsewhere_is_taken_and_said(tiny_clip, tensors, tmp_path):
    state = {name: value for name, value in tensors.items() if name != "logit_scale"}
    model = loaded(tiny_clip, tmp_path, state)

    assert model.extras.notes == (
        "The file has no logit_scale; the architecture's moves no ranking either.",
    )


def test_a_text_tower_under_text_is_the_same_tower(tiny_clip, tensors, tmp_path):
    state = open_clip.model.convert_to_custom_text_state_dict(dict(tensors))
    assert "text.positional_embedding" in state

    again = loaded(tiny_clip, tmp_path, state).model.state_dict()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tiny_clip, tensors, tmp_path, value):
    ill = tensors["visual.proj"].clone()
    ill[0, 0] = value
    line = misfit(tiny_clip, tmp_path, {**tensors, "visual.proj": ill})
    assert "its weights hold NaN or infinite numbers: tensors: visual.proj. The training" in line


def test_two_models_in_one_file_are_refused_with_the_way_to_either(tiny_clip, tensors, tmp_path):
    state = {**under("model.", tensors), **under("teacher.", tensors)}
    line = misfit(tiny_clip, tmp_path, state)

    assert "missing keys (62): positional_embedding, text_projection, logit_scale and 59" in line
    assert "the option part=model reads the weights below that name alone" in line
    assert f"resemble a CLIP with a ViT: {tiny_clip}, " in line and "below 'model.'." in line
    model = loaded(tiny_clip, tmp_path, state, "?activation=gelu&part=teacher")
    assert torch.equal(model.model.state_dict()["visual.proj"], tensors["visual.proj"])


def test_positions_are_interpolated_as_open_clip_does_and_the_identity_says_so(
    tiny_clip, tensors, tmp_path
):
    generator = torch.Generator().manual_seed(3)
    state = {**tensors, "positional_embedding": torch.randn(120, 64, generator=generator),
             "visual.positional_embedding": torch.randn(50, 64, generator=generator)}  # fmt: skip
    model = loaded(tiny_clip, tmp_path, state, "?activation=gelu&resize=interpolate")
    own = model.model.state_dict()
    theirs = dict(state)
    open_clip.model.resize_pos_embed(theirs, model.model)
    open_clip.model.resize_text_pos_embed(theirs, model.model)

    for name in ("positional_embedding", "visual.positional_embedding"):
        assert own[name].shape == tensors[name].shape
        assert (own[name] - theirs[name]).abs().max() < 1e-6
    (note,) = model.extras.notes
    assert "visual.positional_embedding interpolated from 50 to 17" in note
    assert "; positional_embedding interpolated from 120 to 77" in f"; {note}"
    assert model.identity.architecture == f"{tiny_clip}, {note}"


def test_what_cannot_or_need_not_be_interpolated_is_refused(tiny_clip, tensors, tmp_path):
    options = "?activation=gelu&resize=interpolate"
    assert "has the architecture's length. Leave it out" in misfit(
        tiny_clip, tmp_path, tensors, options
    )
    name = "visual.positional_embedding"
    line = misfit(tiny_clip, tmp_path, {**tensors, name: torch.zeros(51, 64)}, options)
    assert f"{name} has 51 places in the file, 17 in this architecture, which are not both" in line
    line = misfit(tiny_clip, tmp_path, {**tensors, name: torch.zeros(50, 32)}, options)
    assert "other shapes: visual.positional_embedding (50, 32), here (17, 64)" in line
