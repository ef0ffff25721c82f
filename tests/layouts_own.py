"""Layouts of one data set alone: its owners' archives, torchvision's folders, Kaggle's copies."""

import csv
import hashlib
import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from layouts import (
    FSC,
    image_table,
    in_folders,
    layout,
    shown,
    write,
    write_all,
    write_tar_gz,
    write_zip,
)
from tars import write_tar

CODES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]  # of FER's own files


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(pictures) -> np.ndarray:
    return np.stack([np.asarray(one.picture) for one in pictures])


def places(pictures) -> list[int]:
    return [one.place for one in pictures]


# ---------------------------------------------------------------- MNIST


def idx_files(pictures) -> dict[str, bytes]:
    images = pixels(pictures)
    head = struct.pack(">4I", 0x803, *images.shape)
    labels = struct.pack(">2I", 0x801, len(images)) + bytes(places(pictures))
    return {"t10k-images-idx3-ubyte": head + images.tobytes(), "t10k-labels-idx1-ubyte": labels}


def _torchvision_mnist(folder):
    from torchvision.datasets import MNIST

    return MNIST(str(folder), train=False)


@layout("mnist", "torchvision's folder", theirs=_torchvision_mnist)
def mnist(folder, pictures):
    files = idx_files(pictures)
    files |= {name.replace("t10k", "train"): content for name, content in files.items()}
    write_all(folder / "MNIST" / "raw", files)


@layout("mnist", "Kaggle's, dots for dashes, a folder a file")
def mnist_dots(folder, pictures):
    for name, content in idx_files(pictures).items():
        write(folder / name / name, content)
        write(folder / name.replace("-idx", ".idx"), content)


@layout("mnist", "dots for dashes alone")
def mnist_dots_alone(folder, pictures):
    write_all(folder, {n.replace("-idx", ".idx"): c for n, c in idx_files(pictures).items()})


def digits_csv(pictures, header: bool, last: bool = False) -> str:
    text = io.StringIO()
    out = csv.writer(text)
    names = [f"{row}x{column}" for row in range(1, 29) for column in range(1, 29)]
    if header:
        out.writerow([*names, "label"] if last else ["label", *names])
    for one in pictures:
        cells = np.asarray(one.picture).reshape(-1).tolist()
        out.writerow([*cells, one.place] if last else [one.place, *cells])
    return text.getvalue()


@layout("mnist", "CSV with a header")
def mnist_csv(folder, pictures):
    write(folder / "mnist_test.csv", digits_csv(pictures, True))
    write(folder / "mnist_train.csv", digits_csv(pictures[:2], True))


@layout("mnist", "CSV without a header, linked itself")
def mnist_csv_bare(folder, pictures):
    return write(folder / "mnist_test.csv", digits_csv(pictures, False))


@layout("mnist", "CSV with the label last")
def mnist_csv_last(folder, pictures):
    write(folder / "mnist_test.csv", digits_csv(pictures, True, True))


@layout("mnist", "Keras' mnist.npz")
def mnist_npz(folder, pictures):
    arrays = {"x_test": pixels(pictures), "y_test": np.array(places(pictures), np.uint8)}
    arrays |= {"x_train": arrays["x_test"][:2], "y_train": arrays["y_test"][:2]}
    np.savez(folder / "mnist.npz", **arrays)
    return folder / "mnist.npz"


@layout("mnist", "pictures in folders, Kaggle's mnist_png")
def mnist_png(folder, pictures):
    write_all(folder / "mnist_png" / "testing", in_folders(pictures, lambda one: one.word))
    write_all(folder / "mnist_png" / "training", in_folders(pictures[:1], lambda one: one.word))


# ---------------------------------------------------------------- CIFAR


def batch(name: str, pictures) -> bytes:
    rows = pixels(pictures).transpose(0, 3, 1, 2).reshape(len(pictures), -1)
    key = "labels" if name == "cifar10" else "fine_labels"
    return pickle.dumps({"data": rows, key: places(pictures), "coarse_labels": [0] * len(rows)})


