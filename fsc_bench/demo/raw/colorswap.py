"""ColorSwap in miniature: `data/{train,test}-*.parquet`, two pictures and a caption of each.

The columns are id, image_1, image_2, caption_1, caption_2, image_source and caption_source. The
test split alone counts.
"""

from pathlib import Path

from fsc_bench.demo.drawing import ImageFolder, picture_cell, stream, twins, write_parquet


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 60) -> None:
    rng = stream(seed, 41)
    for split, number in (("train", max(1, n // 10)), ("test", n)):
        rows = []
        for i in range(number):
            scenes, texts = twins(rng, "swap_colour")
            rows.append(
                {"id": i, "image_1": picture_cell(scenes[0]), "image_2": picture_cell(scenes[1]),
                 "caption_1": texts[0], "caption_2": texts[1],
                 "image_source": "drawn", "caption_source": "drawn"}
            )  # fmt: skip
        path = raw / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, rows, ("image_1", "image_2"))
