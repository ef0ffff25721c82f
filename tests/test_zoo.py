"""The catalogue of others' fine-tunes: each is read in its layout, as it was trained, or refused.

None of the files can be had here. Each is made small in its layout, and the model must give what a
plain transcription of CLIP gives with the factors beside the weights, not merged.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fsc_bench.errors import DataError, FscBenchError, UsageError
from fsc_bench.models import check_named, load_model
from fsc_bench.models.checkpoints.catalogue import FOLDER, entry, names
from fsc_bench.models.checkpoints.lora import merge_reference_lora
from fsc_bench.models.checkpoints.released import released
from fsc_bench.train.lora import apply_lora

TEXTS = ["a dog", "two dogs and a cat beside a red ball on the grass " * 3]
BASE = "open_clip:Tiny-quickgelu/random?seed=5"
HEADS = 2
LORA = ("dac-llm", "dac-sam", "tsvlc-llm-rb", "tsvlc-rb")


# ---------------------------------------------------------------- CLIP, written out


def linear(x, state, name, scale):
    out = F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
    if f"{name}.lora_A" in state:
        out = out + scale * (x @ state[f"{name}.lora_A"].T) @ state[f"{name}.lora_B"].T
    return out


def normed(x, state, name):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def blocks(x, state, tower, scale, mask=None):
    for number in range(2):
        at = f"{tower}transformer.resblocks.{number}."
        h = normed(x, state, f"{at}ln_1")
        qkv = F.linear(h, state[f"{at}attn.in_proj_weight"], state[f"{at}attn.in_proj_bias"])
        if f"{at}attn.in_proj_weight_lora_A" in state:
            a, b = (state[f"{at}attn.in_proj_weight_lora_{part}"] for part in "AB")
            qkv = qkv + scale * (h @ a.T) @ b.T
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        weights = q @ k.mT / q.shape[-1] ** 0.5
        weights = weights if mask is None else weights + mask
        mixed = (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(mixed, state, f"{at}attn.out_proj", scale)
        h = linear(normed(x, state, f"{at}ln_2"), state, f"{at}mlp.c_fc", scale)
        x = x + linear(h * torch.sigmoid(1.702 * h), state, f"{at}mlp.c_proj", scale)
    return x


def image_vectors(state, pixels, scale=0.0):
    kernel = state["visual.conv1.weight"]
    x = F.conv2d(pixels, kernel, stride=kernel.shape[-1])
    if "visual.conv1.lora_A" in state:
        low = state["visual.conv1.lora_B"] @ state["visual.conv1.lora_A"]
        x = x + scale * F.conv2d(pixels, low.view(kernel.shape), stride=kernel.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], 1)
    x = normed(x + state["visual.positional_embedding"], state, "visual.ln_pre")
    x = normed(blocks(x, state, "visual.", scale), state, "visual.ln_post")
    return F.normalize(x[:, 0] @ state["visual.proj"], dim=-1)


def text_vectors(state, ids, scale=0.0):
    x = state["token_embedding.weight"][ids] + state["positional_embedding"]
    mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)
    x = normed(blocks(x, state, "", scale, mask), state, "ln_final")
    x = x[torch.arange(len(ids)), ids.argmax(1)]
    return F.normalize(x @ state["text_projection"], dim=-1)


def assert_same(model, state, scale=0.0):
    """The model's vectors are those of `state`, whose factors are not merged, to 1e-6."""
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = model.tokenizer(TEXTS)
    images = image_vectors(state, pixels, scale) - model.encode_images(pixels)
    texts = text_vectors(state, ids, scale) - model.encode_texts(TEXTS)
    assert max(images.abs().max(), texts.abs().max()) < 1e-6


# ---------------------------------------------------------------- files in each layout


@pytest.fixture(scope="module")
def tiny(tiny_clip):
    """A state dict of the tiny CLIP, its weights large enough that each of them matters."""
    model = load_model("open_clip:Tiny-quickgelu/random?seed=2", "cpu").model
    generator = torch.Generator().manual_seed(7)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if value.ndim and "ln_" not in name:
            value += 0.02 * torch.randn(value.shape, generator=generator)
    return state


def with_factors(state, rank=4):
    """The state with LoRA factors in TSVLC's and FSC-CLIP's names."""
    model = open_clip.create_model("Tiny-quickgelu", pretrained=None)
    model = apply_lora(model, rank=rank)
    generator = torch.Generator().manual_seed(9)
    factors = {
        name: 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
        if "lora_" in name
    }
    assert len(factors) == 2 * (1 + 4 * 4)
    return {**state, **factors}


