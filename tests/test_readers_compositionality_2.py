"""SugarCrepe, SVO-Probes, VALSE, VL-CheckList, What'sUp, COCO, Flickr30k, COCO-Counterfactuals.

From raw files to records: on the real annotation files (their folder in FSC_BENCH_REAL_DATA), on
small copies that one can check by eye, on the demo world's copies, and on damaged ones.
"""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fuzz_raw import fuzz

from fsc_bench.data.images import write_link
from fsc_bench.data.prepare import prepare
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader, vl_checklist
from fsc_bench.errors import DataError
from fsc_bench.evidence import Evidence
from fsc_bench.records import OWN, ImageRef, Record, check_records
from fsc_bench.task import Task, catalogue

REAL = os.environ.get("FSC_BENCH_REAL_DATA", "")
real = pytest.mark.skipif(
    not REAL, reason="FSC_BENCH_REAL_DATA names no folder of annotation files"
)

TASKS = [
    "sugarcrepe",
    "svo_probes",
    "valse",
    "vl_checklist",
    "whatsup",
    "coco_karpathy",
    "flickr30k",
    "coco_counterfactuals",
]


def shipped(name: str, subsets: dict | None = None, **options) -> Task:
    """A shipped task, with fewer subsets or other counts and options where a test has a part."""
    task = catalogue()[name]
    if subsets is not None:
        task = replace(task, subsets=subsets, counts={}, evidence=Evidence())
    return replace(task, data=replace(task.data, options={**task.data.options, **options}))


def records(task: Task, folder: Path, **raw) -> list[Record]:
    found = list(load_reader(task.data.reader, "").read(task, Raw(task, folder, **raw)))
    check_records(task, found, str(folder))
    return found


# ---------------------------------------------------------------- the real annotation files


@real
def test_sugarcrepe_has_7511_records_of_1560_images():
    found = records(shipped("sugarcrepe"), Path(REAL, "sugarcrepe"))
    assert len(found) == 7511
    assert len({row.images[0] for row in found}) == 1560
    assert len({text for row in found for text in row.texts}) == 11844
    # Key 108 of swap_obj was withdrawn; keys are not contiguous.
    assert "swap_obj/108" not in {row.id for row in found}


VALSE = {
    "existence": (505, 505, 598, "visual7w"),
    "plurals": (851, 803, 1702, "coco/val2017"),
    "counting-hard": (868, 868, 1360, "visual7w"),
    "counting-small-quant": (900, 900, 1251, "visual7w"),
    "counting-adversarial": (691, 691, 1172, "visual7w"),
    "relations": (535, 486, 1056, "coco/val2017"),
    "action-replacement": (648, 648, 1272, "swig"),
    "actant-swap": (949, 949, 1502, "swig"),
    "coreference-hard": (104, 104, 208, "visdial"),
    "foil-it": (943, 936, 1882, "coco/val2014"),
}


@real
@pytest.mark.parametrize("piece", VALSE)
def test_valse_keeps_the_records_that_annotators_confirmed(piece):
    if not Path(REAL, "valse", f"{piece}.json").exists():
        pytest.skip(f"no {piece}.json")
    count, images, texts, source = VALSE[piece]
    found = records(shipped("valse", {piece: count}), Path(REAL, "valse"))
    assert len({row.images[0] for row in found}) == images
    assert len({text for row in found for text in row.texts}) == texts
    assert {row.images[0].source for row in found} == {source}


@real
def test_valse_without_the_threshold_has_every_record():
    assert len(records(shipped("valse", {"existence": 534}, votes=0), Path(REAL, "valse"))) == 534


