"""`hf:` refuses by one line what transformers would take without a word: weights that are no
weights, settings of a stranger's that crash, fill the memory or make a text's vector depend on the
text beside it, and classes of another kind than what is wanted.
"""

import json
import shutil
from pathlib import Path

import pytest
import tiny_hf
import torch
from safetensors.torch import load_file, save_file

from fsc_bench.errors import UsageError
from fsc_bench.models import check_named, load_model

PROJECTION = "text_projection.weight"
POSITIONS = "text_model.embeddings.position_ids"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a tiny CLIP, written once; not to be changed."""
    return tiny_hf.save(tmp_path_factory.mktemp("hf") / "clip", "clip")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of it, to be spoiled."""
    return shutil.copytree(saved, tmp_path / "clip")


def refusal(act, spec: object) -> str:
    with pytest.raises(UsageError) as caught:
        act(f"hf:{spec}")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"model 'hf:{spec}': ")


def load(spec: str):
    return load_model(spec, "cpu")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_number_are_not_cast(dtype, folder):
    state = load_file(folder / "model.safetensors")
    save_file({**state, PROJECTION: state[PROJECTION].to(dtype)}, folder / "model.safetensors")

    assert refusal(load, folder) == (
        f"the weights do not fit: {PROJECTION} is {dtype}. Quantised weights are to be turned back "
        "into floating point first."
    )


def test_positions_in_another_order_are_not_left_out(folder):
    state = load_file(folder / "model.safetensors")
    save_file({**state, POSITIONS: torch.arange(8).flip(0)}, folder / "model.safetensors")

    assert refusal(load, folder) == (
        f"the weights do not fit: {POSITIONS} holds other numbers than 0, 1, 2, ..., which "
        "transformers cannot use."
    )


def test_a_tensor_in_two_parts_is_not_chosen_from(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({PROJECTION: state[PROJECTION] + 1}, folder / "b.safetensors")
    named = {**dict.fromkeys(state, "a.safetensors"), "other": "b.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": named}))

    said = refusal(load, folder)
    assert said == f"{folder}/b.safetensors: {PROJECTION} is in another part too."


# file, setting, value, the line before anything is loaded
SETTINGS = [
    ("tokenizer_config", "tokenizer_class", "AutoModel", "'AutoModel' is no tokenizer."),
    ("tokenizer_config", "tokenizer_class", "RagRetriever", "'RagRetriever' is no tokenizer."),
    ("config", "tokenizer_class", "CLIPModel", "'CLIPModel' is no tokenizer."),
    ("preprocessor_config", "image_processor_type", "CLIPModel",
     "'CLIPModel' is no image processor."),
    ("preprocessor_config", "feature_extractor_type", 7, "7 is no image processor."),
    ("preprocessor_config", "crop_size", 60_000, "60000 is no size of a picture."),
    ("preprocessor_config", "size", 0, "0 is no size of a picture."),
    ("preprocessor_config", "max_num_patches", 10**9, "1000000000 is no size of a picture."),
    ("preprocessor_config", "image_std", [0.3, 0, 0.3], "[0.3, 0, 0.3] is no deviation of pixels."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "value", "said"), SETTINGS)
def test_a_setting_that_no_model_has_is_one_line_before_anything_is_loaded(
    name, key, value, said, folder
):
    file = folder / f"{name}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))

    assert refusal(check_named, folder) == f"{file}: {key} = {said}"


def test_nested_settings_count_too(folder):
    nested = {"image_processor": {"size": {"height": 99_999, "width": 32}}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert refusal(check_named, folder).endswith("height = 99999 is no size of a picture.")

    deep: object = 1
    for _ in range(700):
        deep = {"a": deep}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "more": deep}))
    assert refusal(check_named, folder).endswith("holds more than 20 tables within tables.")


@pytest.mark.parametrize("longest", ["many", 0, 2, -5])
def test_a_tokenizer_must_leave_a_text_some_tokens(longest, folder):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": longest}))

    assert refusal(load, folder) == f"its tokenizer has model_max_length = {longest!r}."


def test_texts_filled_up_on_the_left_would_depend_on_one_another(folder):
    """A CLIP's vector of "a" moved by 0.4 where a longer text stood in the batch."""
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding_side": "left"}))

    assert refusal(load, folder) == (
        "its tokenizer fills texts up on the left (padding_side): a text's vector would depend on "
        "the longest text beside it."
    )


def test_a_tokenizer_without_its_settings_is_said(folder):
    (folder / "tokenizer_config.json").unlink()

    (note,) = load(f"hf:{folder}").extras.notes
    assert note == (
        f"hf:{folder}: has no tokenizer_config.json; its tokenizer has the settings of its class."
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("modules.json", "a model of sentence-transformers: write an adapter, py:FILE.py:model."),
        ("open_clip_config.json", "a model of open_clip: open_clip:local-dir:{}."),
        ("adapter_config.json", "an adapter of PEFT alone: save the merged model."),
        ("model_index.json", "a pipeline of diffusers: name the folder of the model in it."),
    ],
)
def test_a_folder_of_another_library_is_told_where_it_belongs(file, said, folder):
    (folder / "config.json").rename(folder / file)

    assert refusal(check_named, folder) == (
        f"there is no config.json in {folder}. {file} says that it is {said.format(folder)}"
    )


def test_a_folder_that_is_not_there_has_a_near_miss(folder):
    assert refusal(check_named, folder.with_name("clpi")) == (
        f"there is no folder {folder.with_name('clpi')}. Did you mean 'clip'? A name on the Hub is "
        "hf:ORG/NAME."
    )


@pytest.mark.parametrize(
    "start",
    ["hf:", "hf:./", "blip:./", "run:", "open_clip:ViT-B-32-quickgelu@", "open_clip:local-dir:"],
)
def test_a_name_that_no_file_can_have_is_one_line_in_every_family(start):
    with pytest.raises(UsageError, match=r"^model '\w+:.*: File name too long\.$"):
        check_named(start + 300 * "a")
