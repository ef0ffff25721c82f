"""`hf:` gives what transformers' own models give, and reads a stranger's repository without
executing any of it.
"""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_hf
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_hf import TEXTS

from fsc_bench.cli.main import app
from fsc_bench.errors import DataError, UsageError
from fsc_bench.model import Extras, stacked
from fsc_bench.models import check_named, hf, load_model
from fsc_bench.system.spec import Spec

CLOSE = 1e-5
LONG = "a red dog on the blue car , " * 30
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """name -> the folder of that tiny model, written once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tiny_hf.save(tmp_path_factory.mktemp("hf") / name.replace(" ", "-"), name)
        return made[name]

    return of


@pytest.fixture
def copied(folder, tmp_path):
    """name -> a copy of its folder, to be changed."""

    def of(name: str) -> Path:
        return Path(shutil.copytree(folder(name), tmp_path / "copy"))

    return of


def load(folder: Path, precision: str = "fp32") -> hf.Towers:
    return hf.load(Spec.read(f"hf:{folder}"), "cpu", precision)


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    sizes = ((45, 60, 3), (33, 33, 3))
    return [Image.fromarray(noise.integers(0, 256, size, np.uint8)) for size in sizes]


def cosines(model: hf.Towers, texts: list[str]) -> np.ndarray:
    """[images, texts], by the protocol that the model has."""
    pixels = stacked([model.preprocess(picture) for picture in pictures()])
    if isinstance(model, hf.HuggingFace):
        return (model.encode_images(pixels) @ model.encode_texts(texts).T).numpy()
    seen = model.read_images(pixels)
    pairs = [(image, text) for image in range(len(seen)) for text in texts]
    scores = model.score_pairs(seen[[image for image, _ in pairs]], [text for _, text in pairs])
    return scores.reshape(len(seen), len(texts)).numpy()


# ---------------------------------------------------------------- what the library gives


def library(folder: Path, texts: list[str]) -> tuple[np.ndarray, object]:
    """(cosines [images, texts] of the model's own logits, what its forward gives)."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    given = processed(folder, config["model_type"], texts)
    with torch.no_grad():
        return CALLS.get(type(model).__name__, by_scale)(model, given)


def processed(folder: Path, kind: str, texts: list[str]) -> dict:
    """What the model's own processor gives, filled up as its authors say."""
    import transformers

    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__.endswith("Processor"), "an image processor or a tokenizer alone"
    filled = {"padding": True}
    if kind.startswith(("siglip", "align")):
        filled = {"padding": "max_length", "max_length": 64}
    if kind == "siglip2":  # its processor's own defaults are a larger model's
        filled |= {"patch_size": 8, "max_num_patches": 20}
    given = processor(text=texts, images=pictures(), return_tensors="pt", **filled)
    if kind.startswith("siglip"):
        given.pop("attention_mask", None)  # SigLIP reads its filling
    return dict(given)


def by_scale(model, given):
    found = model(**given)
    return (found.logits_per_image / model.logit_scale.exp()).numpy(), found


def by_temperature(model, given):
    found = model(**given)
    return (found.logits_per_image * model.temperature).numpy(), found


def by_scale_and_bias(model, given):
    found = model(**given)
    return ((found.logits_per_image - model.logit_bias) / model.logit_scale.exp()).numpy(), found


def flava(model, given):
    ids = given["input_ids"]
    masked = torch.zeros(len(ids), 16, dtype=torch.long)
    found = model(**given, input_ids_masked=ids, bool_masked_pos=masked, return_loss=False)
    return (found.contrastive_logits_per_image / model.flava.logit_scale.exp()).numpy(), None


CALLS = {
    "AlignModel": by_temperature,
    "SiglipModel": by_scale_and_bias,
    "Siglip2Model": by_scale_and_bias,
    "FlavaForPreTraining": flava,
    "BlipForImageTextRetrieval": lambda model, given: (
        model(**given, use_itm_head=False).itm_score.numpy(), None),
    "Blip2ForImageTextRetrieval": lambda model, given: (
        model(**given, use_image_text_matching_head=False).logits_per_image.numpy(), None),
}  # fmt: skip


@pytest.mark.parametrize("name", tiny_hf.MODELS)
def test_vectors_are_those_of_the_librarys_own_forward(name, folder):
    """Texts of two lengths and pictures of two sizes, in one batch and one by one."""
    model = load(folder(name))
    lowered = [text.lower() for text in TEXTS] if name.startswith("siglip 2") else TEXTS

    own = cosines(model, TEXTS)
    expected, found = library(folder(name), lowered)

    for axis in (0, 1):  # they differ, so that equal means something
        assert np.ptp(expected, axis=axis).min() > 1e-3
    worst = {"cosines": np.abs(own - expected).max()}
    alone = np.concatenate([cosines(model, [text]) for text in TEXTS], axis=1)
    worst["one by one"] = np.abs(own - alone).max()
    if found is not None:
        pixels = stacked([model.preprocess(picture) for picture in pictures()])
        for side, given, theirs in (
            ("images", model.encode_images(pixels), found.image_embeds),
            ("texts", model.encode_texts(TEXTS), found.text_embeds),
        ):
            theirs = torch.nn.functional.normalize(theirs, dim=-1)
            worst[side] = float((given - theirs).abs().max())
    print(name, {side: f"{value:.1e}" for side, value in worst.items()})
    assert max(worst.values()) < CLOSE


@pytest.mark.parametrize("name", tiny_hf.MODELS)
def test_texts_that_are_cut_are_counted(name, folder):
    model = load(folder(name))

    ids, cut = model.extras.tokenize([*TEXTS, LONG])

    assert list(cut) == [False, False, True]
    assert ids.shape == (3, model.identity.context_length) and (ids[2] >= 0).all()
    assert np.isfinite(cosines(model, [LONG])).all()


def test_siglip_lower_cases_whatever_its_tokenizer_does(folder):
    """On the Hub, SigLIP 2 of a fixed size has Gemma's tokenizer, which keeps capitals."""
    for name in ("siglip", "siglip 2", "siglip 2 naflex"):
        model = load(folder(name))
        given = model.words(["The RED dog", "the red dog"])
        assert set(given) == {"input_ids"} and given["input_ids"].shape == (2, 64)
        assert torch.equal(*given["input_ids"])


def test_naflex_pictures_of_all_shapes_are_one_array(folder):
    """At most 20 patches, three times as many one way as the other, in whole ones: 2 x 6."""
    model = load(folder("siglip 2 naflex"))
    wide, high = (model.preprocess(Image.new("RGB", size)) for size in ((96, 32), (32, 96)))

    assert wide.shape == high.shape == (20, 3 * 8 * 8 + 3)
    given = model.preprocess.inputs(stacked([wide, high]), torch.float32)
    assert given["spatial_shapes"].tolist() == [[2, 6], [6, 2]]
    assert given["pixel_attention_mask"].sum(dim=1).tolist() == [12, 12]
    assert given["pixel_values"].shape == (2, 20, 192)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["clip", "siglip 2 naflex", "align", "blip-2"])
