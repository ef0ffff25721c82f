"""The twelve released FSC-CLIP checkpoints: `fsc_clip:laioncoco-ViT-B-32`, `...-lora-ViT-B-32`.

From the Hub's `ytaek-oh/fsc-clip`; `fsc_clip:NAME@FILE` takes a local copy. LoRA factors are merged
with alpha / rank = 1/4, as trained. Fine-tunings of OpenAI's weights need QuickGELU, those of
DataComp's (`dcxl`) GELU: no file says so.
"""

from dataclasses import replace
from pathlib import Path

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.models import pick_device
from fsc_bench.models.checkpoints.hub import check_sum, hub_file
from fsc_bench.models.checkpoints.lora import merge_reference_lora
from fsc_bench.models.checkpoints.released import REPOSITORY, released
from fsc_bench.models.checkpoints.released import Released as Released
from fsc_bench.models.checkpoints.state import open_state
from fsc_bench.models.open_clip import OpenClip, built_in
from fsc_bench.system.spec import Spec

EXAMPLES = ("fsc_clip:laioncoco-ViT-B-32", "fsc_clip:laioncoco-ViT-B-32@FILE.pt")
BY_NAME = True


def check(spec: Spec) -> None:
    """Raises UsageError for a name that was not released and for a copy that is not there."""
    name, known = spec.rest.partition("@")[0], released()  # there are no options
    if name not in known:
        raise UsageError(
            f"model '{spec}': no such checkpoint was released."
            f"{near_miss(name, known)} There are: {', '.join(known)}."
        )
    if "@" in spec.rest and (spec.file is None or not spec.file.is_file()):
        raise UsageError(f"model '{spec}': there is no file {spec.file or 'behind the @'}.")


def load(spec: Spec, device: str, precision: str) -> OpenClip:
    check(spec)
    entry = released()[spec.rest.partition("@")[0]]
    path = spec.file or fetch(entry.file)
    notes = []
    if entry.sha256:
        check_sum(path, entry.sha256)
    else:
        notes.append(f"{entry.file}: no sha256 is published for it; taken as it is.")
    state = open_state(path)
    state = replace(state, tensors=merge_reference_lora(state.tensors))
    return built_in(
        entry.architecture, str(spec), pick_device(device), precision,
        entry.quick_gelu, state=state, notes=notes,
    )  # fmt: skip


def fetch(file: str) -> Path:
    """The file in the Hub's cache, fetched where it is not there yet. Raises DataError."""
    return hub_file(REPOSITORY, file, instead=" With a copy at hand: fsc_clip:NAME@FILE.")
