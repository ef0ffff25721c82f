"""Released: the twelve checkpoints of FSC-CLIP, as facts; nothing is loaded."""

from dataclasses import dataclass

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
