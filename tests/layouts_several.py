"""Layouts of pictures with several labels (VOC 2007) and with captions (retrieval)."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from layouts import FSC, encoded, layout, write, write_all, write_zip
from tars import write_tar

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

# ---------------------------------------------------------------- VOC 2007

CLASSES = FSC["voc2007"].classes


def voc_files(pictures, lists: bool) -> dict[str, bytes]:
    """Every picture also shows a difficult sheep or, where it shows one, nothing more."""
    sheep = CLASSES.index("sheep")
    names = [f"{number:06d}" for number in range(1, len(pictures) + 1)]
    files = {"ImageSets/Main/test.txt": "\n".join(names).encode()}
    for name, one in zip(names, pictures, strict=True):
        difficult = {sheep} - set(one.places)
        objects = "".join(
            f"<object><name>{CLASSES[place]}</name><difficult>{int(place in difficult)}</difficult>"
            "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            for place in (*one.places, *difficult)
        )
        text = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        files |= {f"JPEGImages/{name}.jpg": one.png, f"Annotations/{name}.xml": text.encode()}
    for place, word in enumerate(CLASSES) if lists else ():
        flags = [1 if place in one.places else 0 if place == sheep else -1 for one in pictures]
        lines = [f"{name} {flag:2d}" for name, flag in zip(names, flags, strict=True)]
        files[f"ImageSets/Main/{word}_test.txt"] = "\n".join(lines).encode()
    return files


def _torchvision_voc(folder):
    from torchvision.datasets import VOCDetection

    found = []
    for picture, about in VOCDetection(str(folder), year="2007", image_set="test"):
        things = about["annotation"]["object"]
        found.append((picture, [one["name"] for one in things if one["difficult"] == "0"]))
    return found


@layout("voc2007", "torchvision's folder", theirs=_torchvision_voc)
def voc(folder, pictures):
    write_all(folder / "VOCdevkit" / "VOC2007", voc_files(pictures, True))


@layout("voc2007", "the devkit without its lists")
def voc_xml(folder, pictures):
    write_all(folder / "VOC2007", voc_files(pictures, False))


@layout("voc2007", "its tar as it comes", refused="tar -xf VOCtest_06-Nov-2007.tar")
def voc_tar(folder, pictures):
    files = voc_files(pictures, True)
    files = {f"VOCdevkit/VOC2007/{name}": content for name, content in files.items()}
    return write_tar(folder / "VOCtest_06-Nov-2007.tar", files)


@layout("voc2007", "CLIP_benchmark's tars")
def voc_wds(folder, pictures):
    members = {}
    for number, one in enumerate(pictures):
        vector, buffer = np.zeros(len(CLASSES), np.int64), io.BytesIO()
        vector[list(one.places)] = 1
        np.save(buffer, vector)
        members[f"s{number:07d}.webp"] = encoded(one.picture, "WEBP")
        members[f"s{number:07d}.npy"] = buffer.getvalue()
    write_tar(folder / "test" / "0.tar", members)
    write(folder / "test" / "nshards.txt", "1")
    write(folder / "classnames.txt", "\n".join(CLASSES))
    write(folder / "dataset_type.txt", "multilabel")


def cells(pictures) -> pa.Array:
    return pa.array([{"bytes": one.png, "path": "x.png"} for one in pictures], IMAGE)


@layout("voc2007", "Parquet of the Hub")
def voc_parquet(folder, pictures):
    table = {"image": cells(pictures), "classes": [list(one.places) for one in pictures]}
    pq.write_table(pa.table(table), folder / "test-00000-of-00001.parquet")


# ---------------------------------------------------------------- captions

COCO, FLICKR, BOTH = "coco_karpathy", "flickr30k", ["coco_karpathy", "flickr30k"]


def is_coco(pictures) -> bool:
    return pictures[0].name.startswith("COCO")


def pictures_of(folder: Path, pictures, prefix: str = "") -> None:
    for one in pictures:
        write(folder / f"{prefix}{one.name}", one.png)


def usual_pictures(folder: Path, pictures) -> dict[str, Path]:
    """The pictures as their owners give them out; the links."""
    if is_coco(pictures):
        pictures_of(folder / "val2014", pictures)
        return {COCO: folder, "coco/val2014": folder / "val2014"}
    pictures_of(folder / "flickr30k-images", pictures)
    return {FLICKR: folder}


def blip(pictures) -> str:
    place = "val2014/" if is_coco(pictures) else "flickr30k-images/"
    rows = [{"image": f"{place}{one.name}", "caption": one.captions} for one in pictures]
    return json.dumps(rows)


@layout(BOTH, "BLIP's JSON, pictures in their folder")
def of_blip(folder, pictures):
    name = "coco_karpathy_test.json" if is_coco(pictures) else "flickr30k_test.json"
    write(folder / name, blip(pictures))
    return usual_pictures(folder, pictures)


def karpathy(pictures) -> str:
    """With a picture for training before the first."""
    rows = []
    for number, one in enumerate([pictures[0], *pictures]):
        row = {
            "filename": one.name if number else "train.jpg",
            "split": "test" if number else "restval",
            "sentences": [{"raw": text, "tokens": text.split()} for text in one.captions],
            "imgid": number,
        }
        rows.append({"filepath": "val2014", **row} if is_coco(pictures) else row)
    return json.dumps({"images": rows, "dataset": "coco"})


@layout(BOTH, "Karpathy's own JSON")
def of_karpathy(folder, pictures):
    name = "dataset_coco.json" if is_coco(pictures) else "dataset_flickr30k.json"
    write(folder / name, karpathy(pictures))
    return usual_pictures(folder, pictures)


@layout(COCO, "Karpathy's JSON, linked itself")
def json_linked(folder, pictures):
    links = usual_pictures(folder, pictures)
    path = write(folder / "elsewhere" / "dataset_coco.json", "\ufeff" + karpathy(pictures))
    return {**links, COCO: path}


def coco_json(pictures) -> str:
    images = [{"id": 7 * n, "file_name": one.name} for n, one in enumerate(pictures)]
    notes = [
        {"id": place, "image_id": 7 * n, "caption": one.captions[place]}
        for place in (0, 1)
        for n, one in enumerate(pictures)
    ]
    return json.dumps({"info": {}, "images": images, "annotations": notes})


@layout(COCO, "coco_test_karpathy.json of CLIP_benchmark")
def of_coco(folder, pictures):
    write(folder / "coco_test_karpathy.json", coco_json(pictures))
    return usual_pictures(folder, pictures)


@layout(COCO, "captions_val2014.json alone", refused="does not say which 7 of them are the split")
def whole_coco(folder, pictures):
    more = [
        *pictures,
        *(type(one)(f"more{one.name}", one.captions, one.picture) for one in pictures),
    ]
    write(folder / "annotations" / "captions_val2014.json", coco_json(more))
    return usual_pictures(folder, pictures)


@layout(COCO, "the folder of all COCO, pictures in images/")
def coco_root(folder, pictures):
    write(folder / "annotations" / "coco_karpathy_test.json", blip(pictures))
    pictures_of(folder / "images" / "val2014", pictures)
    return {COCO: folder, "coco/val2014": folder}


@layout(COCO, "val2014.zip as it comes")
def coco_zip(folder, pictures):
    write(folder / "coco_karpathy_test.json", blip(pictures))
    files = {f"val2014/{one.name}": one.png for one in pictures}
    return {COCO: folder, "coco/val2014": write_zip(folder / "val2014.zip", files)}


def table(pictures, columns: tuple[str, str], a_caption_a_row: bool, mark: str = ",") -> str:
    text = io.StringIO()
    out = csv.writer(text, delimiter=mark)
    out.writerow(columns)
    for one in pictures:
        for caption in one.captions if a_caption_a_row else [json.dumps(one.captions)]:
            out.writerow([one.name, caption] if columns[0] != "raw" else [caption, one.name])
    return text.getvalue()


@layout(FLICKR, "CLIP_benchmark's CSV, its parent folder linked")
def of_clip_benchmark(folder, pictures):
    base = folder / "flickr30k"
    write(base / "flickr30k_test_karpathy.txt", table(pictures, ("image", "caption"), True))
    pictures_of(base / "Images", pictures)
    return {FLICKR: base}


@layout(FLICKR, "a mirror's zip and CSV")
def of_mirror(folder, pictures):
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(["raw", "sentids", "split", "filename", "img_id"])
    out.writerow([json.dumps(["for training"]), "[0]", "train", "1.jpg", 0])
    for number, one in enumerate(pictures):
        out.writerow([json.dumps(one.captions), "[1]", "test", one.name, number])
    write(folder / "flickr_annotations_30k.csv", text.getvalue())
    files = {f"flickr30k-images/{one.name}": one.png for one in pictures}
    write_zip(folder / "flickr30k-images.zip", files)
    return {FLICKR: folder}


@layout(FLICKR, "Kaggle's results.csv of all pictures", refused="does not say which 7 of them are")
def of_kaggle(folder, pictures):
    lines = ["image_name| comment_number| comment"]
    for number in range(8):
        lines += [f"{number}.jpg| {place}| a caption" for place in range(5)]
    write(folder / "results.csv", "\n".join(lines))
    pictures_of(folder / "flickr30k_images" / "flickr30k_images", pictures)
    return {FLICKR: folder}


@layout(BOTH, "Parquet with the pictures, all splits")
def of_parquet(folder, pictures):
    rows = [pictures[0], *pictures]
    columns = {
        "image": cells(rows), "caption": [one.captions for one in rows],
        "split": ["train", *["test"] * len(pictures)], "filename": [one.name for one in rows],
    }  # fmt: skip
    path = folder / "TEST" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path)
    return {COCO if is_coco(pictures) else FLICKR: folder}


@layout(BOTH, "CLIP_benchmark's tars")
def of_tars(folder, pictures):
    members = {}
    for number, one in enumerate(pictures):
        members[f"s{number:07d}.webp"] = encoded(one.picture, "WEBP")
        members[f"s{number:07d}.txt"] = "\n".join(one.captions).encode()
    write_tar(folder / "test" / "0.tar", members)
    write(folder / "test" / "nshards.txt", "1")
    write(folder / "dataset_type.txt", "retrieval")
    return {COCO if is_coco(pictures) else FLICKR: folder}


@layout(FLICKR, "the pictures in a zip alone", refused="and no captions that can be read")
def pictures_alone(folder, pictures):
    files = {f"flickr30k-images/{one.name}": one.png for one in pictures}
    write_zip(folder / "flickr30k.zip", files)
    return {FLICKR: folder}


# ---------------------------------------------------------------- COCO-Counterfactuals


def twins(folder: Path, pictures) -> None:
    """Pairs of pictures; of the last only the first counts."""
    rows, split = {}, ["image_path,caption"]
    for number, one in enumerate(pictures):
        pair, k = f"{number // 2}_1", number % 2
        row = rows.setdefault(pair, {"id": pair, "caption_1": "not asked", "image_1": "x"})
        row |= {f"caption_{k}": one.captions[0], f"image_{k}": one.name}
        kind = ("original", "counterfactual")[k]
        text = one.captions[0].replace('"', '""')
        split.append(f'syn/synthetic-images-for-{kind}-captions/{pair}.jpg,"{text}"')
    write(folder / "examples.jsonl", "\n".join(map(json.dumps, rows.values())))
    write(folder / "test-coco-cfs.csv", "\n".join(split))


@layout("coco_counterfactuals", "as published, the pictures in their zip")
def counterfactuals(folder, pictures):
    twins(folder / "data", pictures)
    write_zip(folder / "data" / "images.zip", {f"{one.name}.jpg": one.png for one in pictures})


@layout("coco_counterfactuals", "unpacked, a Mac's leavings beside")
def counterfactuals_unpacked(folder, pictures):
    twins(folder, pictures)
    for one in pictures:
        write(folder / "images" / f"{one.name}.jpg", one.png)
        write(folder / "images" / f"._{one.name}.jpg", b"\0\5\x16\7")


@layout("coco_counterfactuals", "a zip with images/ inside")
def counterfactuals_zip(folder, pictures):
    twins(folder, pictures)
    write_zip(folder / "images.zip", {f"images/{one.name}.jpg": one.png for one in pictures})