CIFAR_FILE = {"cifar10": "cifar-10-batches-py/test_batch", "cifar100": "cifar-100-python/test"}


def _torchvision_cifar(folder):
    from torchvision import datasets

    name = "cifar10" if (folder / CIFAR_FILE["cifar10"]).exists() else "cifar100"
    file, theirs = Path(CIFAR_FILE[name]), {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]
    meta = folder / file.parent / ("batches.meta" if name == "cifar10" else "meta")
    key = "label_names" if name == "cifar10" else "fine_label_names"
    meta.write_bytes(pickle.dumps({key: list(FSC[name].classes)}))
    known = {"filename": meta.name, "key": key, "md5": md5(meta)}
    lists = {"test_list": [[file.name, md5(folder / file)]], "train_list": [], "meta": known}
    found = type("Small", (getattr(datasets, theirs),), lists)(str(folder), train=False)
    return [(picture, found.classes[label]) for picture, label in found]


@layout(["cifar10", "cifar100"], "torchvision's folder", theirs=_torchvision_cifar)
def cifar(folder, pictures):
    name = "cifar10" if pictures is shown("cifar10") else "cifar100"
    write(folder / CIFAR_FILE[name], batch(name, pictures))


@layout(["cifar10", "cifar100"], "the binary version")
def cifar_binary(folder, pictures):
    name = "cifar10" if pictures is shown("cifar10") else "cifar100"
    heads = [[one.place] if name == "cifar10" else [0, one.place] for one in pictures]
    rows = pixels(pictures).transpose(0, 3, 1, 2).reshape(len(pictures), -1)
    content = np.hstack([np.array(heads, np.uint8), rows]).tobytes()
    path = (
        "cifar-10-batches-bin/test_batch.bin" if name == "cifar10" else "cifar-100-binary/test.bin"
    )
    write(folder / path, content)


@layout("cifar100", "Parquet with fine_label")
def cifar100_fine(folder, pictures):
    table = image_table(pictures, "fine_label", list(FSC["cifar100"].classes))
    pq.write_table(
        table.append_column("coarse_label", [[0] * len(pictures)]), folder / "test.parquet"
    )


@layout(["cifar100", "fgvc_aircraft"], "Parquet with a label column of numbers")
def plain_label(folder, pictures):
    pq.write_table(image_table(pictures, "label", None), folder / "test.parquet")


# ---------------------------------------------------------------- class folders of the owners


def _torchvision(name, **options):
    def theirs(folder):
        from torchvision import datasets

        found = getattr(datasets, name)(str(folder), **options)
        return [
            (picture, found.classes[label] if hasattr(found, "classes") else label)
            for picture, label in found
        ]

    return theirs


@layout("country211", "torchvision's folder", theirs=_torchvision("Country211", split="test"))
def country211(folder, pictures):
    write_all(folder / "country211" / "test", in_folders(pictures, lambda one: one.word))
    write_all(folder / "country211" / "valid", in_folders(pictures[:1], lambda one: one.word))


@layout("eurosat", "torchvision's folder", theirs=_torchvision("EuroSAT"))
def eurosat(folder, pictures):
    write_all(folder / "eurosat" / "2750", in_folders(pictures, lambda one: one.word))
    write_zip(folder / "eurosat" / "EuroSAT.zip", {"2750/AnnualCrop/x.png": pictures[0].png})


@layout("eurosat", "EuroSAT.zip as it comes")
def eurosat_zip(folder, pictures):
    files = in_folders(pictures, lambda one: one.word)
    return write_zip(folder / "EuroSAT.zip", {f"2750/{name}": data for name, data in files.items()})


def _torchvision_caltech(folder):
    from torchvision.datasets import Caltech101

    found = Caltech101(str(folder))
    return [(picture, found.categories[label]) for picture, label in found]


