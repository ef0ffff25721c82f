"""The 21 zero-shot tasks: their facts against the collected ones, every raw layout in miniature.

In the miniatures an image's colour is its label, so that a record whose image and label do not
belong together is found whatever the layout.
"""

import csv
import importlib.util
import io
import json
import pickle
import re
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_raw import check_reader, fuzz
from PIL import Image
from tars import write_tar

from fsc_bench.data.containers import cifar as cifar_container
from fsc_bench.data.images import Images
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import any_layout, columns, load_reader, records
from fsc_bench.data.readers.mat_list import load_mat
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import OWN, ImageRef, Record, write_records
from fsc_bench.task import read_task, tasks_folder

FILES = sorted((tasks_folder() / "classification").glob("*.toml"))
TASKS = {file.stem: read_task(file) for file in FILES}
# The published suite's column for each task.
COLUMN = {
    "eurosat": "eurosat-clip", "fgvc_aircraft": "fgvc-aircraft-2013b", "flowers102": "flower102",
    "hateful_memes": "hateful-memes", "imagenet1k": "imagenet-1k",
    "kitti_distance": "kitti-distance",
    "oxford_pets": "oxford-iiit-pets", "rendered_sst2": "rendered-sst2",
    "resisc45": "resisc45-clip", "stanford_cars": "stanfordcar", "voc2007": "voc2007classification",
}  # fmt: skip
OPENAI = {
    "caltech101": "Caltech101", "cifar10": "CIFAR10", "cifar100": "CIFAR100",
    "country211": "Country211", "dtd": "DescribableTextures", "eurosat": "EuroSAT",
    "fer2013": "FacialEmotionRecognition2013", "fgvc_aircraft": "FGVCAircraft",
    "flowers102": "Flowers102", "food101": "Food101", "gtsrb": "GTSRB",
    "hateful_memes": "HatefulMemes", "kitti_distance": "KITTI", "mnist": "MNIST",
    "oxford_pets": "OxfordPets", "patchcamelyon": "PatchCamelyon", "rendered_sst2": "SST2",
    "resisc45": "RESISC45", "stanford_cars": "StanfordCars", "voc2007": "PascalVOC2007",
}  # fmt: skip
METRIC = {
    "accuracy": "accuracy",
    "mean-per-class": "mean_per_class",
    "roc_auc": "roc_auc",
    "11point_mAP": "map11",
}


@pytest.fixture(scope="module")
def collected(real_data):
    names = {
        "elevater": "classnames_templates",
        "standard": "classnames_standard_order",
        "clip_benchmark": "clip_benchmark_classnames_templates",
        "openai": "openai_clip_prompts_md",
    }
    found = {
        key: json.loads((real_data / "elevater" / f"{name}.json").read_text())
        for key, name in names.items()
    }
    known = json.loads((real_data / "known_answers.json").read_text())
    return {**found, "known": known["ViT-B-32/openai"]["individual"]}


# ---------------------------------------------------------------- facts


def differences(ours, theirs):
    """Each place at which two lists differ, to be read in a failure."""
    if len(ours) != len(theirs):
        return [f"{len(ours)} instead of {len(theirs)}"]
    pairs = enumerate(zip(ours, theirs, strict=True))
    return [f"{place}: {a!r} instead of {b!r}" for place, (a, b) in pairs if a != b]


def test_there_are_21():
    assert len(TASKS) == 21
    assert sum(task.n for task in TASKS.values()) == 242_677
    prompts = [len(t.classes) * len(t.prompts["elevater"].templates) for t in TASKS.values()]
    assert sum(prompts) == 89_938


@pytest.mark.parametrize("name", TASKS)
def test_facts_equal_the_collected_ones(name, collected):
    task, column = TASKS[name], COLUMN.get(name, name)
    elevater = collected["elevater"][column]
    standard = collected["standard"][column]
    assert differences(task.classes, standard["classes"]) == []
    assert differences(task.prompts["elevater"].templates, elevater["templates"]) == []
    by_name = [elevater["classes"][place] for place in standard["elevater_index"]]
    assert differences(task.class_names("elevater"), by_name) == [], "mapped by name, not by place"
    assert sorted(task.classes) == sorted(elevater["classes"])
    assert task.n == elevater["n_test"] and list(task.leaves) == ["test"]
    assert task.headline == (METRIC[elevater["metric"]],)
    assert next(iter(task.prompts)) == "elevater", "the default comes first"
    reference = task.reference["open_clip:ViT-B-32-quickgelu/openai"]
    assert reference[task.headline[0]] == pytest.approx(
        collected["known"][f"elevator::{column}"], abs=1e-8
    )


