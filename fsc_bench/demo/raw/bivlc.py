"""BiVLC in miniature: `data/test-*.parquet`, two pictures and a caption of each in every row.

The columns are image, caption, negative_caption, negative_image, type and subtype.
"""

from pathlib import Path

from fsc_bench.demo.drawing import ImageFolder, picture_cell, stream, twins, write_parquet

KINDS = {
    ("replace", "obj"): "reshape",
    ("replace", "att"): "recolour",
    ("replace", "rel"): "move",
    ("swap", "obj"): "swap_position",
    ("swap", "att"): "swap_colour",
    ("add", "obj"): "count",
    ("add", "att"): "retexture",
}


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 12) -> None:
    rng = stream(seed, 40)
    rows = []
    for (kind, part), edit in KINDS.items():
        for _ in range(n):
            (scene, other), (text, foil) = twins(rng, edit)
            rows.append(
                {"image": picture_cell(scene), "caption": text, "negative_caption": foil,
                 "negative_image": picture_cell(other), "type": kind, "subtype": part}
            )  # fmt: skip
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        name = f"test-{number:05d}-of-00002.parquet"
        write_parquet(raw / "data" / name, part, ("image", "negative_image"))