# Lengths of whole files, from the specification.
VL_CHECKLIST = {
    "Attribute_action": {"vaw": 3039, "vg": 1892},
    "Attribute_color": {"vg": 11569},
    "Attribute_material": {"vaw": 11835, "vg": 2470},
    "Attribute_size": {"vaw": 15321, "vg": 2695},
    "Attribute_state": {"vaw": 4939, "vg": 941},
    "Object_Location_margin": {
        "hake": 10062, "swig_agent": 260, "swig_destination": 45, "swig_item": 88,
        "swig_tool": 121, "vg_obj": 8291, "vg_subj": 5974,
    },
    "Object_Location_mid": {
        "swig_agent": 5074, "swig_destination": 530, "swig_item": 1715, "swig_tool": 2226,
        "vg_subj": 26294,
    },
    "Object_Location_center": {
        "swig_destination": 1063, "swig_item": 4163, "swig_tool": 4056, "vg_subj": 25383,
    },
    "Object_Size_large": {
        "swig_destination": 1520, "swig_item": 5070, "swig_tool": 4643, "vg_subj": 26167,
    },
    "Object_Size_medium": {
        "hake": 30910, "swig_agent": 442, "swig_destination": 109, "swig_item": 742,
        "swig_tool": 1452, "vg_obj": 30725, "vg_subj": 20930,
    },
    "Object_Size_small": {
        "hake": 6210, "swig_agent": 48, "swig_destination": 9, "swig_item": 154,
        "swig_tool": 308, "vg_obj": 13702, "vg_subj": 10554,
    },
    "Relation_action": {"swig": 25150, "vg": 12733},
    "Relation_spatial": {"vg": 30650},
}  # fmt: skip
VL_FILES = {
    f"{column}/{file}": n for column, row in VL_CHECKLIST.items() for file, n in row.items()
}


@real
def test_vl_checklist_files_have_their_lengths_and_at_most_1000_count():
    folder = Path(REAL, "vl_checklist")
    promised = catalogue()["vl_checklist"].leaves
    present = 0
    for subset, length in VL_FILES.items():
        if not Raw(shipped("vl_checklist"), folder).has(
            f"data/{vl_checklist.annotation_file(subset)}"
        ):
            continue
        present += 1
        assert len(records(shipped("vl_checklist", {subset: length}, cap=0), folder)) == length
        used = records(shipped("vl_checklist", {subset: promised[subset]}), folder)
        assert len(used) == promised[subset] == min(length, 1000), subset
        assert [row.id for row in used[:2]] == [f"{subset}/0", f"{subset}/1"]
    assert present, "no file of VL-CheckList was there"


@real
def test_coco_has_5000_images_and_25010_captions():
    found = records(shipped("coco_karpathy"), Path(REAL, "coco_karpathy"))
    assert len(found) == 5000
    assert Counter(len(row.texts) for row in found) == {5: 4990, 6: 10}
    assert found[0].images == (ImageRef("coco/val2014", "COCO_val2014_000000391895.jpg"),)


@real
def test_the_raw_copy_of_the_coco_captions_reads_the_same_but_for_blanks():
    stripped = records(shipped("coco_karpathy"), Path(REAL, "coco_karpathy"))
    found = records(shipped("coco_karpathy"), Path(REAL, "aro"))
    assert [row.images for row in found] == [row.images for row in stripped]
    assert [[text.strip() for text in row.texts] for row in found] == [
        list(row.texts) for row in stripped
    ]


@real
def test_flickr30k_has_1000_images_and_5000_captions():
    found = records(shipped("flickr30k"), Path(REAL, "flickr30k"))
    assert len(found) == 1000
    assert {len(row.texts) for row in found} == {5}
    assert found[0].images == (ImageRef("flickr30k", "1007129816.jpg"),)


@real
def test_coco_counterfactuals_test_split_is_5223_whole_pairs():
    folder = Path(REAL, "coco_counterfactuals")
    found = records(shipped("coco_counterfactuals"), folder)
    assert len(found) == 10446
    assert set(Counter(row.cluster for row in found).values()) == {2}
    assert len({row.cluster for row in found}) == 5223
    assert len({row.texts[0] for row in found}) == 10403
    by_id = records(shipped("coco_counterfactuals", split="test_ids.txt"), folder)
    assert {row.id: row for row in by_id} == {row.id: row for row in found}
    everything = shipped("coco_counterfactuals", {"test": 34820}, split="")
    assert len(records(everything, folder)) == 34820


# ---------------------------------------------------------------- copies to check by eye


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


JPEG = b"\xff\xd8\xff\xe0 picture"


def write_svo_probes(folder: Path, rows: list[str], pictures: dict[str, bytes]) -> Path:
    header = (
        "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,"
        "subj_neg,verb_neg,obj_neg"
    )
    write(folder / "svo_probes.csv", "\n".join([header, *rows]) + "\n")
    for name, content in pictures.items():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


GIRL = 'A girl stands in the grass.,"girl,stand,grass","{}",http://x/a,http://x/{},12,{},{}'
SVO_ROWS = [
    GIRL.format("dog,stand,grass", "b", 345, "True,False,False"),
    GIRL.format("girl,run,grass", "c", 346, "False,True,False"),
    GIRL.format("girl,stand,sand", "d", 347, "False,False,True"),
    GIRL.format("dog,stand,sand", "e", 348, "True,False,True"),
]
SVO_PICTURES = {f"{name}.jpg": JPEG for name in (12, 345, 346, 347, 348)}


