"""VisMin's benchmark in miniature: a folder of `Dataset.save_to_disk`, `data/test/*.arrow`.

The columns are image_0, text_0, image_1, text_1, id and category.
"""

from pathlib import Path

import pyarrow as pa

from fsc_bench.demo.drawing import (
    ImageFolder,
    image_table,
    picture_cell,
    stream,
    twins,
    write_json,
)

CATEGORIES = {
    "object": "reshape",
    "attribute": "recolour",
    "counting": "count",
    "relation": "swap_position",
}


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 20) -> None:
    rng = stream(seed, 43)
    rows = []
    for category, edit in CATEGORIES.items():
        for i in range(n):
            scenes, texts = twins(rng, edit)
            rows.append(
                {"image_0": picture_cell(scenes[0]), "text_0": texts[0],
                 "image_1": picture_cell(scenes[1]), "text_1": texts[1],
                 "id": f"{category}_{i}", "category": category}
            )  # fmt: skip
    table = image_table(rows, ("image_0", "image_1"))
    name = "data-00000-of-00001.arrow"
    write_json(raw / "data" / "dataset_dict.json", {"splits": ["test"]})
    write_json(raw / "data" / "test" / "state.json", {"_data_files": [{"filename": name}]})
    with (
        pa.OSFile(str(raw / "data" / "test" / name), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
