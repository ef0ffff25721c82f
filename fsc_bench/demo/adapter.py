"""The family `demo:`, registered as any other package would: by the entry point `fsc_bench.models`.

`demo:pretrained` and its like are tiny models of the demo world; they know nothing else.
"""

from fsc_bench.demo.model import WEIGHTS
from fsc_bench.demo.model import load as load_weights
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.model import Identity
from fsc_bench.models import pick_device
from fsc_bench.models.open_clip import (
    DTYPES,
    OpenClip,
    activation_of,
    describe_preprocess,
    state_digest,
)
from fsc_bench.system.spec import Spec

EXAMPLES = ("demo:pretrained", "demo:fsc-clip")
BY_NAME = True
SUITE = "demo"
ORDER = ("pretrained", "clip", "global-hn", "fsc-clip", "fsc-clip-lora")


def names() -> list[str]:
    """The shipped models, in the order of the story: what fine-tuning gains, costs and saves."""
    found = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def check(spec: Spec) -> None:
    """Raises UsageError for a model that is not shipped."""
    checkpoint = spec.rest
    if checkpoint not in names():
        hint = near_miss(checkpoint, names()) or f" There are: {', '.join(names())}."
        raise UsageError(f"model 'demo:{checkpoint}': no such model is shipped.{hint}")


def load(spec: Spec, device: str, precision: str) -> OpenClip:
    check(spec)
    checkpoint = spec.rest
    model, preprocess, tokenizer = load_weights(WEIGHTS / f"{checkpoint}.safetensors")
    model.visual.output_tokens = (
        False  # patch tokens are for training; here the pooled vector is all
    )
    identity = Identity(
        weights=state_digest(model),
        architecture="open_clip CLIP of the demo world",
        activation=activation_of(model),
        preprocess=describe_preprocess(preprocess),
        tokenizer=f"{type(tokenizer).__name__} {tokenizer.vocab_size}",
        context_length=tokenizer.context_length,
        precision=precision,
    )
    device = pick_device(device)
    model = model.to(device, DTYPES[precision])
    return OpenClip(model, preprocess, tokenizer, identity, device)