def test_half_precision_is_near_and_another_identity(name, precision, folder):
    single, half = load(folder(name)), load(folder(name), precision)

    near = np.abs(cosines(single, TEXTS) - cosines(half, TEXTS)).max()
    assert 0 < near < (0.1 if precision == "bf16" else 0.02)
    assert half.identity.weights == single.identity.weights
    assert half.identity.fingerprint != single.identity.fingerprint
    if name == "blip-2":  # as transformers keeps it
        assert half.model.query_tokens.dtype == torch.float32
        assert torch.equal(half.model.query_tokens, single.model.query_tokens)


# ---------------------------------------------------------------- an object in memory


@pytest.mark.parametrize("name", ["clip", "siglip 2 naflex", "flava", "blip-2"])
def test_a_model_in_memory_gives_the_vectors_of_its_folder(name, folder, tmp_path):
    from transformers import AutoProcessor

    model, _, _ = tiny_hf.MODELS[name](tmp_path)
    state = load_file(folder(name) / "model.safetensors")
    model.load_state_dict(state, strict=False)
    processor = AutoProcessor.from_pretrained(folder(name))

    held, read = hf.wrapped(model, processor), load(folder(name))

    assert np.array_equal(cosines(held, TEXTS), cosines(read, TEXTS))
    assert held.identity.weights == read.identity.weights
    assert isinstance(held.extras, Extras) and held.device == "cpu"
    assert all(part.requires_grad for part in model.parameters())  # it may be in training


