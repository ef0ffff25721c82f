"""Encoding: a vector depends on its item and on nothing else, and every shortcut is exact or
unused.
"""

import gc
import io
import json
import weakref

import numpy as np
import open_clip
import pytest
import torch
from draw_images import draw
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from torchvision import transforms

from fsc_bench.data import jpeg as preprocess
from fsc_bench.data.images import Images, decode
from fsc_bench.embed import encode as module
from fsc_bench.embed.cost import calibrate
from fsc_bench.embed.encode import Encoder, bucket, buckets
from fsc_bench.embed.plan import Plan, text_digest, text_digests
from fsc_bench.embed.store import Store
from fsc_bench.errors import DataError, RunError
from fsc_bench.model import Extras
from fsc_bench.models import load_model
from fsc_bench.models.control import Fake
from fsc_bench.models.open_clip import _fill_what_is_left
from fsc_bench.models.shortcuts import pixels as _pixels
from fsc_bench.models.shortcuts import prefixes as _prefixes
from fsc_bench.models.shortcuts import towers as _towers
from fsc_bench.records import ImageRef

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}


@pytest.fixture(autouse=True)
def threads():
    """Two threads: with one, no product is divided and nothing could depend on a row's place."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tiny_clip):
    return load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(images, plan): 23 pictures with 3 crops each and 51 captions of 4 to 77 tokens."""
    data = tmp_path_factory.mktemp("world")
    (data / "links.json").write_text(json.dumps({"task": str(data / "raw")}))
    place = {}
    for number in range(23):
        draw(data / "raw" / f"{number}.jpg", (60 + number, 50 + 3 * number))
        for box in (None, (1, 2, 30, 40), (5, 5, 50, 45)):
            ref = ImageRef(".", f"{number}.jpg", box)
            place[text_digest(f"{number} {box}")] = ("task", ref)
    texts = [f"caption {n}" + " of a red dog" * (n % 5) for n in range(50)]
    texts.append("word " * 100)
    return Images(data), Plan({}, place, text_digests(texts), 0, 0)


def encoded(plan, model, images, folder, batch_size=16, **more):
    store = Store(folder)
    encoder = Encoder(model, images, store, batch_size, **more)
    failures = encoder.encode(plan)
    assert failures == {}
    return store, encoder


def part_of(plan, seed, share=0.4):
    """Some of a plan, in another order."""
    rng = np.random.default_rng(seed)
    places, texts = list(plan.image_place.items()), list(plan.text_key.items())
    some = [places[i] for i in rng.permutation(len(places))[: int(share * len(places))]]
    more = [texts[i] for i in rng.permutation(len(texts))[: int(share * len(texts))]]
    return Plan({}, dict(some), dict(more), 0, 0)


def same(plan, one, other) -> bool:
    images, texts = list(plan.image_place), list(plan.text_key.values())
    return np.array_equal(one.get("image", images), other.get("image", images)) and np.array_equal(
        one.get("text", texts), other.get("text", texts)
    )


@pytest.mark.parametrize("shares", [True, False])
def test_a_vector_does_not_depend_on_what_is_encoded_beside_it(tiny_clip, world, tmp_path, shares):
    images, plan = world
    model = load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu")
    if not shares:  # batches of one length then, their padding masked
        torch.manual_seed(0)
        model.model = padding_masked().eval()
    assert (model.extras.trees is not None) == shares
    whole, _ = encoded(plan, model, images, tmp_path / "whole")
    pieces = tmp_path / "pieces"
    for seed in range(4):
        encoded(part_of(plan, seed), model, images, pieces)
    mended, _ = encoded(plan, model, images, pieces)

    assert same(plan, whole, mended)