@pytest.mark.parametrize("name", TASKS)
def test_other_prompt_sets_are_there_exactly_where_they_differ(name, collected):
    task, column = TASKS[name], COLUMN.get(name, name)
    theirs = collected["clip_benchmark"][column]
    elevater = task.prompts["elevater"]
    if theirs["classes"] is None or (
        theirs["classes"] == list(task.classes) and theirs["templates"] == list(elevater.templates)
    ):
        assert "clip_benchmark" not in task.prompts
    else:
        assert differences(task.class_names("clip_benchmark"), theirs["classes"]) == []
        templates = task.prompts["clip_benchmark"].templates
        assert differences(templates, theirs["templates"]) == []
    if name in OPENAI:
        openai = collected["openai"][OPENAI[name]]
        names = [word[0] if isinstance(word, list) else word for word in openai["classes"]]
        used = "openai" if "openai" in task.prompts else "elevater"
        assert sorted(task.class_names(used)) == sorted(names)
        assert differences(task.prompts[used].templates, openai["templates"]) == []
        assert ("openai" in task.prompts) == (sorted(names) != sorted(task.classes))


def test_only_imagenet_names_a_class_twice():
    twice = {
        name: [word for word, count in Counter(task.classes).items() if count > 1]
        for name, task in TASKS.items()
    }
    assert {name: words for name, words in twice.items() if words} == {
        "imagenet1k": ["missile", "sunglasses"]
    }
    for task in TASKS.values():
        plain = Counter(re.sub(r"[\W_]+", "", word.casefold()) for word in task.classes)
        doubled = {word for word, count in plain.items() if count > 1}
        assert doubled <= {"missile", "sunglasses"}, "names are looked up without case and blanks"


