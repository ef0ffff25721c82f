"""Winoground in miniature: `data/examples.jsonl` and `data/images.zip` (facebook/winoground)."""

from pathlib import Path

from fsc_bench.demo.drawing import ImageFolder, PictureZip, stream, twins, write_json_lines


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 200) -> None:
    rng = stream(seed, 1)
    archive = PictureZip()
    lines = []
    for i in range(n):
        kind = ("swap_colour", "swap_position", "swap_texture", "swap_size")[i % 4]
        scenes, texts = twins(rng, kind)
        for k in (0, 1):
            archive.add(scenes[k], f"images/ex_{i}_img_{k}.png")
        lines.append(
            {
                "id": i, "image_0": f"ex_{i}_img_0", "image_1": f"ex_{i}_img_1",
                "caption_0": texts[0], "caption_1": texts[1], "tag": kind, "secondary_tag": "",
                "num_main_preds": 1,
                "collapsed_tag": "Relation" if kind == "swap_position" else "Object",
            }
        )  # fmt: skip
    write_json_lines(raw / "data" / "examples.jsonl", lines)
    archive.write(raw / "data" / "images.zip")
