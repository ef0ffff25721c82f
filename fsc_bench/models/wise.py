"""WiSE-FT (arXiv 2109.01903): `wise:A+B?alpha=0.5` is (1 - alpha) A + alpha B, weight by weight.

alpha = 0 is A, 1 is B. It is linear in the weights for LoRA runs too, which are loaded merged; the
paper's code scales both factors by alpha, so that its alpha is the square root of this one.
"""

import torch

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.models import check_named, families, load_model, pick_device
from fsc_bench.models.open_clip import OpenClip
from fsc_bench.models.run import in_precision, with_weights
from fsc_bench.system.spec import Spec

EXAMPLES = ("wise:open_clip:ViT-B-32-quickgelu/openai+run:trained/fsc-clip?alpha=0.5",)


def check(spec: Spec) -> None:
    """Raises UsageError for what is wrong with the name of either model; no weights are read."""
    first, second, _ = read_spec(spec.rest)
    check_named(first)
    check_named(second)


def load(spec: Spec, device: str, precision: str) -> OpenClip:
    first, second, alpha = read_spec(spec.rest)
    device = pick_device(device)
    start = load_model(first, device, "fp32")
    end = load_model(second, device, "fp32")
    for adapter, name in ((start, first), (end, second)):
        if not isinstance(adapter, OpenClip):
            raise UsageError(f"model '{spec}': the weights of {name} cannot be mixed.")
    a, b = start.model.state_dict(), end.model.state_dict()
    same = a.keys() == b.keys() and all(a[name].shape == b[name].shape for name in a)
    if not same or start.identity.activation != end.identity.activation:
        raise UsageError(
            f"model '{spec}': {first} ({start.identity.architecture}, "
            f"{start.identity.activation}) and {second} ({end.identity.architecture}, "
            f"{end.identity.activation}) are different architectures."
        )
    mixed = {
        name: torch.lerp(a[name], b[name], alpha) if a[name].is_floating_point() else a[name]
        for name in a
    }
    notes = dict.fromkeys((*start.extras.notes, *end.extras.notes))
    if start.identity.preprocess != end.identity.preprocess:
        notes[f"{first} and {second} prepare images differently; the second's way is used."] = None
    mixture = with_weights(end, mixed, str(spec))
    mixture.extras.notes = tuple(notes)
    return in_precision(mixture, precision)


def read_spec(checkpoint: str) -> tuple[str, str, float]:
    """`A+B?alpha=0.5` as (A, B, 0.5); A and B are model specs, options of their own included."""
    both, mark, number = checkpoint.rpartition("?alpha=")
    usage = f"model 'wise:{checkpoint}': write wise:FAMILY:A+FAMILY:B?alpha=0.5."
    if not mark:
        both, number = checkpoint, "0.5"
    try:
        alpha = float(number)
    except ValueError:
        raise UsageError(usage) from None
    if not 0 <= alpha <= 1:
        raise UsageError(f"model 'wise:{checkpoint}': alpha must be within 0 and 1.")
    known = families()
    parts = both.split("+")
    for cut in range(1, len(parts)):
        first, second = "+".join(parts[:cut]), "+".join(parts[cut:])
        names = Spec.read(first), Spec.read(second)
        if all(name.kind in known and name.rest for name in names):
            return first, second, alpha
    kinds = [Spec.read(part).kind for part in parts]
    strange = [kind for kind in kinds if kind not in known]
    hints = [near_miss(name, known) for name in strange]
    raise UsageError(usage + next(filter(None, hints), ""))
