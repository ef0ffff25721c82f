"""Parts of an open_clip model, found in one place: its classes keep them under different names."""

from torch import Tensor, nn


def logit_bias(model: nn.Module) -> Tensor | None:
    """SigLIP's bias; None for a model of CLIP's softmax."""
    return getattr(model, "logit_bias", None)


def visual(model: nn.Module) -> nn.Module | None:
    """The image tower."""
    return getattr(model, "visual", None)


def text_home(model: nn.Module) -> nn.Module:
    """What has the parts of the text tower: CLIP itself, or the tower that other classes have."""
    return getattr(model, "text", model)


def text_tower(model: nn.Module) -> nn.Module | None:
    """The text tower as a module of its own; of CLIP its transformer."""
    return getattr(model, "text", None) or getattr(model, "transformer", None)


def text_pool(model: nn.Module) -> str:
    """Which token a text's vector is taken from, as open_clip calls it; "" where it does not say.

    CLIP and TextTransformer have two names for it.
    """
    home = text_home(model)
    return getattr(home, "pool_type", "") or getattr(home, "text_pool_type", "")


def is_clip(model: nn.Module) -> bool:
    """Whether it is CLIP, with the parts of its text tower in itself."""
    return text_home(model) is model and hasattr(model, "token_embedding")


def lacks(model: nn.Module) -> str:
    """What an open_clip dual encoder has and this has not; "" if nothing."""
    needed = ("visual", "encode_text", "logit_scale")
    return next((part for part in needed if not hasattr(model, part)), "")


def says_itself(model: nn.Module) -> bool:
    """Whether its towers say themselves what their tokens are (models/trainable)."""
    return hasattr(visual(model), "with_tokens") and hasattr(text_home(model), "with_tokens")


def left_alone(model: nn.Module) -> str:
    """What becomes of its parts that no loss reaches, in words; "" where it does not say."""
    return getattr(model, "left_alone", "")


def writes_texts(model: nn.Module) -> bool:
    """Whether it also has a decoder of texts, as CoCa has."""
    return hasattr(model, "text_decoder")
