"""Kinds: what is particular to each dual encoder of transformers, by the `model_type` of its
config. Another one is another entry of `KINDS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsc_bench.models.pretrained.blip_towers import BlipTrainable

Features = Callable[[Any, Mapping[str, Tensor]], Tensor]


def _pooled(found: Any) -> Tensor:
    """[n, d] of what `get_*_features` gives: since transformers 5 an output whose pooler_output is
    the projected vector.
    """
    return found.pooler_output


def _first_token(found: Any) -> Tensor:
    """[n, d] of an output whose pooler_output is every token's projected vector [n, length, d]."""
    return found.pooler_output[:, 0]


def _image_features(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    return _pooled(model.get_image_features(**given))


def _text_features(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    return _pooled(model.get_text_features(**given))


@dataclass(frozen=True)
class Kind:
    """How a model type is used.

    classes: those of transformers that can be used, the one meant where a config names none first.
    Class -> the part of it that is the dual encoder; nothing: the whole.
    filled: texts are filled up to the whole context and the filling is read, so no mask is given.
    lower: texts are lower-cased, whatever the tokenizer does. context: tokens that the authors
    train and test with, where the config and the tokenizer would allow more.
    packed: images are patches, a mask and a grid, not a picture of one shape. any_size: its image
    tower has no positions and takes pictures of any size.
    images, texts: (model, inputs) -> vectors [n, d], or [n, k, d] of an image, of any length.
    trainable: makes what the trainer takes (models/trainable) of the classes `trained`.
    """

    classes: Mapping[str, str]
    filled: bool = False
    lower: bool = False
    context: int = 0
    packed: bool = False
    any_size: bool = False
    images: Features = _image_features
    texts: Features = _text_features
    text_config: str = "text_config"
    single: tuple[str, ...] = ()  # parts that stay in float32, as transformers keeps them
    offset: bool = False  # the first positions belong to the filling, as in RoBERTa
    many: bool = False  # an image has several vectors; the best of them counts
    trainable: Callable[..., Any] | None = None
    trained: tuple[str, ...] = ()


def _blip_images(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    if hasattr(model, "get_image_features"):
        return _image_features(model, given)
    return model.vision_proj(model.vision_model(**given).last_hidden_state[:, 0])


def _blip_texts(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    if hasattr(model, "get_text_features"):
        return _text_features(model, given)
    return model.text_proj(model.text_encoder(**given).last_hidden_state[:, 0])


def _blip_2_images(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    """[n, queries, d]: one vector for each query token of the Q-Former."""
    seen = model.vision_model(**given).last_hidden_state
    found = model.qformer(
        query_embeds=model.query_tokens.expand(len(seen), -1, -1),
        encoder_hidden_states=seen,
        encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
    )
    states = found.last_hidden_state.to(model.vision_projection.weight.dtype)
    return model.vision_projection(states)


def _blip_2_texts(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    found = model.qformer(
        query_embeds=model.embeddings(input_ids=given["input_ids"]),
        query_length=0,
        attention_mask=given["attention_mask"],
    )
    states = found.last_hidden_state.to(model.text_projection.weight.dtype)
    return model.text_projection(states[:, 0])


KINDS = {
    "clip": Kind({"CLIPModel": ""}),
    "metaclip_2": Kind({"MetaClip2Model": ""}),
    "siglip": Kind({"SiglipModel": ""}, filled=True, lower=True),  # SigLIP 2 of a fixed size too
    "siglip2": Kind({"Siglip2Model": ""}, filled=True, lower=True, packed=True),
    "align": Kind({"AlignModel": ""}, context=64, any_size=True),  # AlignProcessor's own length
    "altclip": Kind({"AltCLIPModel": ""}, offset=True),
    "chinese_clip": Kind({"ChineseCLIPModel": ""}, context=52),  # github.com/OFA-Sys/Chinese-CLIP
    "flava": Kind(
        {"FlavaModel": "", "FlavaForPreTraining": "flava"},
        context=77,  # facebookresearch/multimodal, zero-shot classification of FLAVA
        images=lambda model, given: _first_token(model.get_image_features(**given)),
        texts=lambda model, given: _first_token(model.get_text_features(**given)),
    ),
    "blip": Kind(
        {"BlipForImageTextRetrieval": "", "BlipModel": ""},
        images=_blip_images,
        texts=_blip_texts,
        trainable=BlipTrainable,
        trained=("BlipForImageTextRetrieval",),
    ),
    "blip-2": Kind(
        {"Blip2ForImageTextRetrieval": ""},
        images=_blip_2_images,
        texts=_blip_2_texts,
        text_config="qformer_config",
        single=("query_tokens", "qformer"),
        many=True,
    ),
}