def test_what_is_no_dual_encoder_in_memory_is_one_line(folder):
    from transformers import AutoProcessor, BertConfig, BertModel

    small = BertConfig(**tiny_hf.BERT, vocab_size=30)
    processor = AutoProcessor.from_pretrained(folder("clip"))
    with pytest.raises(UsageError, match=r"a BertModel is no dual encoder .* Did you mean"):
        hf.wrapped(BertModel(small), processor)
    model = load(folder("clip")).model
    with pytest.raises(UsageError, match=r"a CLIPTokenizer without image_processor and tokenizer"):
        hf.wrapped(model, processor.tokenizer)
    with pytest.raises(UsageError, match=r"its numbers are torch\.float64"):
        hf.wrapped(model.double(), processor)


# ---------------------------------------------------------------- weights


def refusal(folder: Path, kind: type = UsageError) -> str:
    with pytest.raises(kind) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_missing_further_or_of_another_shape_are_one_line(copied):
    """transformers would make up what is missing and go on."""
    target = copied("chinese_clip")
    whole = load_file(target / "model.safetensors")

    def told(**changes) -> str:
        state = {key: part for key, part in {**whole, **changes}.items() if part is not None}
        save_file(state, target / "model.safetensors")
        return refusal(target)

    said = told(**{"visual_projection.weight": None})
    assert "do not fit a ChineseCLIPModel: missing keys: visual_projection.weight." in said
    said = told(**{"mine.weight": torch.ones(2), "yours": torch.ones(2)})
    assert "unexpected keys (2): mine.weight, yours." in said
    said = told(**{"text_projection.weight": torch.ones(24, 31)})
    assert "other shapes: text_projection.weight (24, 31), by the config (24, 32)." in said


def test_shards_half_precision_files_and_old_buffers_are_read(copied):
    target = copied("flava")  # its heads share tensors, which are saved once
    from transformers import FlavaForPreTraining

    expected = load(target)
    model = FlavaForPreTraining.from_pretrained(target)
    (target / "model.safetensors").unlink()
    model.save_pretrained(target, max_shard_size="60KB")

    assert len(list(target.glob("model-*.safetensors"))) > 2
    assert load(target).identity == expected.identity

    index = target / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    (target / sorted(set(names.values()))[1]).unlink()
    assert "lists model-00002-of-" in refusal(target) and "not there" in refusal(target)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    assert "lists no files of its own folder" in refusal(target)


