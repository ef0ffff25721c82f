"""The twelve released FSC-CLIP checkpoints: `fsc_clip:laioncoco-ViT-B-32`, `...-lora-ViT-B-32`.

From the Hub's `ytaek-oh/fsc-clip`; `fsc_clip:NAME@FILE` takes a local copy. LoRA factors are merged
with alpha / rank = 1/4, as trained. Fine-tunings of OpenAI's weights need QuickGELU, those of
DataComp's (`dcxl`) GELU: no file says so.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.models import pick_device
from fsc_bench.models.checkpoints.hub import hub_file
from fsc_bench.models.checkpoints.lora import merge_reference_lora
from fsc_bench.models.checkpoints.state import open_state
from fsc_bench.models.open_clip import OpenClip, built_in
from fsc_bench.system.spec import Spec

EXAMPLES = ("fsc_clip:laioncoco-ViT-B-32", "fsc_clip:laioncoco-ViT-B-32@FILE.pt")

REPOSITORY = "ytaek-oh/fsc-clip"


@dataclass(frozen=True)
class Released:
    """A released file; sha256 is empty where nobody has published it."""

    file: str
    architecture: str
    quick_gelu: bool
    sha256: str = ""


SHA256 = {
    "laioncoco-ViT-B-32": "808712c5c411fd321752e821fff6e7f9f28d76b74e542f47044f8465e94f1596",
    "coco-ViT-B-32": "976e43d733d565e67f8857a468f72ac0d7a44aa94390b240fc37621cbdbf136c",
    "laioncoco-ViT-B-16": "a068362b67ebdc62ddfd7b37de797d3df2ea7ba31327ef41b943b57e6885483f",
    "laioncoco-lora-ViT-L-14": "f1806d37520c93333dd899f58b6a1c18b795d7f07dfd176904011f18dd23d3ec",
}


def released() -> dict[str, Released]:
    """Every checkpoint by its name here."""
    found = {}
    for data, towers in (
        ("coco", ["ViT-B-32"]),
        ("cc3m", ["ViT-B-32"]),
        ("laioncoco", ["ViT-B-32", "ViT-B-16", "ViT-L-14"]),
        ("dcxl", ["ViT-B-32"]),
    ):
        for tower in towers:
            for kind in ("", "-lora"):
                name = f"{data}{kind}-{tower}"
                quick = data != "dcxl"
                found[name] = Released(
                    f"{data}_fsc-clip{kind}-{tower}.pt",
                    f"{tower}-quickgelu" if quick else tower,
                    quick,
                    SHA256.get(name, ""),
                )
    return found


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
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.sha256:
            raise DataError(
                f"{path}: its sha256 is {found}, the released file's {entry.sha256}. Delete it."
            )
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