@layout("caltech101", "torchvision's folder", theirs=_torchvision_caltech)
def caltech(folder, pictures):
    """It leaves out the background class, of which no picture is here."""
    counts: dict[str, int] = {}
    for one in pictures:
        word = FSC["caltech101"].class_ids[one.place]
        counts[word] = counts.get(word, 0) + 1
        name = f"caltech101/101_ObjectCategories/{word}/image_{counts[word]:04d}.jpg"
        write(folder / name, one.png)
    (folder / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir(exist_ok=True)
    (folder / "caltech101/Annotations").mkdir()


@layout("rendered_sst2", "torchvision's folder", theirs=_torchvision("RenderedSST2", split="test"))
def rendered_sst2(folder, pictures):
    write_all(folder / "rendered-sst2" / "test", in_folders(pictures, lambda one: one.word))
    write_all(folder / "rendered-sst2" / "train", in_folders(pictures[:1], lambda one: one.word))


@layout("resisc45", "NWPU's folder, in a folder")
def resisc(folder, pictures):
    for number, one in enumerate(pictures):
        word = one.word.replace(" ", "_")
        write(
            folder / "NWPU-RESISC45" / "NWPU-RESISC45" / word / f"{word}_{number:03d}.jpg", one.png
        )


@layout("patchcamelyon", "folders normal and tumor")
def tumors(folder, pictures):
    write_all(folder / "test", in_folders(pictures, lambda one: ("normal", "tumor")[one.place]))


def _torchvision_pcam(folder):
    from torchvision.datasets import PCAM

    small = type("Small", (PCAM,), {"_check_exists": lambda self: True})
    return small(str(folder), split="test")


@layout("patchcamelyon", "torchvision's folder, HDF5", theirs=_torchvision_pcam)
def pcam(folder, pictures):
    import h5py

    (folder / "pcam").mkdir()
    start = folder / "pcam" / "camelyonpatch_level_2_split_test_"
    with h5py.File(f"{start}x.h5", "w") as file:
        file.create_dataset("x", data=pixels(pictures), chunks=(2, 96, 96, 3), compression="gzip")
    with h5py.File(f"{start}y.h5", "w") as file:
        file.create_dataset("y", data=np.array(places(pictures), np.uint8).reshape(-1, 1, 1, 1))


@layout(
    "patchcamelyon",
    "HDF5 still packed",
    refused="gunzip -k camelyonpatch_level_2_split_test_x.h5.gz",
)
def pcam_packed(folder, pictures):
    for part in "xy":
        write(folder / f"camelyonpatch_level_2_split_test_{part}.h5.gz", b"\x1f\x8b")


# ---------------------------------------------------------------- lists


def _torchvision_fer(file, index):
    def theirs(folder):
        from torchvision.datasets import FER2013

        path = folder / "fer2013" / file
        resources = {**FER2013._RESOURCES, index: (file, md5(path))}
        found = type("Small", (FER2013,), {"_RESOURCES": resources})(str(folder), split="test")
        return [(picture, CODES[label]) for picture, label in found]

    return theirs


def fer(columns):
    def make(folder, pictures):
        text = io.StringIO()
        out = csv.writer(text)
        out.writerow(columns)
        usages = {"Training": pictures[:2], "PrivateTest": pictures}
        for usage, rows in usages.items():
            for one in rows:
                numbers = " ".join(map(str, np.asarray(one.picture).reshape(-1)))
                cells = {"emotion": CODES.index(one.word), "pixels": numbers, "Usage": usage}
                out.writerow([cells[column.strip()] for column in columns])
        file = "fer2013.csv" if columns[1] == "pixels" else "icml_face_data.csv"
        write(folder / "fer2013" / file, text.getvalue())

    return make


layout("fer2013", "Kaggle's fer2013.csv", theirs=_torchvision_fer("fer2013.csv", "fer"))(
    fer(["emotion", "pixels", "Usage"])
)
layout("fer2013", "icml_face_data.csv", theirs=_torchvision_fer("icml_face_data.csv", "icml"))(
    fer(["emotion", " Usage", " pixels"])
)


@layout("fer2013", "Kaggle's folders, both tests in one")
def fer_folders(folder, pictures):
    for number, one in enumerate(pictures):
        write(folder / "test" / one.word / f"PrivateTest_{number:08d}.jpg", one.png)
        write(folder / "test" / one.word / f"PublicTest_{number:08d}.jpg", one.png)
        write(folder / "train" / one.word / f"Training_{number:08d}.jpg", one.png)


def aircraft_files(pictures) -> dict[str, bytes]:
    words = [
        word.replace("F-A-18", "F/A-18").replace("F-16A-B", "F-16A/B")
        for word in FSC["fgvc_aircraft"].classes
    ]
    files = {f"data/images/{n:07d}.jpg": one.png for n, one in enumerate(pictures)}
    lines = [f"{n:07d} {words[one.place]}" for n, one in enumerate(pictures)]
    return {
        **files,
        "data/images_variant_test.txt": "\n".join(lines).encode(),
        "data/images_variant_train.txt": b"0000000 707-320",
        "data/variants.txt": "\n".join(words).encode(),
    }


@layout("fgvc_aircraft", "torchvision's folder", theirs=_torchvision("FGVCAircraft", split="test"))
def aircraft(folder, pictures):
    write_all(folder / "fgvc-aircraft-2013b", aircraft_files(pictures))


@layout("fgvc_aircraft", "Kaggle's, a folder in a folder")
def aircraft_kaggle(folder, pictures):
    write_all(folder / "fgvc-aircraft-2013b" / "fgvc-aircraft-2013b", aircraft_files(pictures))
    write(folder / "test.csv", "filename,Classes,Labels\n0000000.jpg,707-320,0\n")


def dtd_files(pictures) -> dict[str, bytes]:
    names = [f"{one.word}/{one.word}_{n:04d}.jpg" for n, one in enumerate(pictures)]
    files = {f"images/{name}": one.png for name, one in zip(names, pictures, strict=True)}
    files[f"images/{names[0].replace('_0000', '_0099')}"] = pictures[0].png  # for training
    return {**files, "labels/test1.txt": "\n".join(names).encode(), "labels/train1.txt": b""}


@layout("dtd", "torchvision's folder", theirs=_torchvision("DTD", split="test"))
def dtd(folder, pictures):
    write_all(folder / "dtd" / "dtd", dtd_files(pictures))


@layout("food101", "torchvision's folder", theirs=_torchvision("Food101", split="test"))
def food(folder, pictures):
    rows: dict[str, list[str]] = {}
    for number, one in enumerate(pictures):
        word = one.word.replace(" ", "_")
        rows.setdefault(word, []).append(f"{word}/{number}")
        write(folder / f"food-101/images/{word}/{number}.jpg", one.png)
    write(folder / "food-101/images/apple_pie/99.jpg", pictures[0].png)  # for training
    lines = "\n".join(name for names in rows.values() for name in names)
    write(folder / "food-101/meta/test.txt", lines)
    write(folder / "food-101/meta/test.json", json.dumps(rows))


@layout("gtsrb", "torchvision's folder", theirs=_torchvision("GTSRB", split="test"))
def gtsrb(folder, pictures):
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    base = folder / "gtsrb" / "GTSRB"
    for number, one in enumerate(pictures):
        write(base / f"Final_Test/Images/{number:05d}.ppm", one.png)
        write(base / f"Training/{one.place:05d}/00000_{number:05d}.ppm", one.png)
        lines.append(f"{number:05d}.ppm;20;20;1;1;19;19;{one.place}")
    write(folder / "gtsrb" / "GT-final_test.csv", "\n".join(lines))


@layout("gtsrb", "Kaggle's Test/ and Test.csv")
def gtsrb_kaggle(folder, pictures):
    lines = ["Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"]
    for number, one in enumerate(pictures):
        write(folder / f"Test/{number:05d}.png", one.png)
        write(folder / f"Train/{one.place}/{number:05d}.png", one.png)
        write(folder / f"Meta/{one.place}.png", one.png)
        lines.append(f"20,20,1,1,19,19,{one.place},Test/{number:05d}.png")
    write(folder / "Test.csv", "\n".join(lines))
    write(folder / "Train.csv", lines[0])


@layout("hateful_memes", "its archive, unpacked")
def memes(folder, pictures):
    rows = [
        {"id": n, "img": f"img/{n:05d}.png", "label": one.place, "text": "x"}
        for n, one in enumerate(pictures)
    ]
    for row, one in zip(rows, pictures, strict=True):
        write(folder / row["img"], one.png)
    for name in ("dev_seen", "train", "dev_unseen"):
        lines = [json.dumps(row) for row in (rows if name == "dev_seen" else rows[:2])]
        write(folder / f"{name}.jsonl", "\n".join(lines))


def _torchvision_pets(folder):
    """It lists the classes that are there alone: the name of its picture says which it means."""
    from torchvision.datasets import OxfordIIITPet

    found = OxfordIIITPet(str(folder), split="test")
    words = [path.stem.rpartition("_")[0] for path in found._images]
    return [(picture, word) for (picture, _), word in zip(found, words, strict=True)]


@layout("oxford_pets", "torchvision's folder", theirs=_torchvision_pets)
def pets(folder, pictures):
    lines = []
    for number, one in enumerate(pictures):
        name = f"{one.word.replace(' ', '_')}_{number}"
        write(folder / f"oxford-iiit-pet/images/{name}.jpg", one.png)
        lines.append(f"{name} {one.place + 1} 1 1")
    write(folder / "oxford-iiit-pet/annotations/test.txt", "\n".join(lines))
    write(folder / "oxford-iiit-pet/annotations/trainval.txt", "")


# ---------------------------------------------------------------- MATLAB files


def _torchvision_flowers(folder):
    from torchvision.datasets import Flowers102

    base = folder / "flowers-102"
    files = {
        key: (name, md5(base / name))
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    found = type("Small", (Flowers102,), {"_file_dict": {"image": ("x", ""), **files}})
    return found(str(folder), split="test")


@layout("flowers102", "torchvision's folder", theirs=_torchvision_flowers)
def flowers(folder, pictures):
    from scipy.io import savemat

    base = folder / "flowers-102"
    numbers = [2 * number + 1 for number in range(len(pictures))]
    labels = np.ones(2 * len(pictures), np.uint8)
    for number, one in zip(numbers, pictures, strict=True):
        write(base / f"jpg/image_{number:05d}.jpg", one.png)
        labels[number - 1] = one.place + 1
    savemat(base / "imagelabels.mat", {"labels": labels[None]})
    savemat(base / "setid.mat", {"tstid": [numbers], "trnid": [[2]], "valid": [[4]]})


def cars_mat(path: Path, pictures, **more) -> None:
    from scipy.io import savemat

    names = ["fname" if "test" not in more else "relative_im_path", "class", *more]
    rows = np.zeros((1, len(pictures)), dtype=[(name, object) for name in names])
    for number, one in enumerate(pictures):
        name = f"{number + 1:05d}.jpg" if not more else f"car_ims/{number + 1:06d}.jpg"
        values = [np.array([[value[number]]]) for value in more.values()]
        rows[0, number] = (name, np.array([[one.place + 1]]), *values)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": rows})


def write_cars(folder: Path, pictures) -> None:
    for number, one in enumerate(pictures, 1):
        write(folder / f"{number:05d}.jpg", one.png)


def _torchvision_cars(folder):
    from torchvision.datasets import StanfordCars

    found = StanfordCars(str(folder), split="test")
    return [(picture, found.classes[label]) for picture, label in found]


@layout("stanford_cars", "torchvision's folder", theirs=_torchvision_cars)
def cars(folder, pictures):
    from scipy.io import savemat

    base = folder / "stanford_cars"
    cars_mat(base / "cars_test_annos_withlabels.mat", pictures)
    write_cars(base / "cars_test", pictures)
    (base / "devkit").mkdir()
    names = np.array([FSC["stanford_cars"].classes], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})


@layout("stanford_cars", "the labels in devkit/")
def cars_devkit(folder, pictures):
    cars_mat(folder / "devkit" / "cars_test_annos_withlabels.mat", pictures)
    write_cars(folder / "cars_test", pictures)


@layout("stanford_cars", "Kaggle's cars_test/cars_test")
def cars_kaggle(folder, pictures):
    cars_mat(folder / "cars_test_annos_withlabels.mat", pictures)
    write_cars(folder / "cars_test" / "cars_test", pictures)
    write_cars(folder / "cars_train" / "cars_train", pictures[:1])


@layout("stanford_cars", "cars_annos.mat and car_ims/")
def cars_all(folder, pictures):
    """All 16,185 cars in one list, of which it marks the test set."""
    everything = [*pictures, *pictures[:2]]
    marks = [1] * len(pictures) + [0, 0]
    cars_mat(folder / "cars_annos.mat", everything, test=marks)
    for number, one in enumerate(everything, 1):
        write(folder / f"car_ims/{number:06d}.jpg", one.png)


@layout("stanford_cars", "Kaggle's folders by name")
def cars_folders(folder, pictures):
    base = folder / "car_data" / "car_data"
    write_all(base / "test", in_folders(pictures, lambda one: one.word))
    write_all(base / "train", in_folders(pictures[:1], lambda one: one.word))
    write(folder / "names.csv", "\n".join(FSC["stanford_cars"].classes))


# ---------------------------------------------------------------- ImageNet


def validation(pictures, folder="") -> dict[str, bytes]:
    return {f"{folder}ILSVRC2012_val_{n:08d}.JPEG": one.png for n, one in enumerate(pictures, 1)}


def devkit(folder: Path, pictures) -> None:
    """Its numbers are not those of the sorted synsets: here they count backwards."""
    from scipy.io import savemat

    synsets = FSC["imagenet1k"].class_ids
    names = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"]
    chosen = sorted({one.word for one in pictures}, reverse=True)
    rows = np.zeros((len(chosen) + 1, 1), dtype=[(name, object) for name in names])
    for number, synset in enumerate(chosen):
        rows[number, 0] = (
            1000 - synsets.index(synset),
            synset,
            "a, b",
            "a thing",
            0,
            np.zeros((1, 0)),
        )
    rows[-1, 0] = (1001, "n00001740", "entity", "all", 2, np.array([[1, 2]]))
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": rows}, do_compression=True)
    numbers = "".join(f"{1000 - synsets.index(one.word)}\n" for one in pictures)
    write(data / "ILSVRC2012_validation_ground_truth.txt", numbers)


def _torchvision_devkit(folder):
    """torchvision's own way: the kit as an archive, the images sorted by what it says."""
    import tarfile

    from torchvision.datasets import imagenet

    name = "ILSVRC2012_devkit_t12"
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(folder / name, name)
    before = imagenet.ARCHIVE_META["devkit"]
    imagenet.ARCHIVE_META["devkit"] = (f"{name}.tar.gz", md5(folder / f"{name}.tar.gz"))
    try:
        imagenet.parse_devkit_archive(str(folder))
    finally:
        imagenet.ARCHIVE_META["devkit"] = before
    from PIL import Image

    _, words = imagenet.load_meta_file(str(folder))
    files = sorted(folder.rglob("ILSVRC2012_val_*.JPEG"))
    return [(Image.open(file), word) for file, word in zip(files, words, strict=True)]


@layout("imagenet1k", "the development kit and val/", theirs=_torchvision_devkit)
def imagenet_devkit(folder, pictures):
    devkit(folder, pictures)
    write_all(folder / "val", validation(pictures))


@layout("imagenet1k", "the development kit and the tar")
def imagenet_devkit_tar(folder, pictures):
    devkit(folder, pictures)
    write_tar(folder / "ILSVRC2012_img_val.tar", validation(pictures))


@layout("imagenet1k", "the ground truth without meta.mat", refused="only meta.mat says which")
def imagenet_truth(folder, pictures):
    devkit(folder, pictures)
    (folder / "ILSVRC2012_devkit_t12/data/meta.mat").unlink()
    write_all(folder / "val", validation(pictures))


def _sorted_by_class(folder):
    from torchvision.datasets import ImageFolder

    found = ImageFolder(str(next(path for path in folder.rglob("val") if path.is_dir())))
    return [(picture, found.classes[label]) for picture, label in found]


@layout("imagenet1k", "val/ with a folder a synset", theirs=_sorted_by_class)
def imagenet_val(folder, pictures):
    write_all(folder / "val", in_folders(pictures, lambda one: one.word))
    write_all(folder / "train", in_folders(pictures[:1], lambda one: one.word))


@layout("imagenet1k", "Caffe's val.txt")
def imagenet_caffe(folder, pictures):
    write_all(folder / "val", validation(pictures))
    lines = [f"ILSVRC2012_val_{n:08d}.JPEG {one.place}" for n, one in enumerate(pictures, 1)]
    write(folder / "val.txt", "\n".join(lines))


@layout("imagenet1k", "the synset labels of TensorFlow")
def imagenet_synsets(folder, pictures):
    write_all(folder, validation(pictures))
    name = "imagenet_2012_validation_synset_labels.txt"
    write(folder / name, "\n".join(one.word for one in pictures))


def kaggle_list(folder: Path, pictures) -> None:
    rows = [f"ILSVRC2012_val_{n:08d},{one.word} 1 2 3 4 " for n, one in enumerate(pictures, 1)]
    write(folder / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows]))
    lines = [f"ILSVRC2012_val_{n:08d} {n}" for n in range(1, len(pictures) + 1)]
    write(folder / "ILSVRC/ImageSets/CLS-LOC/val.txt", "\n".join(lines))


