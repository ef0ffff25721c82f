"""One small architecture of each kind that open_clip builds, by name, for tests to train."""

import json
from pathlib import Path

VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32,
          "patch_size": None}  # fmt: skip
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
FAMILIES = {
    "tiny-vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-resnet": {"vision_cfg": RESNET, "text_cfg": TEXT},
    "tiny-custom": {"vision_cfg": VIT, "text_cfg": TEXT, "custom_text": True},
    "tiny-coca": {
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2,
                       "output_tokens": True},
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 2},
        "custom_text": True,
    },
    "tiny-sigmoid": {
        "vision_cfg": {**VIT, "pool_type": "avg"},
        "text_cfg": {**TEXT, "context_length": 16, "no_causal_mask": True, "pool_type": "last",
                     "proj_bias": True},
        "custom_text": True,
        "init_logit_scale": 4.762,  # 117
        "init_logit_bias": -12.9,
    },
    "tiny-map": {
        "embed_dim": 64,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none",
                       "image_size": 32},
        "text_cfg": {**TEXT, "context_length": 16, "no_causal_mask": True, "pool_type": "last",
                     "proj_bias": True},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    "tiny-mobile": {
        "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_pool": "avg",
                       "timm_proj": "linear", "image_size": 64},
        "text_cfg": TEXT,
        "custom_text": True,
    },
}  # fmt: skip


def register(folder: Path) -> None:
    """Makes the architectures known to open_clip in this process."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    for name, config in FAMILIES.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 24, **config}))
    open_clip.add_model_config(folder)