def test_svo_probes_chooses_between_two_pictures(tmp_path):
    folder = write_svo_probes(tmp_path, SVO_ROWS, SVO_PICTURES)
    task = shipped("svo_probes", {"subj_neg": 2, "verb_neg": 1, "obj_neg": 1})
    found = records(task, folder)
    assert found[0] == Record(
        id="0",
        subset="subj_neg",
        images=(ImageRef(OWN, "images/12.jpg"), ImageRef(OWN, "images/345.jpg")),
        texts=("A girl stands in the grass.",),
        cluster="12",
    )
    assert [row.subset for row in found] == ["subj_neg", "verb_neg", "obj_neg", "subj_neg"]
    # DeepMind's notebook leaves out what differs in two parts.
    strict = shipped("svo_probes", {"subj_neg": 1, "verb_neg": 1, "obj_neg": 1}, several="drop")
    assert [row.id for row in records(strict, folder)] == ["0", "1", "2"]


def test_svo_probes_counts_rows_with_both_pictures_only(tmp_path):
    """A picture is named by its id or its address, in any format; a saved web page is none."""
    pictures = {
        "12.png": b"\x89PNG\r\n\x1a\n....",
        "345.jpg": b"<!DOCTYPE html><title>404</title>",
        "6c8ab26a3f19ca4fa0d9ba1a4e4ab0a1.jpg": JPEG,  # of nobody
        "2e2b4f7d3b0d8c1c2f6a.jpg": JPEG,
        "347.webp": b"RIFF\0\0\0\0WEBPVP8 ",
    }
    folder = write_svo_probes(tmp_path, SVO_ROWS, pictures)
    task = shipped("svo_probes", {"subj_neg": 1, "verb_neg": 1, "obj_neg": 1})
    raw = Raw(task, folder)
    found = list(load_reader("svo_probes", "").read(task, raw))
    assert [row.id for row in found] == ["2"]
    assert found[0].images == (ImageRef(OWN, "images/12.png"), ImageRef(OWN, "images/347.webp"))
    assert [str(image) for image in raw.skipped] == [
        "images/345.jpg",
        "images/346.jpg",
        "images/348.jpg",
    ]
    assert raw.notes["coverage"] == "4 rows, 3 without both images, 0 of no single kind"


def test_svo_probes_finds_a_picture_by_the_md5_of_its_address(tmp_path):
    import hashlib

    name = hashlib.md5(b"http://x/b").hexdigest()
    folder = write_svo_probes(tmp_path, SVO_ROWS[:1], {"12.jpg": JPEG, f"{name}.jpg": JPEG})
    task = shipped("svo_probes", {"subj_neg": 1})
    assert records(task, folder)[0].images[1] == ImageRef(OWN, f"images/{name}.jpg")


def test_svo_probes_rows_can_be_fixed(tmp_path):
    folder = write_svo_probes(tmp_path, SVO_ROWS, SVO_PICTURES)
    write(folder / "rows.txt", "1\n3\n")
    task = shipped("svo_probes", {"subj_neg": 1, "verb_neg": 1}, rows="rows.txt")
    assert [row.id for row in records(task, folder)] == ["1", "3"]


def test_svo_probes_on_part_of_the_pictures_runs_only_when_allowed_and_says_so(tmp_path):
    write_svo_probes(tmp_path / "raw" / "svo_probes", SVO_ROWS, SVO_PICTURES)
    (tmp_path / "raw" / "svo_probes" / "images" / "346.jpg").unlink()
    task = shipped("svo_probes")
    with pytest.raises(DataError, match=r"subj_neg: 2 records, the task file promises 3,728\."):
        prepare(task, tmp_path)
    found = prepare(task, tmp_path, partial=True)
    assert [row.id for row in found.records] == ["0", "2", "3"]
    assert "the task file promises 3,728" in found.partial
    assert "1 images missing, passed over" in found.partial
    assert found.missing_images == ("images/346.jpg",)
    # The picture arrives: the records are made anew.
    (tmp_path / "raw" / "svo_probes" / "images" / "346.jpg").write_bytes(JPEG)
    found = prepare(task, tmp_path, partial=True)
    assert len(found.records) == 4 and "missing" not in found.partial