def test_shares_of_several_processes_are_the_whole_without_doubles(small, world, tmp_path):
    images, plan = world
    whole, _ = encoded(plan, small, images, tmp_path / "whole")
    for rank in range(3):
        encoded(plan, small, images, tmp_path / "shared", share=(rank, 3))
    shared = Store(tmp_path / "shared")

    assert same(plan, whole, shared)
    rows = sum(len(segment.records) for segment in shared.segments.values())
    assert rows == len(plan.image_place) + len(plan.text_key)


def test_the_second_time_nothing_is_encoded(small, world, tmp_path):
    images, plan = world
    encoded(plan, small, images, tmp_path)
    _, encoder = encoded(plan, small, images, tmp_path)

    assert encoder.calls == {"images": 0, "texts": 0}


def test_several_crops_of_one_image_are_decoded_once(small, world, tmp_path, monkeypatch):
    images, plan = world
    opened = []
    decode = module.open_rgb
    monkeypatch.setattr(module, "open_rgb", lambda *args: opened.append(1) or decode(*args))
    encoded(plan, small, images, tmp_path)

    assert len(opened) == 23
    assert len(plan.image_place) == 69


def test_vectors_are_those_of_the_models_own_transform_and_tower(small, world, tmp_path):
    images, plan = world
    store, _ = encoded(plan, small, images, tmp_path)
    pixels = torch.stack([small.preprocess(images.open(*p)) for p in plan.image_place.values()])
    with torch.no_grad():
        own = _towers.unit(small.model.encode_image(pixels)).numpy()
        texts = _towers.unit(small.model.encode_text(small.tokenizer(list(plan.text_key)))).numpy()

    assert np.abs(store.get("image", list(plan.image_place)) - own).max() < 1e-6
    assert np.abs(store.get("text", list(plan.text_key.values())) - texts).max() < 1e-6


# ---------------------------------------------------------------- memory