def described(name: str, folder: Path, sum_of: Path | None = None) -> Path:
    """The shipped description, of the tiny architecture; its sha256 that of a file made here."""
    text = (FOLDER / f"{name}.toml").read_text().replace('"ViT-B-32"', '"Tiny"')
    if sum_of:
        found = hashlib.sha256(sum_of.read_bytes()).hexdigest()
        text = re.sub(r'sha256 = "\w+"', f'sha256 = "{found}"', text)
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


WRAPPED = {
    "con-clip": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "trohn-text": lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.25},
    "gnm-clip": lambda s: s,
    "cs-clip": lambda s: under("clip_model.", s),
}


def open_clips(state):
    """As old open_clip's training saves it."""
    return {"epoch": 5, "name": "x", "state_dict": under("module.", state), "optimizer": {}}


STATES = [n for n in names() if entry(n).layout == "state" and not entry(n).wise]


@pytest.mark.parametrize("name", STATES)
def test_a_file_in_its_layout_is_the_model_that_was_trained(name, tiny, tmp_path):
    state = with_factors(tiny) if name in LORA else tiny
    file = tmp_path / "weights.pt"
    torch.save(WRAPPED.get(name, open_clips)(state), file)
    model = load_model(f"zoo:{described(name, tmp_path, file)}@{file}", "cpu")

    assert model.identity.activation == "QuickGELU"
    assert_same(model, state, scale=1 / 4)
    uncertain = [note for note in model.extras.notes if ": uncertain: " in note]
    assert len(uncertain) == len(entry(name).uncertain)


def test_factors_matter_and_their_scale_does(tiny, tmp_path):
    """Without this, a loader that dropped the factors would pass the test above."""
    state = with_factors(tiny)
    file = tmp_path / "weights.pt"
    torch.save(open_clips(state), file)
    model = load_model(f"zoo:{described('dac-llm', tmp_path)}@{file}", "cpu")
    for scale in (0.0, 1.0):
        with pytest.raises(AssertionError):
            assert_same(model, state, scale)


@pytest.mark.parametrize("length", [77, 64])
def test_clove_is_mixed_with_its_base_at_six_tenths(length, tiny, tmp_path):
    state = {**tiny, "positional_embedding": tiny["positional_embedding"][:length].clone()}
    file = tmp_path / "clove.pt"
    torch.save(open_clips(state), file)
    model = load_model(f"zoo:{described('clove', tmp_path)}@{file}?base={BASE}", "cpu")

    base = load_model(BASE, "cpu").model.state_dict()
    base["positional_embedding"] = base["positional_embedding"][:length]
    assert_same(model, {name: 0.4 * base[name] + 0.6 * state[name] for name in state})
    assert model.identity.context_length == length
    shown = {77: "Tiny", 64: "Tiny, texts of 64 tokens"}  # what training would build again
    assert model.identity.architecture == shown[length]
    assert any(note.startswith("0.6 of CLoVe") for note in model.extras.notes)
    assert any("cut to 64" in note for note in model.extras.notes) == (length == 64)