def valse(caption: int, image: str, dataset: str, text: str = "A man exercises his torso.") -> dict:
    return {
        "dataset": dataset, "image_file": image, "linguistic_phenomena": "actions",
        "caption": text, "foil": "A torso exercises for a man.",
        "mturk": {"foil": 3 - caption, "caption": caption, "other": 0},
    }  # fmt: skip


def test_valse_reads_valid_records_from_the_folder_their_name_or_dataset_says(tmp_path):
    rows = {
        "actions_test_0": valse(3, "exercising_255.jpg", "SWiG"),
        "actions_test_1": valse(1, "calling_1.jpg", "SWiG", text=""),  # not valid, so not looked at
        "a": valse(2, "v7w_1.jpg", "visual7w"),
        "b": valse(2, "000000291619.jpg", "coco2017"),
        "c": valse(2, "000000291620.jpg", "coco_2017"),
        "d": valse(2, "COCO_train2014_000000000009.jpg", "VisDial_v1.0"),
        "e": valse(2, "COCO_val2014_000000000042.jpg", "VisDial_v1.0"),
        "f": valse(2, "VisualDialog_val2018_000000284024.jpg", "VisDial_v1.0"),
        "g": valse(2, "COCO_val2014_000000165831.jpg", "FOIL dataset"),
    }
    write(tmp_path / "actant-swap.json", rows)
    found = records(shipped("valse", {"actant-swap": 8}), tmp_path)
    assert found[0] == Record(
        id="actant-swap/actions_test_0",
        subset="actant-swap",
        images=(ImageRef("swig", "exercising_255.jpg"),),
        texts=("A man exercises his torso.", "A torso exercises for a man."),
        cluster="swig:exercising_255.jpg",
    )
    assert [row.images[0].source for row in found] == [
        "swig", "visual7w", "coco/val2017", "coco/val2017",
        "coco/train2014", "coco/val2014", "visdial", "coco/val2014",
    ]  # fmt: skip


def test_valse_refuses_an_image_of_an_unknown_dataset(tmp_path):
    path = write(tmp_path / "foil-it.json", {"7": valse(3, "x.jpg", "Flickr")})
    with pytest.raises(DataError) as caught:
        records(shipped("valse", {"foil-it": 1}), tmp_path)
    line = f"valse: {path}: record 7: 'x.jpg' is of 'Flickr'; no image source is known for it."
    assert str(caught.value) == line


VL_ROWS = [
    ["VG_100K/1.jpg", {"POS": ["skiing slope"], "NEG": ["snowboarding slope"]}],
    ["VG_100K/2.jpg", {"POS": ["red bus"], "NEG": ["red bus"]}],
    ["VG_100K_2/3.jpg", {"POS": ["old train", "x"], "NEG": ["new train", "y"]}],
    ["VG_100K/4.jpg", {"POS": ["plant IN pot"], "NEG": [" customers"]}],
]


def test_vl_checklist_takes_the_first_texts_of_the_first_records(tmp_path):
    write(tmp_path / "data" / "Attribute" / "vg" / "action.json", VL_ROWS)
    task = shipped("vl_checklist", {"Attribute_action/vg": 3}, cap=3)
    found = records(task, tmp_path)
    assert found[2] == Record(
        id="Attribute_action/vg/2",
        subset="Attribute_action/vg",
        images=(ImageRef("vg", "VG_100K_2/3.jpg"),),
        texts=("old train", "new train"),
        cluster="vg:VG_100K_2/3.jpg",
    )
    # Equal texts stay: they tie, and a tie is a miss, as in the official comparison.
    assert found[1].texts == ("red bus", "red bus")
    assert len(records(shipped("vl_checklist", {"Attribute_action/vg": 4}, cap=0), tmp_path)) == 4


def test_vl_checklist_moves_its_window_past_missing_images_and_lists_them(tmp_path):
    write(tmp_path / "Attribute" / "vg" / "action.json", VL_ROWS)
    task = shipped("vl_checklist", {"Attribute_action/vg": 3}, cap=3)
    raw = Raw(task, tmp_path, lambda image: image.path != "VG_100K/2.jpg")
    found = list(vl_checklist.read(task, raw))
    assert [row.id[-1] for row in found] == ["0", "2", "3"]
    assert raw.skipped == [ImageRef("vg", "VG_100K/2.jpg")]
    keep = replace(task, data=replace(task.data, options={"cap": 3, "missing": "keep"}))
    raw = Raw(keep, tmp_path, lambda image: image.path != "VG_100K/2.jpg")
    assert [row.id[-1] for row in vl_checklist.read(keep, raw)] == ["0", "1", "2"]


