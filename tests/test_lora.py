"""LoRA: what it trains, that it is the merged model, and the released checkpoints' layout."""

import copy
import json
import os
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import model as clip_model

from fsc_bench.errors import FscBenchError
from fsc_bench.train.lora import (
    _LowRankLinear,
    apply_lora,
    lora_state_dict,
    merge_lora,
    merge_reference_lora,
    trainable_parameters,
)

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 100, "width": 32, "heads": 4, "layers": 2}


def tiny(kind="CLIP", **text):
    """A CLIP of two blocks a tower with random weights, its text tower's zeros filled in."""
    torch.manual_seed(0)
    model = getattr(clip_model, kind)(48, dict(VISION), TEXT | text)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model


def trained(model, seed=1):
    """The model with every factor moved, as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.normal_(std=0.1)
    return model


def inputs(dtype=torch.float32):
    torch.manual_seed(2)
    return torch.randn(3, 3, 32, 32, dtype=dtype), torch.randint(1, 100, (5, 12))


def features(model, dtype=torch.float32):
    images, texts = inputs(dtype)
    return torch.cat([model.encode_image(images), model.encode_text(texts)])


@pytest.mark.parametrize(
    ("name", "with_conv", "without"),
    [
        ("ViT-B-32", 4_141_056, 983_040),
        ("ViT-B-16", 1_772_544, 983_040),
        ("ViT-L-14", 2_967_856, 2_162_688),
    ],
)
def test_trainable_counts_of_the_released_models(name, with_conv, without):
    for patch_embedding, expected in ((True, with_conv), (False, without)):
        with torch.device("meta"):
            model = clip_model.CLIP(**open_clip.get_model_config(name))
        apply_lora(model, rank=4, patch_embedding=patch_embedding)
        assert sum(p.numel() for p in trainable_parameters(model).values()) == expected
        assert set(trainable_parameters(model)) == set(lora_state_dict(model))


def test_names_and_shapes_are_those_of_the_released_checkpoints():
    folder = os.environ.get("FSC_BENCH_REAL_DATA")
    if not folder:
        pytest.skip("FSC_BENCH_REAL_DATA names no folder with fscclip_checkpoint_keys.json")
    keys = json.loads((Path(folder) / "fscclip_checkpoint_keys.json").read_text())
    with torch.device("meta"):
        model = clip_model.CLIP(**open_clip.get_model_config("ViT-B-32"))
    assert shapes(model.state_dict()) == keys["ViT-B-32_base_keys"]
    apply_lora(model)
    assert shapes(lora_state_dict(model)) == keys["ViT-B-32_lora_keys"]
    assert shapes(lora_state_dict(model))["visual.conv1.lora_B"] == [24576, 128]
    saved_under_ddp = {f"module.{key}": value for key, value in model.state_dict().items()}
    merged = merge_reference_lora(saved_under_ddp)
    assert shapes(merged) == keys["ViT-B-32_base_keys"]


def shapes(state):
    return {key: list(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_it_starts_as_the_model_it_was(kind):
    model = tiny(kind)
    before = features(model).detach()
    apply_lora(model)
    torch.testing.assert_close(features(model), before, rtol=0, atol=1e-6)


def test_the_references_init_does_not():
    model = tiny()
    before = features(model).detach()
    apply_lora(model, init="reference")
    assert (features(model) - before).abs().max() > 1e-3
    moved = {key for key, value in lora_state_dict(model).items() if key[-1] == "B" and value.any()}
    assert moved == {key for key in lora_state_dict(model) if key.endswith("in_proj_weight_lora_B")}


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_merged_equals_parametrised(kind, dtype, within):
    model = trained(apply_lora(tiny(kind).to(dtype), rank=3, alpha=2.0))
    before = features(model, dtype).detach()
    plain = tiny(kind).to(dtype)
    state = merge_reference_lora(model.state_dict(), alpha=2.0)
    plain.load_state_dict(state, strict=True)
    names = [(name, type(module)) for name, module in plain.named_modules()]
    merge_lora(model)
    assert [(name, type(module)) for name, module in model.named_modules()] == names
    assert list(model.state_dict()) == list(plain.state_dict())
    assert not lora_state_dict(model) and not trainable_parameters(model)
    scale = before.abs().max()
    for one in (model, plain):
        assert (features(one, dtype) - before).abs().max() / scale < within


@pytest.mark.parametrize("text", [{}, {"embed_cls": True}])
def test_gradients_are_those_of_autograd_through_the_merged_weights(text):
    model = trained(apply_lora(tiny("CustomTextCLIP", **text).double(), rank=2))
    plain = tiny("CustomTextCLIP", **text).double()
    factors = {
        key: value.detach().clone().requires_grad_()
        for key, value in lora_state_dict(model).items()
    }
    state = merge_reference_lora({**plain.state_dict(), **factors})
    (features(model, torch.float64) ** 2).sum().backward()
    got = torch.func.functional_call(_Features(plain), {f"model.{k}": v for k, v in state.items()})
    (got**2).sum().backward()
    for name, parameter in trainable_parameters(model).items():
        scale = factors[name].grad.abs().max()
        assert (parameter.grad - factors[name].grad).abs().max() / scale < 1e-10, name


@pytest.mark.parametrize("rows", [1, 20, 2000])
def test_few_rows_and_many_give_what_the_merged_weight_gives(rows):
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 32).double(), torch.randn(48).double()
    a, b = (torch.randn(*shape).double().requires_grad_() for shape in ((4, 32), (48, 4)))
    x = torch.randn(rows, 1, 32).double().requires_grad_()
    noise = torch.randn(rows, 1, 48).double()
    got = _LowRankLinear.apply(x, weight, bias, a, b, 0.5)
    found = torch.autograd.grad((got * noise).sum(), (x, a, b))
    expected = F.linear(x, weight + 0.5 * b @ a, bias)
    wanted = torch.autograd.grad((expected * noise).sum(), (x, a, b))

    for one, other in zip((got, *found), (expected, *wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


class _Features(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self):
        return features(self.model, torch.float64)


def test_only_the_factors_train_and_the_base_never_moves():
    model = apply_lora(tiny())
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-2)
    losses = []
    for _ in range(8):
        images, texts = inputs()
        loss = F.mse_loss(model.encode_image(images).mean(0), model.encode_text(texts).mean(0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    moved = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert moved == set(lora_state_dict(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_gradients_stay_float32_and_close(dtype):
    model = trained(apply_lora(tiny()))
    exact = torch.autograd.grad(
        (features(model) ** 2).sum(), list(trainable_parameters(model).values())
    )
    with torch.autocast("cpu", dtype=dtype):
        loss = (features(model).float() ** 2).sum()
    got = torch.autograd.grad(loss, list(trainable_parameters(model).values()))
    for one, other in zip(got, exact, strict=True):
        assert one.dtype == torch.float32
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


def test_backward_keeps_no_more_than_full_fine_tuning():
    def saved(model):
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features(model)
        weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
        return sum(size for where, (size, _) in kept.items() if where not in weights)

    full = tiny()
    assert saved(apply_lora(copy.deepcopy(full), patch_embedding=False)) <= saved(full)


def test_merging_the_checkpoint_of_a_half_precision_model_rounds_once():
    weight, a, b = torch.randn(6, 4).half(), torch.randn(2, 4).half(), torch.randn(6, 2).half()
    state = {"fc.weight": weight, "fc.lora_A": a, "fc.lora_B": b}
    merged = merge_reference_lora(state)["fc.weight"]
    assert merged.dtype == torch.float16
    assert merged.equal((weight.float() + 0.5 * b.float() @ a.float()).half())


def test_a_checkpoint_without_factors_comes_back_as_it_was():
    state = {"module.fc.weight": torch.randn(2, 2), "module.logit_scale": torch.tensor(1.0)}
    merged = merge_reference_lora(state)
    assert list(merged) == ["fc.weight", "logit_scale"]
    assert merged["fc.weight"] is state["module.fc.weight"]


@pytest.mark.parametrize("gone", ["fc.lora_A", "fc.lora_B", "fc.weight"])
def test_a_checkpoint_with_half_a_factor_is_refused(gone):
    state = {"fc.weight": torch.ones(2, 2), "fc.lora_A": torch.ones(1, 2)}
    state["fc.lora_B"] = torch.ones(2, 1)
    del state[gone]
    with pytest.raises(FscBenchError, match=f"no {gone}: it is not whole"):
        merge_reference_lora(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "LoRA rank 0: a rank is at least 1"),
        ({"rank": -4}, "LoRA rank -4"),
        ({"alpha": 0.0}, r"LoRA alpha 0\.0"),
        ({"init": "xavier"}, "no LoRA init called 'xavier'"),
    ],
)
def test_wrong_settings_are_one_line(arguments, message):
    model = tiny()
    with pytest.raises(FscBenchError, match=message) as caught:
        apply_lora(model, **arguments)
    assert "\n" not in str(caught.value)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_second_lora_and_unknown_towers_are_refused():
    with pytest.raises(FscBenchError, match="has LoRA already"):
        apply_lora(apply_lora(tiny()))
    with pytest.raises(FscBenchError, match="image tower ModifiedResNet"):
        apply_lora(clip_model.CLIP(48, VISION | {"layers": [1, 1, 1, 1]}, TEXT))


def test_it_copies_and_pickles(tmp_path):
    model = trained(apply_lora(tiny()))
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for one in (copy.deepcopy(model), loaded):
        torch.testing.assert_close(features(one), features(model), rtol=0, atol=0)