@pytest.fixture(scope="module")
def theirs():
    """A tiny CLIP of transformers."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(4)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 2, "projection_dim": 32}  # fmt: skip
    text = {**tower, "vocab_size": 49408, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    return CLIPModel(config).eval()


def assert_as_theirs(model, theirs):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = theirs(input_ids=model.tokenizer(TEXTS), pixel_values=pixels)
    assert (model.encode_images(pixels) - F.normalize(out.image_embeds, dim=-1)).abs().max() < 1e-6
    assert (model.encode_texts(TEXTS) - F.normalize(out.text_embeds, dim=-1)).abs().max() < 1e-6


def test_read_clip_is_read_by_transformers_names(theirs, tiny_clip, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), file)
    model = load_model(f"zoo:{described('read-clip', tmp_path)}@{file}", "cpu")

    assert_as_theirs(model, theirs)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_tripletclips_two_encoders_are_one_model_whose_texts_are_cut(
    theirs, tiny_clip, tmp_path, ending
):
    state = theirs.state_dict()
    for part, start in (("vision-encoder", "vis"), ("text-encoder", "text")):
        (tmp_path / part).mkdir()
        tower = {f"model.{n}": v for n, v in state.items() if n.startswith(start)}
        if ending == ".bin":
            torch.save(tower, tmp_path / part / "pytorch_model.bin")
        else:
            save_file(tower, tmp_path / part / "model.safetensors")
    model = load_model(f"zoo:{described('tripletclip-cc12m', tmp_path)}@{tmp_path}", "cpu")

    assert_as_theirs(model, theirs)
    assert model.identity.context_length == 64
    assert "Texts are cut to 64 tokens, as it was trained." in model.extras.notes


@pytest.mark.parametrize("name", ["clic-cogvlm", "clic-redcaps"])
def test_clics_repositories_are_read_with_their_own_config(name, tiny, tiny_clip, tmp_path):
    config = open_clip.get_model_config("Tiny-quickgelu")
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    )
    save_file(tiny, tmp_path / "open_clip_model.safetensors")
    model = load_model(f"zoo:{described(name, tmp_path)}@{tmp_path}", "cpu")

    assert_same(model, tiny)
    assert not any("its own config builds" in note for note in model.extras.notes)


def test_every_shipped_entry_is_proved_here_and_says_where_it_is():
    """18 of others; the twelve of FSC-CLIP are a family of their own."""
    proved = {*STATES, "clove", "read-clip", "tripletclip-cc12m", "clic-cogvlm", "clic-redcaps"}
    assert proved == set(names())
    assert len(names()) == 18 and len(released()) == 12
    for name in names():
        facts = entry(name)
        assert facts.get.url.startswith("https://") and facts.architecture == "ViT-B-32"
        assert facts.activation == "quickgelu" and facts.paper.startswith("arXiv:")
        assert (facts.lora is not None) == (name in LORA)
        assert facts.lora is None or (facts.lora.rank, facts.lora.alpha) == (4, 1.0)


def test_the_factors_names_and_shapes_are_those_of_the_released_file():
    """FSC-CLIP's LoRA file of ViT-B-32: 194 factors; alpha / rank is 1/4 of B A for each."""
    folder = os.environ.get("FSC_BENCH_REAL_DATA")
    path = Path(folder or "") / "fscclip_checkpoint_keys.json"
    if not folder or not path.is_file():
        pytest.skip("FSC_BENCH_REAL_DATA names no folder with the released files' names")
    theirs = json.loads(path.read_text())
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
        state = apply_lora(model).state_dict()
    plain = {name: list(v.shape) for name, v in state.items() if "lora_" not in name}
    factors = {name: list(v.shape) for name, v in state.items() if "lora_" in name}

    assert factors == theirs["ViT-B-32_lora_keys"]
    assert plain == theirs["ViT-B-32_base_keys"]
    merged = merge_reference_lora(state)
    assert {name: list(v.shape) for name, v in merged.items()} == plain


# ---------------------------------------------------------------- what is refused