def test_vl_checklist_with_a_missing_image_is_flagged_although_the_counts_are_right(tmp_path):
    write(tmp_path / "raw" / "vl_checklist" / "data/Attribute/vg/action.json", VL_ROWS)
    for name in ("VG_100K/1.jpg", "VG_100K_2/3.jpg", "VG_100K/4.jpg"):
        write(tmp_path / "images" / "vg" / name, "picture")
    task = shipped("vl_checklist", {"Attribute_action/vg": 3}, cap=3)
    with pytest.raises(DataError, match=r"1 images are missing, such as 'vg:VG_100K/2\.jpg'"):
        prepare(task, tmp_path)
    found = prepare(task, tmp_path, partial=True)
    assert len(found.records) == 3
    assert found.partial == "1 images missing, passed over"
    assert found.missing_images == ("vg:VG_100K/2.jpg",)


def test_vl_checklist_without_an_image_source_says_which(tmp_path):
    write(tmp_path / "raw" / "vl_checklist" / "data/Attribute/vg/action.json", VL_ROWS)
    task = shipped("vl_checklist", {"Attribute_action/vg": 3}, cap=3)
    with pytest.raises(
        DataError, match=r"3 of 3 images are missing.*`fsc-bench data link vg PATH`"
    ):
        prepare(task, tmp_path)


@pytest.mark.parametrize(
    ("subset", "file"),
    [
        ("Object_Location_center/hake", "Object/Location/hake_location/hake_obj_center.json"),
        (
            "Object_Size_small/swig_tool",
            "Object/Size/swig_size/swig_tool/swig_tool_small.json",
        ),
        ("Object_Location_mid/vg_subj", "Object/Location/vg_location/vg_subj_mid.json"),
        ("Attribute_color/vaw", "Attribute/vaw/color.json"),
        ("Relation_action/hake", "Relation/hake_action.json"),
        ("Relation_action/swig", "Relation/swig_action.json"),
        ("Relation_spatial/vg", "Relation/vg/spatial.json"),
        ("Object_Location_center/coco", None),
    ],
)
def test_vl_checklist_subsets_name_their_files(subset, file):
    assert vl_checklist.annotation_file(subset) == file


CONTROLLED = [
    {
        "image_path": "data/controlled_images/beer-bottle_on_armchair.jpeg",
        "caption_options": [
            "A beer bottle on a armchair", "A beer bottle under a armchair",
            "A beer bottle to the left of a armchair", "A beer bottle to the right of a armchair",
        ],
    }
]  # fmt: skip


@pytest.mark.parametrize("place", ["", "data"])
def test_whatsup_reads_a_clone_or_its_data_folder(tmp_path, place):
    """Paths start at the repository's root; the images lie beside the annotation in its data/."""
    write(tmp_path / place / "controlled_images_dataset.json", CONTROLLED)
    write(tmp_path / place / "vg_qa_one_obj.json", [["2324", "A dog on the left", "... right"]])
    write(tmp_path / place / "coco_qa_two_obj.json", [[724, "A cat above a bed", "... below ..."]])
    task = shipped("whatsup", {"WhatsUp_A": 1, "VG_QA_ONE": 1, "COCO_QA_TWO": 1})
    found = {row.subset: row for row in records(task, tmp_path)}
    prefix = f"{place}/" if place else ""
    assert found["WhatsUp_A"] == Record(
        id="WhatsUp_A/0",
        subset="WhatsUp_A",
        images=(ImageRef(OWN, f"{prefix}controlled_images/beer-bottle_on_armchair.jpeg"),),
        texts=tuple(CONTROLLED[0]["caption_options"]),
        cluster=f"{prefix}controlled_images/beer-bottle_on_armchair.jpeg",
    )
    assert found["COCO_QA_TWO"].images == (ImageRef("coco/val2017", "000000000724.jpg"),)
    assert found["COCO_QA_TWO"].texts == ("A cat above a bed", "... below ...")
    assert found["VG_QA_ONE"].images == (ImageRef(OWN, f"{prefix}vg_images/2324.jpg"),)


