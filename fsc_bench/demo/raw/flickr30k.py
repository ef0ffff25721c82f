"""Flickr30k in miniature: `flickr30k_test.json` as BLIP published it; images in flickr30k."""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    captioned,
    image_number,
    stream,
    write_json,
)


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 200) -> None:
    rng = stream(seed, 12)
    store = PictureFolder(images("flickr30k"))
    rows = []
    said: set[tuple[str, ...]] = set()
    for i in range(n):
        scene, captions = captioned(rng, 5, said)
        name = store.add(scene, f"{image_number(seed, 12, i)}.jpg")
        rows.append({"image": f"flickr30k-images/{name}", "caption": captions})
    write_json(raw / "flickr30k_test.json", rows)