def refusal(name, state, folder) -> str:
    file = folder / "weights.pt"
    torch.save(state, file)
    with pytest.raises(FscBenchError) as caught:
        load_model(f"zoo:{described(name, folder)}@{file}", "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_file_is_loaded_half(tiny, tmp_path):
    factors = with_factors(tiny)
    half = {name: v for name, v in factors.items() if not name.endswith("c_fc.lora_B")}
    teacher = {**under("student.", tiny), **under("teacher.", tiny)}
    short = {**tiny, "positional_embedding": torch.zeros(50, 64)}
    for name, state, words in (
        ("negclip", factors, "holds LoRA factors, which NegCLIP does not have"),
        ("dac-llm", tiny, "has LoRA factors of rank 4; the file holds no factors"),
        ("dac-llm", with_factors(tiny, rank=8), "rank 4; the file holds factors of rank 8"),
        ("tsvlc-rb", half, "it is not whole"),
        ("degla", teacher, "missing keys (62): positional_embedding, text_projection, "),
        ("degla", teacher, "unexpected keys (124): student.positional_embedding, "),
        ("negclip", short, "has 50 tokens of text in the file; NegCLIP has 77"),
        ("clove", short, "has 50 tokens of text in the file; CLoVe has 77 or 64"),
    ):
        if name == "clove":
            text = described(name, tmp_path).read_text()
            (tmp_path / "own.toml").write_text(re.sub(r'base = ".*"', f'base = "{BASE}"', text))
            torch.save(state, tmp_path / "c.pt")
            with pytest.raises(UsageError, match=words):
                load_model(f"zoo:{tmp_path / 'own.toml'}@{tmp_path / 'c.pt'}", "cpu")
            continue
        assert words in refusal(name, state, tmp_path)


def test_openai_names_in_place_of_transformers_are_refused_by_name(tiny, tmp_path):
    line = refusal("read-clip", tiny, tmp_path)
    assert "these are no names of a transformers CLIP: 'positional_embedding'" in line
    assert "resemble a CLIP with a ViT: Tiny" in line


def test_another_file_than_the_released_one_is_refused_by_its_sum(tiny, tmp_path):
    line = refusal("cs-clip", tiny, tmp_path)
    assert "the released file's 556c2763469bb32a93d01732e1bf72d6bac5b4b1" in line


def test_factors_of_an_embedding_are_those_of_its_transposed_table():
    """loralib's Embedding adds (B A)^T; the same numbers in rows would be another model."""
    state = {"e.weight": torch.zeros(3, 2), "e.lora_A": torch.tensor([[1.0, 2.0, 3.0]]),
             "e.lora_B": torch.tensor([[10.0], [20.0]])}  # fmt: skip
    merged = merge_reference_lora(state, alpha=1)
    assert merged["e.weight"].tolist() == [[10, 20], [20, 40], [30, 60]]

    state["e.weight"] = torch.zeros(6, 1)
    with pytest.raises(FscBenchError, match=r"e\.lora_A \(1, 3\) and its partner \(2, 1\) do not"):
        merge_reference_lora(state)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("zoo:negclp", UsageError, "Did you mean 'negclip'?"),
        ("zoo:", UsageError, "write FAMILY:CHECKPOINT"),
        ("zoo:negclip", DataError, "download negclip.pth from https://drive.google.com/file/d/1oo"),
        ("zoo:negclip", DataError, "by hand, and name it: zoo:negclip@negclip.pth."),
        (
            "zoo:gnm-clip",
            DataError,
            "download the checkpoint from https://huggingface.co/ugursahin",
        ),
        ("zoo:negclip@gone.pt", UsageError, "there is no file gone.pt"),
        ("zoo:negclip@", UsageError, "there is no file behind the @"),
        ("zoo:negclip@gone.pt?alpha=1", UsageError, "option 'alpha=1': write key=value with base"),
        ("zoo:negclip?base=x:y", UsageError, "NegCLIP is not mixed with a base; leave it out"),
        ("zoo:clove?base=open_clp:x", UsageError, "Did you mean 'open_clip'?"),
        ("zoo:nowhere.toml@x.pt", UsageError, "nowhere.toml: there is no such file"),
        (
            "zoo:tripletclip-cc12m@.",
            UsageError,
            "no vision-encoder/model.safetensors in .",
        ),
    ],
)
def test_a_wrong_name_is_one_line_before_anything_is_loaded(
    spec, error, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        check_named(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_of_ones_own_with_a_slip_is_one_line(tmp_path):
    text = (FOLDER / "negclip.toml").read_text()
    for change, words in (
        (text.replace("activation", "activaton"), "Did you mean 'activation'?"),
        (text.replace('"quickgelu"', '"quikgelu"'), "Did you mean 'quickgelu'?"),
        (text.replace('"ViT-B-32"', '"ViT-B-23"'), "has no architecture 'ViT-B-23'"),
    ):
        (tmp_path / "own.toml").write_text(change)
        with pytest.raises(UsageError, match=re.escape(words)):
            check_named(f"zoo:{tmp_path / 'own.toml'}")


@pytest.mark.parametrize(
    "base",
    ["py:evil.py:model", "zoo:own.toml@c.pt", "run:x", "open_clip:./x", "open_clip:Tiny@c.pt"],
)
def test_a_description_names_no_base_that_executes_or_reads_what_it_could_have_chosen(
    base, tmp_path, monkeypatch
):
    """A downloaded description with `base = "py:evil.py:model"` ran evil.py; one that names itself
    ended in a RecursionError.
    """
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("import pathlib; pathlib.Path('executed').touch()")
    torch.save({"positional_embedding": torch.zeros(77, 4)}, "c.pt")
    text = described("clove", tmp_path).read_text()
    Path("own.toml").write_text(re.sub(r"base = .*", f'base = "{base}"', text))
    with pytest.raises(UsageError, match=re.escape(f"its base is '{base}'. A file may name ")):
        load_model("zoo:own.toml@c.pt", "cpu")

    assert not Path("executed").exists()


def test_the_list_says_what_each_model_needs(capsys):
    from fsc_bench.cli.main import app

    with pytest.raises(SystemExit) as ended:
        app(["models", "zoo", "--json"])
    assert not ended.value.code
    found = {one["model"]: one for one in json.loads(capsys.readouterr().out)}

    assert len(found) == 18 + 12
    assert found["zoo:dac-llm"]["lora"] == {"rank": 4, "alpha": 1.0}
    assert found["zoo:clove"]["wise"] == {"alpha": 0.6}
    assert found["zoo:ce-clip"]["by_hand"] == ""
    assert found["zoo:negclip"]["expected"]["scores"]["aro"] == 80.9
    assert found["fsc_clip:dcxl-lora-ViT-B-32"]["activation"] == "gelu"

    with pytest.raises(SystemExit):
        app(["models", "zoo"])
    shown = capsys.readouterr().out
    assert (
        "zoo:con-clip@FILE: conclip_vit_b32.pt from https://drive.google.com/file/d/1st_" in shown
    )