def test_whatsup_reads_pictures_inside_their_archives(tmp_path):
    write(tmp_path / "controlled_images_dataset.json", CONTROLLED)
    write(tmp_path / "vg_qa_one_obj.json", [["2324", "A dog on the left", "... right"]])
    write(tmp_path / "controlled_images.tar", "")
    write(tmp_path / "vg_images.tar", "")
    found = records(shipped("whatsup", {"WhatsUp_A": 1, "VG_QA_ONE": 1}), tmp_path)
    assert [row.images[0].path for row in found] == [
        "controlled_images.tar::controlled_images/beer-bottle_on_armchair.jpeg",
        "vg_images.tar::vg_images/2324.jpg",
    ]


def test_whatsup_refuses_another_number_of_captions(tmp_path):
    rows = [{**CONTROLLED[0], "caption_options": CONTROLLED[0]["caption_options"][:3]}]
    path = write(tmp_path / "controlled_images_dataset.json", rows)
    with pytest.raises(DataError) as caught:
        records(shipped("whatsup", {"WhatsUp_A": 1}), tmp_path)
    assert str(caught.value) == f"whatsup: {path}: record 0: has 3 captions, not 4."


def test_karpathy_files_keep_captions_raw_and_leave_the_source_out_of_paths(tmp_path):
    row = {"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["A man. ", "A moped."]}
    write(tmp_path / "coco_karpathy_test.json", [row])
    (found,) = records(shipped("coco_karpathy", {"test": 1}), tmp_path)
    assert found.id == "COCO_val2014_000000391895"
    assert found.images == (ImageRef("coco/val2014", "COCO_val2014_000000391895.jpg"),)
    assert found.texts == ("A man. ", "A moped.")
    row = {"image": "flickr30k-images/1007129816.jpg", "caption": ["A hat."]}
    write(tmp_path / "flickr30k_test.json", [row])
    (found,) = records(shipped("flickr30k", {"test": 1}), tmp_path)
    assert found.images == (ImageRef("flickr30k", "1007129816.jpg"),)


CAKE = {
    "id": "158956_0", "caption_0": "A woman cuts a cake.", "caption_1": "A baker cuts a cake. ",
    "image_0": "158956_0_img_0", "image_1": "158956_0_img_1",
}  # fmt: skip
CAKE_ROWS = (
    "image_path,caption\n"
    "../../coco-counterfactuals/synthetic-images-for-counterfactual-captions/158956_0.jpg,"
    "A baker cuts a cake. \n"
    "../../coco-counterfactuals/synthetic-images-for-original-captions/158956_0.jpg,"
    "A woman cuts a cake.\n"
)


def write_counterfactuals(folder: Path) -> Path:
    other = {key: value.replace("158956", "2") for key, value in CAKE.items()}
    lines = [json.dumps(other), json.dumps(CAKE)]
    write(folder / "data" / "examples.jsonl", "\n".join(lines) + "\n")
    write(folder / "test-coco-cfs.csv", CAKE_ROWS)
    return folder


def test_coco_counterfactuals_twins_share_a_cluster(tmp_path):
    found = records(shipped("coco_counterfactuals", {"test": 2}), write_counterfactuals(tmp_path))
    assert found == [
        Record(
            id="158956_0_img_1",
            subset="test",
            images=(ImageRef(OWN, "data/images/158956_0_img_1.jpg"),),
            texts=("A baker cuts a cake. ",),
            cluster="158956_0",
        ),
        Record(
            id="158956_0_img_0",
            subset="test",
            images=(ImageRef(OWN, "data/images/158956_0_img_0.jpg"),),
            texts=("A woman cuts a cake.",),
            cluster="158956_0",
        ),
    ]


@pytest.mark.parametrize("inside", ["", "images/"])
def test_coco_counterfactuals_reads_either_layout_of_the_zip(tmp_path, inside):
    import zipfile

    folder = write_counterfactuals(tmp_path)
    with zipfile.ZipFile(folder / "data" / "images.zip", "w") as archive:
        for stem in ("2_0_img_0", "2_0_img_1", "158956_0_img_0", "158956_0_img_1"):
            archive.writestr(f"{inside}{stem}.jpg", JPEG)
    first, _ = records(shipped("coco_counterfactuals", {"test": 2}), folder)
    assert first.images[0].path == f"data/images.zip::{inside}158956_0_img_1.jpg"


def test_coco_counterfactuals_refuses_a_caption_of_the_twin(tmp_path):
    folder = write_counterfactuals(tmp_path)
    write(folder / "test-coco-cfs.csv", CAKE_ROWS.replace("A baker cuts a cake. ", "A woman cuts."))
    with pytest.raises(DataError, match=r"row 1: has another caption than examples\.jsonl\."):
        records(shipped("coco_counterfactuals", {"test": 2}), folder)


# ---------------------------------------------------------------- the demo world's copies


@pytest.mark.parametrize("name", TASKS)
def test_the_demo_worlds_raw_copy_is_prepared_whole(name, tmp_path):
    raw = pytest.importorskip("fsc_bench.demo.raw")
    folder = tmp_path / "raw" / name
    raw.write(name, folder, tmp_path / "images", n=8)
    task = shipped(name, {})
    found = list(
        load_reader(task.data.reader, "").read(
            replace(task, subsets=catalogue()[name].subsets), Raw(task, folder)
        )
    )
    counts = Counter(row.subset for row in found)
    assert set(counts) == set(catalogue()[name].leaves)
    ready = prepare(shipped(name, dict(counts)), tmp_path)
    assert len(ready.records) == counts.total() and not ready.partial and not ready.missing_images


# ---------------------------------------------------------------- damaged copies


def damaged_copy(name: str, folder: Path) -> tuple[Task, str]:
    """A small valid copy: the task that reads it, and the file to damage."""
    if name == "sugarcrepe":
        rows = {
            str(k): {
                "filename": f"{k:012d}.jpg",
                "caption": f"A {k} dog.",
                "negative_caption": "No.",
            }
            for k in range(4)
        }
        write(folder / "swap_obj.json", rows)
        return shipped(name, {"swap_obj": 4}), "swap_obj.json"
    if name == "svo_probes":
        write_svo_probes(folder, SVO_ROWS, SVO_PICTURES)
        return shipped(name, {"subj_neg": 2, "verb_neg": 1, "obj_neg": 1}), "svo_probes.csv"
    if name == "valse":
        names = [f"v7w_{k}.jpg" for k in range(3)] + [f"exercising_{k}.jpg" for k in range(3)]
        rows = {f"id_{k}": valse(3, image, "SWiG") for k, image in enumerate(names)}
        write(folder / "actant-swap.json", rows)
        return shipped(name, {"actant-swap": 6}), "actant-swap.json"
    if name == "vl_checklist":
        write(folder / "data/Attribute/vg/action.json", VL_ROWS)
        return shipped(name, {"Attribute_action/vg": 4}), "data/Attribute/vg/action.json"
    if name == "whatsup":
        write(folder / "controlled_images_dataset.json", CONTROLLED * 2)
        return shipped(name, {"WhatsUp_A": 2}), "controlled_images_dataset.json"
    if name == "whatsup questions":
        write(folder / "coco_qa_one_obj.json", [[k, f"A {k} left", "A right"] for k in range(4)])
        return shipped("whatsup", {"COCO_QA_ONE": 4}), "coco_qa_one_obj.json"
    if name in ("coco_karpathy", "flickr30k"):
        rows = [{"image": f"val2014/{k}.jpg", "caption": ["One.", f"Two {k}."]} for k in range(4)]
        task = shipped(name, {"test": 4})
        write(folder / task.data.options["file"], rows)
        return task, task.data.options["file"]
    write_counterfactuals(folder)
    file = "test-coco-cfs.csv" if name == "coco_counterfactuals" else "data/examples.jsonl"
    return shipped("coco_counterfactuals", {"test": 2}), file


@pytest.mark.parametrize("name", [*TASKS, "whatsup questions", "coco_counterfactuals examples"])
def test_damaged_files_are_read_rightly_or_refused_in_one_line(name, tmp_path):
    folder = tmp_path / name.split()[0]
    task, file = damaged_copy(name, folder)
    outcomes = fuzz(task, folder, file, load_reader(task.data.reader, "").read, count=200)
    assert outcomes["refused"] > 100, outcomes


def test_a_linked_raw_folder_is_read_in_place(tmp_path):
    folder = write_counterfactuals(tmp_path / "elsewhere")
    for k in (0, 1):
        write(folder / "data" / "images" / f"158956_0_img_{k}.jpg", "picture")
    write_link(tmp_path / "data", "coco_counterfactuals", folder)
    assert (
        len(prepare(shipped("coco_counterfactuals", {"test": 2}), tmp_path / "data").records) == 2
    )
