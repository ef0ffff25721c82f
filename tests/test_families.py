"""Every shipped family gives a model that keeps the protocol of fsc_bench/model.py."""

import json

import numpy as np
import pytest
import tiny_blip
import tiny_hf
import torch
from PIL import Image

from fsc_bench.errors import UsageError
from fsc_bench.model import Extras, Identity, check_model, extras_of, is_pair_scorer, stacked
from fsc_bench.models import families, fsc_clip, load_model
from fsc_bench.models.control import Fake
from fsc_bench.models.fsc_clip import Released

TEXTS = ["a red square", "a red square on a dog", "blue"]


def fsc_clip_spec(tiny_clip, folder, monkeypatch) -> str:
    """A released checkpoint of a tiny architecture: a local file with the names of the real one."""
    model = load_model(f"open_clip:{tiny_clip}-quickgelu/random?seed=4", "cpu").model
    torch.save({"state_dict": model.state_dict()}, folder / "released.pt")
    entry = Released("released.pt", f"{tiny_clip}-quickgelu", True)
    monkeypatch.setattr(fsc_clip, "released", lambda: {"tiny": entry})
    return f"fsc_clip:tiny@{folder / 'released.pt'}"


def run_spec(tiny_clip, folder, _) -> str:
    from safetensors.torch import save_file

    spec = f"open_clip:{tiny_clip}/random?seed=5"
    save_file(load_model(spec, "cpu").model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"skeleton": spec}))
    return f"run:{folder}"


def hf_spec(_, folder, __) -> str:
    return f"hf:{tiny_hf.save(folder / 'hf', 'chinese_clip')}"


def py_spec(_, folder, __) -> str:
    (folder / "mine.py").write_text("from fsc_bench.models.control import Fake\nmodel = Fake(1)\n")
    return f"py:{folder / 'mine.py'}:model"


def zoo_spec(tiny_clip, folder, _) -> str:
    from fsc_bench.models.checkpoints.catalogue import FOLDER

    state = load_model(f"open_clip:{tiny_clip}/random?seed=5", "cpu").model.state_dict()
    torch.save({"state_dict": state}, folder / "negclip.pth")
    text = (FOLDER / "negclip.toml").read_text().replace('"ViT-B-32"', f'"{tiny_clip}"')
    (folder / "negclip.toml").write_text(text)
    return f"zoo:{folder / 'negclip.toml'}@{folder / 'negclip.pth'}"


# family -> a model of it that can be had anywhere; a new family needs a line here
SPECS = {
    "blip": lambda _, folder, __: f"blip:{tiny_blip.save(folder / 'blip')}",
    "control": lambda *_: "control:chance",
    "demo": lambda *_: "demo:pretrained",
    "fsc_clip": fsc_clip_spec,
    "hf": hf_spec,
    "open_clip": lambda tiny_clip, *_: f"open_clip:{tiny_clip}/random",
    "py": py_spec,
    "run": run_spec,
    "wise": lambda tiny_clip, *_: (
        f"wise:open_clip:{tiny_clip}/random?seed=1+open_clip:{tiny_clip}/random?seed=2?alpha=0.5"
    ),
    "zoo": zoo_spec,
}


def test_every_family_is_tried_here():
    assert set(SPECS) == set(families())


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
        for size in ((40, 60), (33, 33), (64, 32))
    ]


def rows(vectors) -> np.ndarray:
    return vectors.numpy() if hasattr(vectors, "numpy") else np.asarray(vectors)


@pytest.mark.parametrize("family", sorted(SPECS))
def test_a_family_keeps_the_protocol_and_its_extras_give_the_same_vectors(
    family, tiny_clip, tmp_path, monkeypatch
):
    model = load_model(SPECS[family](tiny_clip, tmp_path, monkeypatch), "cpu")
    if is_pair_scorer(model):
        read = model.read_images(stacked([model.preprocess(p) for p in pictures()]))
        assert rows(model.score_pairs(read, TEXTS)).shape == (3,)
        model = model.first
    images = rows(model.encode_images(stacked([model.preprocess(p) for p in pictures()])))
    texts = rows(model.encode_texts(TEXTS))

    assert isinstance(model.identity, Identity) and model.device == "cpu"
    assert images.shape == texts.shape == (3, images.shape[1])
    for vectors in (images, texts):
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        assert len(np.unique(vectors.round(4), axis=0)) == 3

    extras = extras_of(model)
    assert all(isinstance(note, str) for note in extras.notes)
    if extras.pixels is not None:
        whole = extras.pixels.finish(np.stack([extras.pixels.load(p) for p in pictures()]))
        assert np.abs(rows(model.encode_images(whole)) - images).max() < 1e-6
    if extras.tokens is not None:
        ids, needed = extras.tokens.ids(TEXTS)
        assert len(ids) == len(needed) == 3 and needed.max() <= ids.shape[1]
        cut = ids[:, : needed.max()]
        assert np.abs(rows(extras.tokens.encode(cut)) - texts).max() < 1e-6
    if extras.trees is not None:
        batches = list(extras.trees.batches(ids, needed, 64))
        assert sorted(np.concatenate(batches)) == [0, 1, 2]
        own = [ids[place, : needed[place]] for place in range(3)]
        assert np.abs(rows(extras.trees.encode(own, 64)) - texts).max() < 1e-6
    if extras.tokenize is not None:
        again, cut = extras.tokenize([*TEXTS, "word " * 200])
        assert len(again) == 4 and list(cut) == [False, False, False, True]


def test_what_a_family_must_have_is_told_where_it_lacks():
    class Without:
        identity, preprocess = Fake(0).identity, Fake(0).preprocess
        encode_images = encode_texts = Fake(0).encode_images

    with pytest.raises(UsageError, match=r"^model 'its:one': a Without without device\.$"):
        check_model(Without(), "its:one")
    Without.device, Without.identity = "cpu", "abc"
    with pytest.raises(UsageError, match=r"identity is a str; it must be an fsc_bench\.model\."):
        check_model(Without(), "its:one")
    Without.identity, Without.extras = Fake(0).identity, {"notes": ()}
    with pytest.raises(UsageError, match=r"extras is a dict; it must be an fsc_bench\.model\."):
        check_model(Without(), "its:one")
    Without.extras = Extras()
    assert check_model(Without(), "its:one").extras.tokens is None