class Forgetful(Extras):
    """Wraps a model and is its extras: raises out-of-memory as `refuses(rows)` says."""

    def __init__(self, model, refuses):
        self.model, self.refuses, self.extras = model, refuses, self
        self.device, self.preprocess = model.device, model.preprocess
        self.rows_alike, self.pixels = model.extras.rows_alike, model.extras.pixels
        self.tokens, self.trees = model.extras.tokens, self
        self.batches = model.extras.trees.batches

    def encode_images(self, images):
        self._maybe_raise(len(images))
        return self.model.encode_images(images)

    def encode(self, texts, full):
        self._maybe_raise(len(texts))
        return self.model.extras.trees.encode(texts, full)

    def _maybe_raise(self, rows):
        if self.refuses(rows):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_memory_that_runs_out_now_and_then_changes_no_bit(small, world, tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    images, plan = world
    whole, _ = encoded(plan, small, images, tmp_path / "whole")
    rng, said = np.random.default_rng(0), []
    forgetful = Forgetful(small, lambda rows: rng.random() < 0.15)
    mended, _ = encoded(plan, forgetful, images, tmp_path / "mended", say=said.append)

    # Three failures in a row shrink a batch, and that is said; this seed has none.
    assert said == []
    assert same(plan, whole, mended)


def test_a_batch_that_never_fits_is_halved_and_said(small, world, tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    images, plan = world
    whole, _ = encoded(plan, small, images, tmp_path / "whole")
    said = []
    _, encoder = encoded(
        plan, Forgetful(small, lambda rows: rows > 4), images, tmp_path / "little", say=said.append
    )
    little = Store(tmp_path / "little")

    assert encoder.fitting["images"] == 4
    assert "images now 8 at once" in said[0]
    keys = list(plan.image_place)
    assert np.abs(whole.get("image", keys) - little.get("image", keys)).max() < 1e-6


def test_one_image_that_never_fits_is_one_line(small, world, tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    images, plan = world
    encoder = Encoder(Forgetful(small, lambda rows: True), images, Store(tmp_path), 4)

    with pytest.raises(RunError, match="out of memory with one of the images alone"):
        encoder.encode(plan)


def test_other_errors_are_not_taken_for_memory(small, world, tmp_path):
    def broken(rows):
        raise RuntimeError("shapes differ")

    images, plan = world
    with pytest.raises(RuntimeError, match="shapes differ"):
        Encoder(Forgetful(small, broken), images, Store(tmp_path), 4).encode(plan)


# ---------------------------------------------------------------- shortcuts


def tower(**text):
    return CustomTextCLIP(64, VISION, {**TEXT, **text})


def coca():
    multimodal = MultimodalCfg(context_length=76, vocab_size=49408, width=64, heads=2, layers=2)
    text = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
    vision = {**VISION, "attentional_pool": True, "output_tokens": True}
    return CoCa(64, multimodal, text, vision)


def padding_masked():
    model = tower(no_causal_mask=True)
    model.text.use_pad_mask = True
    return model


# name -> (model, whether its texts may be trimmed, whether those that begin alike may share that,
# whether its last block may be cut to one token)
TOWERS = {
    "CLIP": (lambda: CLIP(64, VISION, TEXT), True, True, True),
    "CLIP with its own text tower": (tower, True, True, True),
    "bidirectional, padding masked": (padding_masked, True, False, True),
    "bidirectional, padding read": (lambda: tower(no_causal_mask=True), False, False, True),
    "SigLIP": (
        lambda: tower(no_causal_mask=True, pool_type="last", proj_bias=True),
        False,
        False,
        True,
    ),
    "causal, last token": (lambda: tower(pool_type="last"), False, False, True),
    "CoCa": (coca, False, False, False),
    "average of the patches": (
        lambda: CLIP(64, {**VISION, "pool_type": "avg"}, TEXT),
        True,
        True,
        False,
    ),
    "layer scale, norm after pooling": (
        lambda: CLIP(64, {**VISION, "ls_init_value": 0.1, "final_ln_after_pool": True}, TEXT),
        True,
        True,
        True,
    ),
}


@pytest.mark.parametrize("name", TOWERS)
def test_shortcuts_are_taken_only_where_they_are_exact(name):
    build, trims, shares, cuts = TOWERS[name]
    torch.manual_seed(0)
    model = build().eval()
    context = 76 if name == "CoCa" else 77

    def tokenizer(texts):
        return open_clip.get_tokenizer("ViT-B-32")(texts, context_length=context)

    assert (_towers.exact_trim(model, tokenizer, "cpu") is not None) == trims
    assert (_prefixes.exact_prefixes(model, tokenizer, "cpu") is not None) == shares
    assert (_towers.exact_class_token(model, (3, 32, 32), "cpu") is not None) == cuts


def test_a_tower_that_reads_its_padding_gets_it(tiny_clip, world, tmp_path):
    images, plan = world
    model = load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu")
    torch.manual_seed(0)
    model.model = tower(no_causal_mask=True, pool_type="last").eval()
    store, _ = encoded(plan, model, images, tmp_path)
    with torch.no_grad():
        own = _towers.unit(model.model.encode_text(model.tokenizer(list(plan.text_key)))).numpy()

    assert np.abs(store.get("text", list(plan.text_key.values())) - own).max() < 1e-6


def test_a_texts_shape_is_a_function_of_its_length_alone():
    assert [bucket(n) for n in (1, 2, 3, 9, 32, 33, 47, 49, 77)] == [
        2,
        2,
        4,
        10,
        32,
        36,
        48,
        56,
        80,
    ]
    assert buckets(np.array([5, 77]), 77).tolist() == [6, 77]
    assert all(bucket(n) >= n for n in range(1, 500))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_unit_float32_near_the_whole_one(
    tiny_clip, small, world, tmp_path, precision
):
    images, plan = world
    half = load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu", precision)
    store, _ = encoded(plan, half, images, tmp_path / "half")
    whole, _ = encoded(plan, small, images, tmp_path / "whole")

    assert next(half.model.parameters()).dtype == {"bf16": torch.bfloat16}.get(
        precision, torch.float16
    )
    keys = list(plan.image_place)
    cosine = (store.get("image", keys) * whole.get("image", keys)).sum(axis=1)
    assert cosine.min() > 0.999


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_batched_normalisation_is_the_transform_bit_for_bit(mode, interpolation):
    preprocess = open_clip.image_transform(
        40, is_train=False, resize_mode=mode, interpolation=interpolation
    )
    pixels = _pixels.split(preprocess, "cpu")
    rng = np.random.default_rng(0)
    shapes = [(30, 90), (200, 41), (40, 40), (333, 500), (7, 5)]
    pictures = [Image.fromarray(rng.integers(0, 256, (*s, 3), np.uint8)) for s in shapes]
    batch = pixels.finish(np.stack([pixels.load(picture) for picture in pictures]))

    assert torch.equal(batch, torch.stack([preprocess(picture) for picture in pictures]))


def test_a_transform_that_cannot_be_split_exactly_is_used_as_it_is():
    whole = open_clip.image_transform(40, is_train=False)
    last = [transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]

    assert _pixels.split(lambda image: image, "cpu") is None
    assert _pixels.split(transforms.Compose(whole.transforms[:-1]), "cpu") is None
    grey = transforms.Compose([transforms.Grayscale(), transforms.CenterCrop(40), *last])
    assert _pixels.split(grey, "cpu") is None
    noisy = transforms.Compose([transforms.RandomCrop(30), *last])
    assert _pixels.split(noisy, "cpu") is None


def test_a_faster_decoder_gives_pillows_pixels_and_pillows_judgement(tmp_path):
    pytest.importorskip("simplejpeg")
    assert preprocess.decoder() is not None
    rng = np.random.default_rng(0)
    for mode, size in (("RGB", (61, 45)), ("L", (30, 30)), ("CMYK", (20, 33))):
        pixels = rng.integers(0, 256, (*size[::-1], len(mode)), np.uint8).squeeze()
        file = io.BytesIO()
        Image.fromarray(pixels, mode).save(file, "JPEG")
        content = file.getvalue()
        own = np.asarray(decode(content, ""))
        assert np.array_equal(np.asarray(preprocess.open_rgb(content)), own)
        for broken in (content[: len(content) // 2], content[:-40], content[:20], b"\xff\xd8\xff"):
            with pytest.raises(DataError):
                preprocess.open_rgb(broken)


def test_compiled_resizing_moves_no_vector(small, world, tmp_path, monkeypatch):
    pytest.importorskip("numba")
    images, plan = world
    whole, _ = encoded(plan, small, images, tmp_path / "whole")
    pixels = _pixels.split(small.preprocess, "cpu")
    pixels.compile()
    assert pixels.takes_arrays
    monkeypatch.setattr(small.extras, "pixels", pixels)
    compiled, _ = encoded(plan, small, images, tmp_path / "compiled")

    assert same(plan, whole, compiled)
    assert pixels.seen < 300_000  # what `split` tried, and no picture of the plan


def test_calibration_times_as_many_tokens_as_a_batch_has(small, tmp_path, monkeypatch):
    """Texts that share a beginning would make every text look cheaper than it is."""
    seen, tree = [], _prefixes.Tree.of
    monkeypatch.setattr(_prefixes.Tree, "of", lambda texts: seen.append(tree(texts)) or seen[-1])
    encoder = Encoder(small, Images(tmp_path), Store(tmp_path / "store"), 32)
    calibrate(encoder, 0.01)

    assert min(len(found.token) for found in seen[-2:]) > 0.75 * encoder.tokens


# ---------------------------------------------------------------- texts that begin alike


def test_a_tree_holds_what_texts_begin_with_alike_once():
    #      1 - 2 - 3    two texts that begin with 1 2, one that begins with 1, the last one twice
    #       \    \- 4
    #        5
    texts = [[1, 2, 3], [1, 2, 4], [1, 5], [1, 5]]
    tree = _prefixes.Tree.of([np.array(text) for text in texts])

    assert tree.token.tolist() == [1, 2, 3, 4, 5]
    assert tree.depth.tolist() == [0, 1, 2, 2, 1]
    assert tree.end.tolist() == [2, 3, 4, 4]
    for text, path in zip(texts, tree.path, strict=True):
        assert tree.token[path[: len(text)]].tolist() == text


def test_a_token_of_id_0_is_not_the_padding_of_a_shorter_text():
    ids = np.array([[1, 9, 0, 0], [1, 9, 0, 0], [1, 0, 9, 0], [1, 0, 0, 9]])
    lengths = np.array([2, 3, 3, 4])

    assert _prefixes.shared(ids, lengths).tolist() == [0, 2, 1, 2]


def test_batches_hold_as_many_nodes_as_they_are_allowed_and_every_text_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, 300)
    ids = np.where(np.arange(12) < lengths[:, None], rng.integers(1, 4, (300, 12)), 0)
    found = list(_prefixes.Prefixes.batches(ids, lengths, 64))

    assert sorted(np.concatenate(found)) == list(range(300))
    nodes = [
        len({tuple(ids[i, :n]) for i in chosen for n in range(1, lengths[i] + 1)})
        for chosen in found
    ]
    trees = [_prefixes.Tree.of([ids[i, : lengths[i]] for i in chosen]) for chosen in found]
    assert nodes == [len(tree.token) for tree in trees]
    assert max(nodes) <= 64
    assert np.mean(nodes[:-1]) > 56
    assert [list(b) for b in _prefixes.Prefixes.batches(ids[:1], lengths[:1], 1)] == [[0]]
    assert not list(_prefixes.Prefixes.batches(ids[:0], lengths[:0], 64))


def test_a_batch_of_few_texts_has_fewer_rows_only_where_that_moves_no_bit(small, monkeypatch):
    prefixes = small.extras.trees
    assert prefixes.rows(1024, 1024) == 1024
    assert prefixes.rows(1100, 1024) == 1152
    few = prefixes.rows(10, 1024)
    assert few % 128 == 0

    linear = torch.nn.functional.linear

    def jittery(x, weight, bias):  # bits that depend on the number of rows
        return linear(x, weight, bias) * (1 + 1e-6 * (len(x) % 9))

    monkeypatch.setattr(_prefixes.F, "linear", jittery)
    prefixes.known.clear()
    assert prefixes.rows(10, 1024) == 128 * 8
    prefixes.known.clear()


def test_texts_that_begin_alike_cost_their_nodes_and_get_the_towers_own_vectors(small, tmp_path):
    texts = [f"a photo of {n} dogs" + " on the grass" * (n % 20) for n in range(400)]
    plan = Plan({}, {}, text_digests(texts), 0, 0)
    store, encoder = encoded(plan, small, Images(tmp_path), tmp_path / "store", 32)
    with torch.no_grad():
        own = _towers.unit(small.model.encode_text(small.tokenizer(texts))).numpy()

    _, lengths = small.extras.tokens.ids(texts)
    assert encoder.calls["texts"] < lengths.sum() / 1024 / 1.1
    assert np.abs(store.get("text", list(plan.text_key.values())) - own).max() < 1e-6


# ---------------------------------------------------------------- exact or not, with extras or not


class Counted(Fake):
    """The fake, which notes how many rows each of its batches had."""

    def __init__(self, device="cpu", extras=True):
        super().__init__(0, extras)
        self.device, self.images, self.texts = device, [], []

    def encode_images(self, images):
        self.images.append(len(images))
        return super().encode_images(images)

    def encode(self, ids, full=0):
        self.texts.append(len(ids))
        return super().encode(ids, full)


def fake_tree_less(device="cpu"):
    model = Counted(device)
    model.trees = None
    return model


def test_the_fake_gives_one_answer_with_its_extras_and_without(world, tmp_path):
    images, plan = world
    bare = Counted(extras=False)
    stores = [
        encoded(plan, model, images, tmp_path / name)[0]
        for name, model in (("all", Counted()), ("some", fake_tree_less()), ("none", bare))
    ]

    assert same(plan, stores[0], stores[1]) and same(plan, stores[0], stores[2])
    assert bare.images == [16, 16, 16, 16, 5]  # 69 images; nothing is filled up without extras


def test_on_a_cpu_batches_are_filled_up_and_with_no_exact_they_are_not(world, tmp_path):
    images, plan = world
    exact, loose = fake_tree_less(), fake_tree_less()
    encoded(plan, exact, images, tmp_path / "exact")
    encoded(plan, loose, images, tmp_path / "loose", exact=False)

    # 69 images, and 51 texts of 2 to 12 words: 10 in each of 5 lengths and one, with 512 tokens
    # at once, and then 80, 80, 64, 48 and 32 rows where shapes count.
    assert exact.images == [16] * 5 and loose.images == [16, 16, 16, 16, 5]
    assert sum(loose.texts) == 51 and len(loose.texts) <= 2
    assert sum(exact.texts) > 200


def test_on_a_card_nothing_is_filled_up_unless_it_is_asked_for(tmp_path):
    """EuroSAT's 30 prompts with 1,024 images at once were 10,368 rows."""
    prompts = [f"a satellite photo of class {n}" + " and more" * (n % 3) for n in range(30)]
    plan = Plan({}, {}, text_digests(prompts), 0, 0)
    card, asked = fake_tree_less("card:0"), fake_tree_less("card:0")
    _, encoder = encoded(plan, card, Images(tmp_path), tmp_path / "card", 1024)
    encoded(plan, asked, Images(tmp_path), tmp_path / "asked", 1024, exact=True)

    assert not encoder.exact and card.texts == [30]
    assert sum(asked.texts) > 5_000


def test_a_compiled_tower_gets_its_one_shape_on_a_card_too(world, tmp_path):
    images, plan = world
    model = fake_tree_less("card:0")
    model.one_shape = True
    encoded(plan, model, images, tmp_path)

    assert model.images == [16] * 5 and sum(model.texts) == 51


def test_an_adapter_with_the_five_members_alone_runs_at_full_batch_on_its_device(world, tmp_path):
    images, plan = world
    shapes = []

    class Five:
        identity, device = Fake(0).identity, "card:1"
        preprocess, encode_texts = Fake(0, False).preprocess, Fake(0, False).encode_texts

        def encode_images(self, pixels):
            shapes.append(len(pixels))
            if len(pixels) > 64:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return Fake(0).encode_images(pixels)

    store, encoder = encoded(plan, Five(), images, tmp_path / "five", 0)

    assert encoder.device == "card:1" and encoder.batch == 64
    assert shapes[-2:] == [64, 5]
    assert same(plan, store, encoded(plan, Fake(0), images, tmp_path / "fake")[0])


def test_a_model_that_nobody_holds_is_gone_at_once(tiny_clip):
    """Two large models do not fit on a card: one must not wait for the garbage collector."""
    model = load_model(f"open_clip:{tiny_clip}/random?seed=0", "cpu")
    model.extras.tokens.ids(["a cat"])
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_what_open_clip_leaves_unset_of_a_coca_follows_from_the_seed():
    found = []
    for what_memory_held in (float("nan"), 6.6e35):
        model = coca()
        projection = model.text_decoder.text_projection
        torch.nn.init.constant_(projection, what_memory_held)
        torch.manual_seed(3)
        _fill_what_is_left(model)
        found.append(projection.detach().clone())
    assert torch.equal(*found)
    assert 0 < found[0].std() < 1
