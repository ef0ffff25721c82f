"""open_clip's architectures, one of each kind: the adapter gives what open_clip's own calls give.

Each is made small: its config with few layers, its image tower of timm with few channels under a
name of its own. Weights are random; nothing is fetched.
"""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.fastvit import FastVit
from timm.models.vision_transformer import VisionTransformer
from transformers import RobertaConfig

from fsc_bench.models import load_model

TEXTS = ["a dog", "two dogs and a cat beside a red ball " * 12, "Two dogs, and a cat's ball: 12!"]
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def small(build, own):
    """A constructor of timm's registry; `own`: the sizes; the rest is what open_clip asks for."""

    def make(pretrained=False, **options):
        options = {k: v for k, v in options.items() if k not in ("pretrained_cfg",) and v != ""}
        for name in ("pretrained_cfg_overlay", "cache_dir", "features_only"):
            options.pop(name, None)
        model = build(**{**own, **options})
        model.default_cfg = model.pretrained_cfg = {"pool_size": None}
        return model

    return make


TOWERS = {
    "small_siglip": small(VisionTransformer, {**VIT, "img_size": 32, "class_token": False,
                                              "global_pool": "map", "num_classes": 0}),
    "small_pe_core": small(Eva, {**VIT, "img_size": 32, "use_rot_pos_emb": True, "num_classes": 0,
                                 "attn_pool_num_heads": 2, "use_pre_transformer_norm": True,
                                 "global_pool": "map", "class_token": True, "rope_grid_offset": 1.0,
                                 "ref_feat_shape": (4, 4)}),
    "small_eva02": small(Eva, {**VIT, "img_size": 32, "use_rot_pos_emb": True, "swiglu_mlp": True,
                               "qkv_fused": False, "scale_mlp": True, "ref_feat_shape": (4, 4)}),
    "small_fastvit": small(FastVit, {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32),
                                     "mlp_ratios": (2, 2, 2, 2), "num_classes": 0,
                                     "token_mixers": ("repmixer",) * 3 + ("attention",)}),
}  # fmt: skip

TEXT = {"width": 32, "heads": 2, "layers": 2}
SIGLIP_TEXT = {"vocab_size": 64, **TEXT, "hf_tokenizer_name": "./local"}
KINDS = {
    "ViT-B-32": ({"width": 32, "layers": 2, "head_width": 16, "patch_size": 8}, TEXT),
    "ViT-B-16-SigLIP": ({"timm_model_name": "small_siglip"}, SIGLIP_TEXT),
    "ViT-B-32-SigLIP2-256": ({"timm_model_name": "small_siglip"}, SIGLIP_TEXT),
    "PE-Core-T-16-384": ({"timm_model_name": "small_pe_core"}, TEXT),
    "coca_ViT-B-32": (
        {"width": 32, "layers": 2, "head_width": 16, "patch_size": 8, "attn_pooler_heads": 2},
        TEXT,
    ),
    "ViT-L-14-CLIPA": (
        {"width": 32, "layers": 2, "head_width": 16, "patch_size": 8},
        {**SIGLIP_TEXT},
    ),
    "EVA02-B-16": ({"timm_model_name": "small_eva02"}, TEXT),
    "MobileCLIP-S1": ({"timm_model_name": "small_fastvit"}, TEXT),
    "MobileCLIP2-S0": ({"timm_model_name": "small_fastvit"}, TEXT),
    "RN50": ({"width": 8, "layers": [1, 1, 1, 1]}, TEXT),
    "roberta-ViT-B-32": (
        {"width": 32, "layers": 2, "head_width": 16, "patch_size": 8},
        {"hf_tokenizer_name": "./local", "context_length": 20},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def towers():
    for name, make in TOWERS.items():
        make.__name__, make.__module__ = name, __name__
        if not timm.is_model(name):
            register_model(make)


def tokenizer(folder) -> None:
    """A tokenizer of words in a folder, as transformers saves one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "dogs", "two", "red", "ball"]
    inner = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip


def folder_of(kind, place):
    """A folder as push_to_hf_hub writes it, of the kind's config made small."""
    image, text = KINDS[kind]
    config = open_clip.get_model_config(kind)
    config["embed_dim"] = 32
    config["vision_cfg"] |= {"image_size": 32, **image}
    config["text_cfg"] |= text
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {**TEXT, "attn_pooler_heads": 2}
    if text.get("hf_tokenizer_name"):
        tokenizer(place)
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_name"] = str(place / "tower")
        RobertaConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, pad_token_id=0,
        ).save_pretrained(place / "tower")  # fmt: skip
    whole = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (place / "open_clip_config.json").write_text(json.dumps(whole))
    torch.manual_seed(3)
    model = open_clip.create_model(f"local-dir:{place}", load_weights=False, pretrained_text=False)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim and "norm" not in name and "ln_" not in name and "bn" not in name:
                value += 0.02 * torch.randn_like(value)
            if not value.isfinite().all():  # CoCa leaves its decoder's projection as memory was
                value.normal_(std=0.02)
    state = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    save_file(state, place / "open_clip_model.safetensors")
    return state


def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, shape, np.uint8))
            for shape in ((80, 120, 3), (32, 32, 3), (40, 33, 3))]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_gives_what_open_clip_gives(kind, tmp_path):
    folder_of(kind, tmp_path)
    model = load_model(f"open_clip:{tmp_path}", "cpu")
    theirs, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{tmp_path}", pretrained_text=False
    )
    theirs = theirs.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")

    pixels = torch.stack([preprocess(one) for one in pictures()])
    with torch.no_grad():
        images = F.normalize(theirs.encode_image(pixels).float(), dim=-1)
        texts = F.normalize(theirs.encode_text(tokens(TEXTS)).float(), dim=-1)
    ours = torch.stack([model.preprocess(one) for one in pictures()])
    worst = {
        "image": (model.encode_images(ours) - images).abs().max().item(),
        "text": (model.encode_texts(TEXTS) - texts).abs().max().item(),
    }
    ids, needed = model.extras.tokens.ids(TEXTS)
    for row in range(len(TEXTS)):  # one at a time: each as short as it may be
        cut = model.extras.tokens.encode(ids[row : row + 1, : needed[row]])
        worst["text"] = max(worst["text"], (cut - texts[row]).abs().max().item())

    assert model.identity.context_length == tokens.context_length
    assert images.std() > 0.01 and (images[0] - images[1]).abs().max() > 1e-4
    assert (texts[0] - texts[1]).abs().max() > 1e-4
    assert max(worst.values()) < 1e-5, worst