def test_an_old_pickle_is_read_and_one_that_would_run_is_refused(copied, tmp_path):
    target, sentinel = copied("clip"), tmp_path / "ran"
    expected = load(target).identity
    state = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save({**state, **positions}, target / "pytorch_model.bin")
    assert load(target).identity == expected

    class Evil:
        def __reduce__(self):
            return Path.touch, (sentinel,)

    torch.save({**state, "evil": Evil()}, target / "pytorch_model.bin")
    assert str(target / "pytorch_model.bin") in refusal(target)
    (target / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    refusal(target)
    assert not sentinel.exists()


# ---------------------------------------------------------------- what strangers write


def rewrite(file: Path, **facts) -> None:
    """Sets keys of a JSON file; None takes one away."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    kept = {key: value for key, value in {**known, **facts}.items() if value is not None}
    file.write_text(json.dumps(kept))


AUTO = {"AutoModel": "mine.Model", "AutoTokenizer": ["mine.Model", None],
        "AutoImageProcessor": "mine.Model", "AutoConfig": "mine.Model"}  # fmt: skip


@pytest.mark.parametrize("name", ["config", "tokenizer_config", "preprocessor_config"])
def test_python_of_a_repository_is_never_run(name, copied, tmp_path):
    target, sentinel = copied("clip"), tmp_path / "ran"
    (target / "mine.py").write_text(f"import pathlib\npathlib.Path({str(sentinel)!r}).touch()\n")
    rewrite(target / f"{name}.json", auto_map=AUTO)

    assert f"wants Python of its own executed ({name}.json: auto_map)" in refusal(target)
    with pytest.raises(UsageError, match="never done"):
        check_named(f"hf:{target}")
    assert not sentinel.exists()


def test_a_config_does_not_choose_the_code_that_computes(copied):
    target = copied("clip")
    expected = load(target).identity
    config = json.loads((target / "config.json").read_text())
    other = {"_attn_implementation": "kernels-community/flash-attn"}
    rewrite(target / "config.json", attn_implementation="somebody/else", **other,
            text_config={**config["text_config"], **other})  # fmt: skip

    assert load(target).identity == expected


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4321\n"
WRONG = {
    "no folder": (lambda folder: shutil.rmtree(folder), "there is no folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "there is no config.json in"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "holds a list, not a table"),
    "no type": (lambda f: rewrite(f / "config.json", model_type=None), "without a model_type"),
    "bert": (lambda f: rewrite(f / "config.json", model_type="bert"),
             "of a model of type 'bert', which is no dual encoder that is known here."),
    "near miss": (lambda f: rewrite(f / "config.json", model_type="siglp"),
                  "Did you mean 'siglip'? Known are clip, metaclip_2,"),
    "half": (lambda f: rewrite(f / "config.json", architectures=["CLIPTextModel"]),
             "is of a 'CLIPTextModel', which does not give images and texts one space"),
    "layers": (lambda f: rewrite(f / "config.json", text_config={"num_hidden_layers": 9999}),
               "num_hidden_layers' = 9999 is no size of a model."),
    "quantised": (lambda f: rewrite(f / "config.json", quantization_config={"bits": 4}),
                  "quantised weights"),
    "no pixels": (lambda f: (f / "preprocessor_config.json").unlink(), "has no image processor"),
    "no words": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer (tokenizer.json or"),
    "pointer": (lambda f: (f / "tokenizer.json").write_text(LFS), "tokenizer.json: a Git LFS"),
    "pointer of weights": (lambda f: (f / "model.safetensors").write_text(LFS),
                           "a Git LFS pointer to 4,321 bytes"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights (model.safe"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_folder_that_is_none_is_one_line_before_anything_is_loaded(wrong, copied):
    target = copied("clip")
    change, said = WRONG[wrong]
    change(target)

    with pytest.raises(UsageError) as caught:
        check_named(f"hf:{target}")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:clip", "write hf:ORG/NAME or hf:ORG/NAME@REVISION; a folder is hf:./FOLDER."),
        ("hf:openai/clip/more", "write hf:ORG/NAME"),
        ("hf:openai/clip@", "write hf:ORG/NAME"),
        ("hf:openai/clip?seed=1", "option 'seed=1': write key=value with first, depth"),
        ("hf:./nowhere", "there is no folder nowhere. A name on the Hub is hf:ORG/NAME."),
    ],
)
def test_a_name_of_another_form_is_one_line(name, said):
    with pytest.raises(UsageError) as caught:
        check_named(name)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_parts_that_do_not_belong_together_are_one_line(copied):
    target = copied("clip")
    rewrite(target / "preprocessor_config.json", do_center_crop=False)
    assert "for pictures of two sizes" in refusal(target)
    rewrite(target / "preprocessor_config.json", do_center_crop=True, crop_size=16, size=16)
    assert "gives pictures of 16 x 16, the image tower takes 32 x 32." in refusal(target)
    rewrite(target / "preprocessor_config.json", image_processor_type="MineImageProcessor")
    assert "has an image processor that cannot be used" in refusal(target)


def test_a_tokenizer_of_more_words_than_the_weights_is_one_line(copied):
    target = copied("chinese_clip")
    tiny_hf.clip_bpe().save_pretrained(target)

    assert "its tokenizer has 1,114 tokens, its weights are of 46" in refusal(target)


def test_a_config_that_would_fill_the_memory_is_one_line(copied):
    target = copied("chinese_clip")
    config = json.loads((target / "config.json").read_text())
    rewrite(target / "config.json", text_config={**config["text_config"], "vocab_size": 9_000_000})

    assert "numbers, the files hold" in refusal(target)


def test_without_transformers_a_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)

    assert refusal(folder("clip")).endswith("`pip install 'fsc-bench[hf]'`.")


# ---------------------------------------------------------------- the Hub, and the pipe


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty Hub cache; there is no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def test_a_name_on_the_hub_says_which_commit_it_means(folder, hub):
    with pytest.raises(DataError, match=r"org/name/config\.json is not in the Hub's cache"):
        load_model("hf:org/name", "cpu")
    cache = hub / "models--org--name"
    shutil.copytree(folder("blip"), cache / "snapshots" / REVISION)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(REVISION)

    named, exact = (load_model(f"hf:org/name{at}", "cpu") for at in ("", f"@{REVISION}"))

    assert named.extras.notes == (f"hf:org/name: revision {REVISION}.",)
    assert named.identity == exact.identity == load(folder("blip")).identity
    (cache / "snapshots" / REVISION / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"org/name/model\.safetensors is not in the Hub's cache"):
        load_model("hf:org/name", "cpu")


def test_blip_2_ranks_the_best_of_a_first_stage_anew(folder, tmp_path):
    """As its matching head does: an image has many vectors, and a text the best of them."""
    from known import World, captioned
    from test_pairs import ask

    from fsc_bench.records import OWN, ImageRef

    world = World(tmp_path)
    for number, picture in enumerate(pictures()):
        world.picture(f"{number}", float(number))
        picture.save(world.raw / f"{number}.png")
    task = world.task("gallery", ["i2t_r1", "t2i_r1"], {"test": 2})
    own = [ImageRef(OWN, f"{number}.png") for number in range(2)]
    world.records(task, [captioned(*pair) for pair in zip(own, TEXTS, strict=True)])
    first = f"hf:{folder('chinese_clip')}"
    spec = f"hf:{folder('blip-2')}?first={first}&depth=2"
    _, samples = ask(world, spec, task)

    expected, _ = library(folder("blip-2"), TEXTS)
    order = (-expected).argsort(axis=1)
    assert samples["gallery"]["i2t_rank"] == [list(order[n]).index(n) + 1 for n in range(2)]
    with pytest.raises(UsageError, match=r"first and depth are of models that score pairs"):
        check_named(f"{first}?depth=2")


def test_the_family_walks_the_pipe(folder, tiny, capsys):
    """26 records of five pictures, each with a caption and a false one."""
    target = folder("siglip 2 naflex")
    arguments = ["run", "-m", f"hf:{target}", "-t", tiny["task"], "--data", tiny["data"],
                 "--out", tiny["out"], "--device", "cpu"]  # fmt: skip
    assert not app([str(part) for part in arguments], standalone_mode=False)
    (file,) = tiny["out"].glob("*/samples/tiny.parquet")
    rows = pq.read_table(file).to_pylist()

    assert len(rows) == 26
    model = load(target)
    for row in (rows[0], rows[7], rows[25]):
        picture = Image.open(tiny["images"] / row["images"][0].partition(":")[2])
        image = model.encode_images(model.preprocess(picture.convert("RGB"))[None])
        own = (model.encode_texts(row["texts"]) @ image[0]).tolist()
        assert row["scores"] == pytest.approx(own, abs=CLOSE) and own[0] != own[1]

    capsys.readouterr()
    app(["models"], standalone_mode=False)
    assert "hf:google/siglip2-base-patch16-naflex" in capsys.readouterr().out