@layout("imagenet1k", "Kaggle's flat pictures and list")
def imagenet_kaggle(folder, pictures):
    kaggle_list(folder, pictures)
    write_all(folder / "ILSVRC/Data/CLS-LOC/val", validation(pictures))


@layout("imagenet1k", "Kaggle's, sorted into folders", theirs=_sorted_by_class)
def imagenet_kaggle_sorted(folder, pictures):
    kaggle_list(folder, pictures)
    for number, one in enumerate(pictures, 1):
        name = f"{one.word}/ILSVRC2012_val_{number:08d}.JPEG"
        write(folder / "ILSVRC/Data/CLS-LOC/val" / name, one.png)


# ---------------------------------------------------------------- archives that must be unpacked


@layout("oxford_pets", "images.tar.gz and annotations.tar.gz", refused="tar -xf annotations.tar.gz")
def pets_packed(folder, pictures):
    write_tar_gz(folder / "images.tar.gz", {"images/a.jpg": pictures[0].png})
    write_tar_gz(folder / "annotations.tar.gz", {"annotations/test.txt": b"a 1 1 1"})


@layout("hateful_memes", "its zip as it comes", refused="unzip")
def memes_zip(folder, pictures):
    lines = [{"id": 0, "img": "img/00000.png", "label": 0}]
    files = {"hateful_memes/dev_seen.jsonl": json.dumps(lines[0]).encode()}
    return write_zip(
        folder / "hateful_memes.zip", {**files, "hateful_memes/img/00000.png": pictures[0].png}
    )


@layout("gtsrb", "the owners' two zips", refused="unzip")
def gtsrb_zips(folder, pictures):
    names = {f"GTSRB/Final_Test/Images/{n:05d}.ppm": one.png for n, one in enumerate(pictures)}
    write_zip(folder / "GTSRB_Final_Test_Images.zip", names)
    write_zip(folder / "GTSRB_Final_Test_GT.zip", {"GT-final_test.csv": b"Filename;ClassId\n"})