def test_ids_are_the_raw_datas_own():
    ids = {name: task.class_ids for name, task in TASKS.items() if task.class_ids}
    assert set(ids) == {
        "caltech101", "country211", "eurosat", "fer2013", "imagenet1k", "kitti_distance",
        "patchcamelyon",
    }  # fmt: skip
    assert list(ids["imagenet1k"]) == sorted(ids["imagenet1k"])
    assert all(re.fullmatch(r"n\d{8}", word) for word in ids["imagenet1k"])
    timm = importlib.util.find_spec("timm")
    if timm:  # importing it would take twenty seconds
        synsets = Path(timm.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
        assert differences(ids["imagenet1k"], synsets.read_text().split()) == []
    assert list(ids["country211"]) == sorted(ids["country211"])
    caltech = TASKS["caltech101"]
    assert [word.casefold() for word in caltech.class_ids] == sorted(
        word.casefold() for word in caltech.class_ids
    )
    pairs = dict(zip(caltech.class_ids, caltech.classes, strict=True))
    assert pairs["Faces"] == "off-center face" and pairs["Faces_easy"] == "centered face"
    assert pairs["BACKGROUND_Google"] == "background"


@pytest.mark.parametrize("name", TASKS)
def test_sources_say_where_from_and_what_differs(name):
    task = TASKS[name]
    assert task.license and task.data.sources
    assert task.chance[task.headline[0]] in (
        50.0,
        15.8169,
        round(100 / len(task.classes), 4),
    )
    if task.data.access != "open":
        assert task.data.instructions
    for source in task.data.sources:
        assert "hf" in source and source["files"]
        smaller = ("eurosat" in source["hf"] or "resisc45" in source["hf"]) and name != "dtd"
        assert ("differs" in source) >= smaller


# ---------------------------------------------------------------- miniatures


def png(label: int, size=(6, 5)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (label % 256, label // 256, 77)).save(buffer, "PNG")
    return buffer.getvalue()


def shown(image: Image.Image) -> int:
    red, green, blue = image.getpixel((2, 2))
    assert blue == 77
    return red + 256 * green


def smaller(name: str, n: int, **data):
    """A shipped task that promises n images, perhaps with another reader or options."""
    task = TASKS[name]
    return replace(task, subsets={"test": n}, data=replace(task.data, **data))


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_wds(folder: Path, names, labels, shards=2, suffix="jpg", split="test") -> None:
    """clip_benchmark's layout; `labels` are pairs: number in `names`, label shown."""
    for shard in range(shards):
        members = {}
        for place, (number, picture) in list(enumerate(labels))[shard::shards]:
            members[f"s{place:07d}.{suffix}"] = png(picture)
            members[f"s{place:07d}.cls"] = str(number).encode()
        write_tar(folder / split / f"{shard}.tar", members)
    write(folder / split / "nshards.txt", str(shards))
    if names:
        write(folder / "classnames.txt", "\n".join(names) + "\n")


def write_parquet(path: Path, rows: list[dict], names=None, column="label") -> None:
    """As `datasets` writes it: image structs, ClassLabel names in the metadata."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {"image": image, "img": image, "jpg": image}
    keys = list(rows[0])
    arrays = [pa.array([row[key] for row in rows], types.get(key)) for key in keys]
    table = pa.table(dict(zip(keys, arrays, strict=True)))
    if names:
        features = {column: {"names": list(names), "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def read_all(task, folder: Path) -> list[Record]:
    """Reads, checks and opens everything; the picture must show the label."""
    found = check_reader(task, folder, load_reader(task.data.reader, task.name).read)
    assert isinstance(found, list), found
    images = Images(folder.parent / "data")
    images.links = {task.name: str(folder)}
    for row in found:
        assert images.exists(task.name, row.images[0])
        assert shown(images.open(task.name, row.images[0])) == row.labels[0], row
    return found


def refused(task, folder: Path) -> str:
    found = check_reader(task, folder, load_reader(task.data.reader, task.name).read)
    assert isinstance(found, str), "was read"
    return found


def test_elevater_folders_are_numbered_by_its_own_label_file(tmp_path, real_data):
    """OFA-Sys/chinese-clip-eval: <name>/label.txt and test/<number>/, here in a zip, in place."""
    text = (real_data / "elevater" / "classnames_templates.json").read_text()
    words = json.loads(text)["cifar100"]["classes"]
    task = smaller("cifar100", 100)
    assert words != list(task.classes)
    archive = tmp_path / "raw" / "cifar-100.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cifar-100/label.txt", "\n".join(words))
        for number, word in enumerate(words):
            file.writestr(f"cifar-100/test/{number:03d}/x.png", png(task.classes.index(word)))
            file.writestr(f"cifar-100/train/{number:03d}/x.png", png(0))
    read_all(task, tmp_path / "raw")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    read_all(task, tmp_path / "unpacked")
    read_all(task, tmp_path / "unpacked" / "cifar-100")


def test_webdataset_of_numbers_beyond_one_digit_come_in_natural_order(tmp_path):
    task = smaller("cifar10", 24)
    write_wds(tmp_path / "raw", None, [(place % 10, place % 10) for place in range(24)], shards=12)
    shards = [row.images[0].path.partition("::")[0] for row in read_all(task, tmp_path / "raw")]
    assert list(dict.fromkeys(shards)) == [f"test/{number}.tar" for number in range(12)]


def test_webdataset_class_names_in_another_order(tmp_path):
    task = smaller("fer2013", 7)
    words = list(reversed(task.classes))
    write_wds(tmp_path / "raw", words, [(number, 6 - number) for number in range(7)])
    read_all(task, tmp_path / "raw")


def test_fer2013_keeps_the_private_test_of_a_mirror_with_both(tmp_path):
    keep = TASKS["fer2013"].data.options["wds"]["first_of_each_class"]
    public = [467, 56, 496, 895, 607, 653, 415]
    assert sum(keep) == 3589 and sum(keep) + sum(public) == 7178
    labels = [c for c in range(7) for _ in range(keep[c] + public[c])]
    write_wds(tmp_path / "raw", None, [(label, label) for label in labels], shards=1)
    task = TASKS["fer2013"]
    found = list(any_layout.read(task, Raw(task, tmp_path / "raw")))
    assert Counter(row.labels[0] for row in found) == dict(enumerate(keep))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: (raw / "test/1.tar").unlink(), "promises '2' shards, there are 1 (0.tar)"),
        (lambda raw: write(raw / "classnames.txt", "a\nb\n"), "no class is called 'a'"),
        (lambda raw: write_tar(raw / "test/1.tar", {"a.cls": b"1"}), "has no image."),
        (lambda raw: write_tar(raw / "test/1.tar", {"a.jpg": b"", "a.cls": b"10"}), "out of range"),
        (lambda raw: write_tar(raw / "test/1.tar", {"a.jpg": b"", "a.cls": b"tiger"}), "no class"),
        (
            lambda raw: write_tar(raw / "test/1.tar", {"a.jpg": b""}),
            "needs one image and its label",
        ),
        (lambda raw: write(raw / "test/1.tar", b"<html>" * 200), "damaged"),
        (lambda raw: write_tar(raw / "test/1.tar", {}), "the task file promises 12"),
        (lambda raw: [f.rename(f.with_suffix(".x")) for f in raw.glob("test/*.tar")], "looks like"),
    ],
)
def test_a_damaged_webdataset_is_one_line(tmp_path, change, why):
    task = smaller("cifar10", 12)
    raw = tmp_path / "raw"
    write_wds(raw, task.classes, [(place % 10, place % 10) for place in range(12)])
    change(raw)
    assert why in refused(task, raw)


def test_an_unknown_class_folder_is_named_with_the_near_miss(tmp_path):
    task = smaller("dtd", 3)
    for label, word in [(0, "banded"), (1, "blotchy"), (2, "braidedd")]:
        write(tmp_path / "raw" / word / "a.jpg", png(label))
    message = refused(task, tmp_path / "raw")
    assert "no class is called 'braidedd'. Did you mean 'braided'?" in message
    (tmp_path / "raw" / "braidedd").rename(tmp_path / "raw" / "braided")
    read_all(task, tmp_path / "raw")
    write(tmp_path / "raw" / "Banded" / "a.jpg", png(0))
    assert "is the same class as the folder" in refused(task, tmp_path / "raw")


def test_a_split_of_the_wrong_size_is_refused(tmp_path):
    task = TASKS["eurosat"]
    for label, word in enumerate(task.class_ids):
        write(tmp_path / "raw" / "2750" / word / f"{word}_1.jpg", png(label))
    message = refused(task, tmp_path / "raw")
    assert "10 records, the task file promises 5,000" in message and "--allow-partial" in message


def test_twin_names_need_ids(tmp_path):
    for word in ("missile", "tench", "goldfish"):
        write(tmp_path / "raw" / "val" / word / "a.jpg", png(0))
    assert "'missile' names two classes" in refused(smaller("imagenet1k", 3), tmp_path / "raw")


def test_nothing_readable_is_one_line(tmp_path):
    task = smaller("cifar10", 3)
    assert "no raw data at" in refused(task, tmp_path / "absent")
    write(tmp_path / "raw" / "readme.txt", "hello")
    assert "nothing here looks like a layout that can be read" in refused(task, tmp_path / "raw")


# ---------------------------------------------------------------- each data set's own files


def test_mnist_of_the_real_files(real_data, tmp_path):
    task = TASKS["mnist"]
    found = list(any_layout.read(task, Raw(task, real_data / "mnist")))
    assert len(found) == 10_000
    assert [row.labels[0] for row in found[:10]] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert Counter(row.labels[0] for row in found) == dict(enumerate(counts))
    images = Images(tmp_path)
    images.links = {"mnist": str(real_data / "mnist")}
    first = images.open("mnist", found[0].images[0])
    assert first.size == (28, 28) and first.mode == "RGB"
    direct = replace(task, data=replace(task.data, reader="idx_ubyte", options={}))
    assert (
        list(load_reader("idx_ubyte", "x").read(direct, Raw(direct, real_data / "mnist"))) == found
    )


def cifar_rows(labels):
    """[n, 3072] bytes: red plane, green plane, blue plane."""
    planes = [[label % 256, label // 256, 77] for label in labels]
    return np.repeat(np.array(planes, np.uint8), 1024, axis=1)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_pickles_are_read_without_running_them(name, protocol, tmp_path):
    labels = [3, 8, 0, 9, 9]
    key = "labels" if name == "cifar10" else "fine_labels"
    batch = {b"data": cifar_rows(labels), key.encode(): labels, b"coarse_labels": [0] * 5}
    folder = {"cifar10": "cifar-10-batches-py/test_batch", "cifar100": "cifar-100-python/test"}
    write(tmp_path / "raw" / folder[name], pickle.dumps(batch, protocol=protocol))
    found = read_all(smaller(name, 5), tmp_path / "raw")
    assert [row.labels[0] for row in found] == labels


def test_a_cifar_pickle_that_would_run_something_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    content = pickle.dumps({b"data": Payload(), b"labels": [1]})
    write(tmp_path / "raw" / "test_batch", content)
    assert "which no CIFAR batch needs" in refused(smaller("cifar10", 1), tmp_path / "raw")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match=r"names builtins\.eval"):
        cifar_container.read_batch(write(tmp_path / "test", b"cbuiltins\neval\n(S'print(1)'\ntR."))


def test_fer2013_csv_has_its_own_codes_and_pixels_in_a_cell(tmp_path):
    task = smaller("fer2013", 7)
    codes = task.data.options["image_list"][0]["codes"]
    rows = [["emotion", "pixels", "Usage"], ["0", " ".join(["9"] * 2304), "Training"]]
    for code, word in enumerate(codes):
        value = str(task.class_ids.index(word))
        rows.append([str(code), " ".join([value] * 2304), "PrivateTest"])
        rows.append([str(code), " ".join(["99"] * 2304), "PublicTest"])
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write(tmp_path / "raw" / "fer2013.csv", text.getvalue())
    found = check_reader(task, tmp_path / "raw", any_layout.read)
    images = Images(tmp_path)
    images.links = {"fer2013": str(tmp_path / "raw")}
    for row in found:
        image = images.open("fer2013", row.images[0])
        assert image.size == (48, 48) and image.getpixel((0, 0))[0] == row.labels[0]
    header = ["emotion", " Usage", " pixels"]  # icml_face_data.csv's, with its blanks
    other = [header, *[[row[0], row[2], row[1]] for row in rows[1:]]]
    text = io.StringIO()
    csv.writer(text).writerows(other)
    write(tmp_path / "second" / "icml_face_data.csv", text.getvalue())
    again = check_reader(task, tmp_path / "second", any_layout.read)
    assert [row.labels for row in again] == [row.labels for row in found]
    fuzz(task, tmp_path / "raw", "fer2013.csv", any_layout.read)


def layout_dtd(raw, task):
    for label, word in enumerate(task.classes[:5]):
        for number in range(3):
            write(raw / f"dtd/images/{word}/{word}_{number}.jpg", png(label))
    lines = [f"{word}/{word}_1.jpg" for word in task.classes[:5]]
    return write(raw / "dtd/labels/test1.txt", "\n".join(lines)), 5


def layout_food101(raw, task):
    for label, word in enumerate(task.classes[:4]):
        folder = word.replace(" ", "_")
        for number in (11, 12):
            write(raw / f"food-101/images/{folder}/{number}.jpg", png(label))
    lines = [f"{word.replace(' ', '_')}/12" for word in task.classes[:4]]
    return write(raw / "food-101/meta/test.txt", "\n".join(lines)), 4


def layout_gtsrb(raw, task):
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"{place:05d}.ppm;6;5;0;0;6;5;{label}" for place, label in enumerate([16, 1, 42])]
    for place, label in enumerate([16, 1, 42]):
        write(raw / f"gtsrb/GTSRB/Final_Test/Images/{place:05d}.ppm", png(label))
        write(raw / f"gtsrb/GTSRB/Training/{label:05d}/0.ppm", png(label))
    return write(raw / "gtsrb/GT-final_test.csv", "\n".join([header, *rows])), 3


def layout_oxford_pets(raw, task):
    names = {"Abyssinian_2": 1, "american_bulldog_7": 2, "yorkshire_terrier_9": 37}
    for name, number in names.items():
        write(raw / f"oxford-iiit-pet/images/{name}.jpg", png(number - 1))
    lines = [f"{name} {number} 1 1" for name, number in names.items()]
    return write(raw / "oxford-iiit-pet/annotations/test.txt", "\n".join(lines)), 3


def layout_fgvc_aircraft(raw, task):
    names = {"1514522": "707-320", "0747566": "F/A-18", "1514523": "BAE 146-200"}
    variants = [word.replace("F-A-18", "F/A-18") for word in task.classes]
    base = raw / "fgvc-aircraft-2013b/data"
    for name, word in names.items():
        write(base / f"images/{name}.jpg", png(variants.index(word)))
    lines = [f"{name} {word}" for name, word in names.items()]
    return write(base / "images_variant_test.txt", "\n".join(lines)), 3


def layout_hateful_memes(raw, task):
    rows = [{"id": n, "img": f"img/{n}.png", "label": n % 2, "text": "x"} for n in range(4)]
    for n in range(4):
        write(raw / f"img/{n}.png", png(n % 2))
    return write(raw / "dev_seen.jsonl", "\n".join(json.dumps(row) for row in rows)), 4


def layout_imagenet1k(raw, task):
    places = [999, 0, 744]
    for number, place in enumerate(places, 1):
        write(raw / f"val/ILSVRC2012_val_{number:08d}.JPEG", png(place))
    lines = [task.class_ids[place] for place in places]
    name = "imagenet_2012_validation_synset_labels.txt"
    return write(raw / name, "\n".join(lines)), 3


OWN_LISTS = {
    name.removeprefix("layout_"): function
    for name, function in list(globals().items())
    if name.startswith("layout_")
}


@pytest.mark.parametrize("name", OWN_LISTS)
def test_damaged_lists(name, tmp_path):
    raw = tmp_path / "raw"
    path, n = OWN_LISTS[name](raw, TASKS[name])
    assert fuzz(smaller(name, n), raw, str(path.relative_to(raw)), any_layout.read)["refused"] > 25


def test_flowers_and_cars_of_matlab(tmp_path):
    from scipy.io import savemat

    flowers = tmp_path / "flowers" / "flowers-102"
    labels = [1, 102, 77, 5]
    for number, label in enumerate(labels, 1):
        write(flowers / f"jpg/image_{number:05d}.jpg", png(label - 1))
    savemat(flowers / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(flowers / "setid.mat", {"tstid": [[2, 4]], "trnid": [[1]], "valid": [[3]]})
    found = read_all(smaller("flowers102", 2), tmp_path / "flowers")
    assert [row.labels[0] for row in found] == [101, 4]
    cars = tmp_path / "cars" / "stanford_cars"
    rows = np.zeros((1, 2), dtype=[("class", object), ("fname", object)])
    for place, label in enumerate([196, 1]):
        rows[0, place] = (np.array([[label]]), f"{place + 1:05d}.jpg")
        write(cars / f"cars_test/{place + 1:05d}.jpg", png(label - 1))
    savemat(cars / "cars_test_annos_withlabels.mat", {"annotations": rows})
    found = read_all(smaller("stanford_cars", 2), tmp_path / "cars")
    assert [row.labels[0] for row in found] == [195, 0]
    savemat(tmp_path / "packed.mat", {"x": [[1, 300, 70000]], "y": "text"}, do_compression=True)
    packed = (tmp_path / "packed.mat").read_bytes()
    assert load_mat(packed, "x").tolist() == [1, 300, 70000] and load_mat(packed, "y") == "text"
    for name, n, file in [
        ("flowers102", 2, flowers / "imagelabels.mat"),
        ("flowers102", 2, flowers / "setid.mat"),
        ("stanford_cars", 2, cars / "cars_test_annos_withlabels.mat"),
    ]:
        folder = tmp_path / ("flowers" if name == "flowers102" else "cars")
        fuzz(smaller(name, n), folder, str(file.relative_to(folder)), any_layout.read, count=150)


# ---------------------------------------------------------------- VOC


def write_voc(raw: Path, lists: bool) -> dict[str, dict[str, int]]:
    """Two images: a dog with a difficult cat; a person. Returns the flags that are not -1."""
    classes = TASKS["voc2007"].classes
    flags = {"000001": {"dog": 1, "cat": 0}, "000002": {"person": 1}}
    base = raw / "VOCdevkit/VOC2007"
    write(base / "ImageSets/Main/test.txt", "\n".join(flags))
    for name, things in flags.items():
        write(base / f"JPEGImages/{name}.jpg", png(classes.index(next(iter(things)))))
        objects = "".join(
            f"<object><name>{word}</name><difficult>{1 - flag}</difficult></object>"
            for word, flag in things.items()
        )
        write(base / f"Annotations/{name}.xml", f"<annotation>{objects}</annotation>")
    for word in classes if lists else ():
        lines = [f"{name} {things.get(word, -1):2d}" for name, things in flags.items()]
        write(base / f"ImageSets/Main/{word}_test.txt", "\n".join(lines))
    return flags


@pytest.mark.parametrize("lists", [True, False])
def test_voc_difficult_instances(lists, tmp_path):
    raw = tmp_path / "raw"
    write_voc(raw, lists)
    dog, cat, person = (TASKS["voc2007"].classes.index(word) for word in ("dog", "cat", "person"))
    expected = {
        "negative": [(dog,), (person,)],
        "positive": [(cat, dog), (person,)],
        "ignore": [(~cat, dog), (person,)],
    }
    for difficult, labels in expected.items():
        task = smaller("voc2007", 2, options={"voc": {"difficult": difficult}})
        found = check_reader(task, raw, any_layout.read)
        assert [row.labels for row in found] == labels
    task = smaller("voc2007", 2, options={"voc": {"difficult": "negativ"}})
    with pytest.raises(UsageError, match="Did you mean 'negative'"):
        list(any_layout.read(task, Raw(task, raw)))
    task = smaller("voc2007", 2)
    main = "VOCdevkit/VOC2007/ImageSets/Main"
    files = [f"{main}/dog_test.txt"] if lists else [f"{main}/test.txt"]
    if not lists:
        files.append("VOCdevkit/VOC2007/Annotations/000001.xml")
    for file in files:
        fuzz(task, raw, file, any_layout.read)


def test_voc_label_vectors_of_a_webdataset_and_lists_of_a_parquet(tmp_path):
    task = smaller("voc2007", 2)
    vectors = np.zeros((2, 20), np.int64)
    vectors[0, [7, 11]] = 1
    members = {}
    for place, vector in enumerate(vectors):
        buffer = io.BytesIO()
        np.save(buffer, vector)
        members |= {f"s{place}.jpg": png(0), f"s{place}.npy": buffer.getvalue()}
    write_tar(tmp_path / "wds/test/0.tar", members)
    found = check_reader(task, tmp_path / "wds", any_layout.read)
    assert [row.labels for row in found] == [(7, 11), ()]
    image = {"bytes": png(0), "path": "x.jpg"}
    rows = [{"image": image, "classes": [7, 11]}, {"image": image, "classes": []}]
    write_parquet(tmp_path / "pq/data/test-0.parquet", rows)
    again = check_reader(task, tmp_path / "pq", any_layout.read)
    assert [row.labels for row in again] == [(7, 11), ()]


# ---------------------------------------------------------------- columns and records


def mine(kind="matching", n=3, **options):
    base = TASKS["cifar10"]
    data = replace(base.data, reader="columns", options=options)
    headline = ("text",) if kind == "matching" else base.headline
    return replace(base, name="mine", kind=kind, headline=headline, subsets={"test": n}, data=data)


def test_columns_of_a_matching_parquet_with_two_images(tmp_path):
    rows = [
        {"image": {"bytes": png(n), "path": None}, "img": {"bytes": png(n + 50), "path": None},
         "right": f"right {n}", "wrong": f"wrong {n}", "key": f"k{n}", "box": [0, 0, 3, 3]}
        for n in range(5)
    ]  # fmt: skip
    write_parquet(tmp_path / "raw" / "mine.parquet", rows)
    task = mine(n=5, images=["image", "img"], texts=["right", "wrong"], id="key", box="box")
    found = check_reader(task, tmp_path / "raw", columns.read)
    assert [row.id for row in found] == [f"k{n}" for n in range(5)]
    images = Images(tmp_path)
    images.links = {"mine": str(tmp_path / "raw")}
    for n, row in enumerate(found):
        assert row.texts == (f"right {n}", f"wrong {n}")
        pictures = [images.open("mine", ref) for ref in row.images]
        assert [shown(picture) for picture in pictures] == [n, n + 50]
        assert pictures[0].size == (3, 3)


def test_columns_of_lists_and_of_the_file_itself(tmp_path):
    image = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    cells = [
        [{"bytes": png(n), "path": None}, {"bytes": png(n + 9), "path": None}] for n in range(5)
    ]
    table = pa.table(
        {"pair": pa.array(cells, image), "captions": [[f"a {n}", f"b {n}"] for n in range(5)]}
    )
    file = tmp_path / "mine.parquet"
    pq.write_table(table, file, row_group_size=2)
    task = mine(n=5, images="pair", texts="captions")
    found = list(columns.read(task, Raw(task, file)))
    images = Images(tmp_path)
    images.links = {"mine": str(file)}
    for n, row in enumerate(found):
        assert [shown(images.open("mine", ref)) for ref in row.images] == [n, n + 9]
        assert row.texts == (f"a {n}", f"b {n}")


def test_columns_of_what_datasets_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["truck", "cat", "dog"])}
    )
    labels = [TASKS["cifar10"].classes.index(word) for word in ("truck", "cat", "dog")]
    pictures = [{"bytes": png(label), "path": None} for label in labels]
    data = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 2]}, features=features)
    data.save_to_disk(tmp_path / "arrow")
    data.to_parquet(tmp_path / "parquet" / "data.parquet")
    for form, file in (("arrow", "data-00000-of-00001.arrow"), ("parquet", "data.parquet")):
        found = read_all(smaller("cifar10", 3), tmp_path / form)
        assert [row.labels[0] for row in found] == labels, "by name: datasets numbered them 0, 1, 2"
        fuzz(smaller("cifar10", 3), tmp_path / form, file, any_layout.read)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_columns_of_text_files_name_paths_in_a_source(form, tmp_path):
    rows = [{"file": n, "a": f"right {n}", "b": f"wrong {n}", "where": "test"} for n in range(3)]
    text = io.StringIO()
    if form == "csv":
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.write("\n".join(json.dumps(row) for row in rows))
    file = write(tmp_path / "raw" / f"mine.{form}", text.getvalue())
    task = mine(
        images="file", texts=["a", "b"], subset="where", cluster="file",
        source="coco/val2017", path="{:>012}.jpg",
    )  # fmt: skip
    found = check_reader(task, tmp_path / "raw", columns.read)
    assert found[2] == Record(
        id="000002",
        subset="test",
        images=(ImageRef("coco/val2017", "000000000002.jpg"),),
        texts=("right 2", "wrong 2"),
        cluster="2",
    )
    assert list(columns.read(task, Raw(task, file))) == found
    fuzz(task, tmp_path / "raw", file.name, columns.read)


def test_a_column_that_is_not_there_is_named(tmp_path):
    write_parquet(
        tmp_path / "raw" / "x.parquet", [{"image": {"bytes": png(0), "path": None}, "txt": "a"}]
    )
    with pytest.raises(DataError, match=r"has no column 'text'\. Did you mean 'txt'\?"):
        list(columns.read(task := mine(n=1, texts=["text"]), Raw(task, tmp_path / "raw")))
    with pytest.raises(DataError, match=r"has no column for a label \(image, txt\)"):
        task = replace(smaller("cifar10", 1), data=replace(TASKS["cifar10"].data, reader="columns"))
        list(columns.read(task, Raw(task, tmp_path / "raw")))


def test_records_are_read_as_they_are(tmp_path):
    rows = [
        Record(f"r{n}", "test", (ImageRef(OWN, f"{n}.png"),), ("a", "b"), cluster="c")
        for n in range(3)
    ]
    write_records(tmp_path / "raw" / "mine.parquet", rows, {})
    task = replace(mine(), data=replace(mine().data, reader="records", options={}))
    assert check_reader(task, tmp_path / "raw", records.read) == rows
    assert "there is no" not in refused(replace(task, subsets={"test": 4}), tmp_path / "raw")


# ---------------------------------------------------------------- damage


def test_damaged_binary_files(tmp_path):
    """A hundred damaged versions of each: read as something valid, or refused in one line."""
    labels = [(place % 10, place % 10) for place in range(6)]
    task = smaller("cifar10", 6)
    write_wds(tmp_path / "wds", task.classes, labels, shards=1)
    rows = [{"image": {"bytes": png(y), "path": None}, "label": y} for y, _ in labels]
    write_parquet(tmp_path / "parquet" / "x.parquet", rows, task.classes)
    batch = {b"data": cifar_rows([y for y, _ in labels]), b"labels": [y for y, _ in labels]}
    write(tmp_path / "pickle" / "test_batch", pickle.dumps(batch, protocol=2))
    with zipfile.ZipFile(tmp_path / "zip.zip", "w") as file:
        for y, _ in labels:
            file.writestr(f"test/{task.classes[y]}/a.png", png(y))
    write(tmp_path / "zip" / "x.zip", (tmp_path / "zip.zip").read_bytes())
    idx = tmp_path / "idx"
    shape = np.array([0x803, 6, 28, 28], ">u4").tobytes()
    write(idx / "t10k-images-idx3-ubyte", shape + bytes(6 * 784))
    write(idx / "t10k-labels-idx1-ubyte", np.array([0x801, 6], ">u4").tobytes() + bytes(range(6)))
    table = [Record(f"r{n}", "test", (ImageRef(OWN, "x.png"),), labels=(n,)) for n in range(6)]
    write_records(tmp_path / "records" / "x.parquet", table, {})
    own = replace(task, data=replace(task.data, reader="records", options={}))
    cases = [
        (task, "wds", "test/0.tar"),
        (task, "wds", "classnames.txt"),
        (task, "wds", "test/nshards.txt"),
        (task, "parquet", "x.parquet"),
        (task, "pickle", "test_batch"),
        (task, "zip", "x.zip"),
        (smaller("mnist", 6), "idx", "t10k-images-idx3-ubyte"),
        (smaller("mnist", 6), "idx", "t10k-labels-idx1-ubyte"),
        (own, "records", "x.parquet"),
    ]
    for one, folder, file in cases:
        reader = load_reader(one.data.reader, one.name)
        outcome = fuzz(one, tmp_path / folder, file, reader.read)
        assert outcome["refused"] > 10, (folder, file, outcome)
