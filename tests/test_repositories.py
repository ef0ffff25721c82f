"""Hub repositories and local folders of open_clip: nothing of theirs is executed, what is absent
is one whole line, and which revision was used is said.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fsc_bench.errors import DataError, FscBenchError, UsageError
from fsc_bench.models import check_named, load_model
from fsc_bench.models.checkpoints.hub import how_to_get
from fsc_bench.models.checkpoints.repository import _check_sizes, open_repository
from fsc_bench.models.checkpoints.tokenizers import built_in_tokenizer, repository_tokenizer

REVISION = "0123456789abcdef0123456789abcdef01234567"
EVIL = """
import pathlib
from transformers import PreTrainedTokenizer, PretrainedConfig
pathlib.Path({marker!r}).touch()
class Mine(PreTrainedTokenizer):
    pass
class Settings(PretrainedConfig):
    model_type = "mine"
"""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty Hub cache; there is no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def cached(hub: Path, repository: str, files: dict[str, object]) -> Path:
    """A repository in the cache, as the Hub's own client leaves it; texts or JSON by name."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (snapshot / name).write_text(text)
    return snapshot


@pytest.fixture(scope="module")
def base(tiny_clip):
    return load_model(f"open_clip:{tiny_clip}/random?seed=3", "cpu")


def config(tiny_clip, **text) -> dict:
    import open_clip

    own = open_clip.get_model_config(tiny_clip)
    return {"model_cfg": {**own, "text_cfg": {**own["text_cfg"], **text}},
            "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}  # fmt: skip


def weights(folder: Path, base) -> None:
    state = {name: value.clone() for name, value in base.model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def test_a_repository_in_the_cache_is_the_model_and_its_revision_is_said(hub, tiny_clip, base):
    weights(cached(hub, "org/name", {"open_clip_config.json": config(tiny_clip)}), base)
    model = load_model("open_clip:hf-hub:org/name", "cpu")

    assert model.identity.weights == base.identity.weights
    assert model.extras.notes == (f"open_clip:hf-hub:org/name: revision {REVISION}.",)
    assert "mean=[0.5, 0.5, 0.5]" in model.identity.preprocess


def test_a_folder_that_push_to_the_hub_makes_is_the_model(tmp_path, tiny_clip, base):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config(tiny_clip)))
    weights(tmp_path, base)
    model = load_model(f"open_clip:local-dir:{tmp_path}", "cpu")

    assert model.identity.weights == base.identity.weights
    pixels = torch.zeros(1, 3, 32, 32)
    assert torch.equal(model.encode_images(pixels), base.encode_images(pixels))


@pytest.mark.parametrize("name", ["./folder", "{}/folder", "local-dir:folder", "../{}/folder"])
def test_a_folder_is_named_by_its_path(tmp_path, tiny_clip, base, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "open_clip_config.json").write_text(json.dumps(config(tiny_clip)))
    weights(tmp_path / "folder", base)
    monkeypatch.chdir(tmp_path)
    place = name.format(tmp_path.name if name.startswith("..") else tmp_path)
    model = load_model(f"open_clip:{place}", "cpu")

    assert model.identity.weights == base.identity.weights


def test_a_copy_of_a_folder_is_the_same_model_wherever_it_lies(tmp_path, tiny_clip, base):
    own = config(tiny_clip, heads=4)  # no architecture of open_clip's has it
    found = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "open_clip_config.json").write_text(json.dumps(own))
        weights(tmp_path / place, base)
        found.append(load_model(f"open_clip:{tmp_path / place}", "cpu").identity)

    assert found[0] == found[1]
    assert found[0].architecture.startswith("open_clip config ")
    assert str(tmp_path) not in str(found[0])


def test_weights_in_shards_and_malicious_ones_in_a_folder(tmp_path, tiny_clip, base):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config(tiny_clip)))
    state = {name: value.clone() for name, value in base.model.state_dict().items()}
    half = len(state) // 2
    places = {name: f"{number // half}.safetensors" for number, name in enumerate(state)}
    for file in set(places.values()):
        save_file({n: state[n] for n in state if places[n] == file}, tmp_path / file)
    index = tmp_path / "open_clip_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    model = load_model(f"open_clip:local-dir:{tmp_path}", "cpu")
    assert model.identity.weights == base.identity.weights

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    index.unlink()
    torch.save({"state_dict": Evil()}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(UsageError, match="loads without executing it"):
        load_model(f"open_clip:local-dir:{tmp_path}", "cpu")
    assert not (tmp_path / "executed").exists()


def test_a_transformers_folder_is_refused_with_the_family_that_takes_it(hub, tmp_path, tiny_clip):
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (folder / "model.safetensors").write_bytes(b"")
    for spec in (f"open_clip:local-dir:{folder}", f"open_clip:{folder}",
                 f"open_clip:{tiny_clip}@{folder}"):  # fmt: skip
        with pytest.raises(UsageError, match=rf"transformers model.*Write hf:{folder}\.") as caught:
            check_named(spec)
        assert "\n" not in str(caught.value)

    cached(hub, "org/clip", {"config.json": {"model_type": "clip"}})
    with pytest.raises(UsageError, match=r"is a transformers model.* Write hf:org/clip\."):
        load_model("open_clip:hf-hub:org/clip", "cpu")


AUTO = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}


@pytest.mark.parametrize("tokenizer", [AUTO, {**AUTO, "tokenizer_class": "BertTokenizer"}])
def test_a_tokenizer_with_code_of_its_own_is_refused_and_never_executed(
    hub, tmp_path, tiny_clip, base, tokenizer
):
    marker = tmp_path / "executed"
    asks = {"hf_tokenizer_name": "org/evil", "tokenizer_kwargs": {"trust_remote_code": True}}
    weights(cached(hub, "org/name", {"open_clip_config.json": config(tiny_clip, **asks)}), base)
    cached(hub, "org/evil", {"tokenizer_config.json": tokenizer, "config.json": {},
                             "mine.py": EVIL.format(marker=str(marker))})  # fmt: skip

    with pytest.raises(UsageError, match=r"org/evil wants Python of its own executed") as caught:
        load_model("open_clip:hf-hub:org/name", "cpu")
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_trust_that_a_config_asks_for_is_not_given_by_the_tokenizer_itself(tmp_path):
    marker = tmp_path / "executed"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(AUTO))
    (tmp_path / "mine.py").write_text(EVIL.format(marker=str(marker)))
    asks = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}

    with pytest.raises(FscBenchError) as caught:
        repository_tokenizer({"text_cfg": asks}, tmp_path, "open_clip:local-dir:x")
    assert "Python of its own executed" in str(caught.value)
    assert not marker.exists()


def test_a_text_tower_with_code_of_its_own_is_refused_and_never_executed(
    hub, tmp_path, tiny_clip, base
):
    marker = tmp_path / "executed"
    asks = {"hf_model_name": "org/evil"}
    weights(cached(hub, "org/name", {"open_clip_config.json": config(tiny_clip, **asks)}), base)
    auto = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Settings"}}
    cached(hub, "org/evil", {"config.json": auto, "mine.py": EVIL.format(marker=str(marker))})

    with pytest.raises(UsageError, match=r"org/evil wants Python .* \(config\.json: auto_map\)"):
        load_model("open_clip:hf-hub:org/name", "cpu")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a config of open_clip"),
        ({"model_cfg": {}}, "KeyError: 'vision_cfg'"),
        ({"model_cfg": {"vision_cfg": [], "text_cfg": {}, "embed_dim": 3}}, "must be tables"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_a_config_that_is_none_is_one_line(tmp_path, base, content, words):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "open_clip_config.json").write_text(text)
    weights(tmp_path, base)

    with pytest.raises(UsageError) as caught:
        open_repository(f"local-dir:{tmp_path}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_in_the_cache_is_one_whole_line_that_says_how_to_get_it(hub):
    with pytest.raises(DataError) as caught:
        load_model("open_clip:hf-hub:org/name", "cpu")

    line = str(caught.value)
    assert line.startswith(
        "huggingface.co/org/name/open_clip_config.json is not in the Hub's cache"
    )
    assert f"`hf download org/name`; its cache, {hub}, can be copied to a machine" in line
    assert "\n" not in line


def test_a_tokenizer_that_is_not_in_the_cache_is_one_line_before_any_model_is_built(hub):
    with pytest.raises(FscBenchError) as caught:
        built_in_tokenizer("ViT-B-32-SigLIP2-256", "open_clip:ViT-B-32-SigLIP2-256/random")

    line = str(caught.value)
    assert "its tokenizer, timm/ViT-B-32-SigLIP2-256, is not in the Hub's cache" in line
    assert "`hf download timm/ViT-B-32-SigLIP2-256`" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embed_dim": 10**9}, "'embed_dim' = 1000000000 is no size of a model"),
        ({"vision_cfg": {"layers": -(10**9)}}, "'layers' = -1000000000 is no size"),
        ({"vision_cfg": {"layers": [3, 10**9]}}, "'layers' = 1000000000 is no size"),
        ({"size": 10**9}, "preprocess_cfg: 'size' = 1000000000 must be"),
        ({"std": [0.25, 0, 0.25]}, "preprocess_cfg: 'std"),
    ],
)
def test_sizes_that_would_fill_the_memory_are_refused_before_anything_is_built(
    tmp_path, tiny_clip, base, change, words
):
    content = config(tiny_clip)
    part = "preprocess_cfg" if {"size", "std"} & set(change) else "model_cfg"
    content[part] = {**content[part], **change}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    weights(tmp_path, base)

    with pytest.raises(UsageError, match=words):
        load_model(f"open_clip:local-dir:{tmp_path}", "cpu")


def test_no_architecture_of_open_clips_own_is_beyond_the_limits():
    import open_clip

    for name in open_clip.list_models():
        _check_sizes(open_clip.get_model_config(name), name)


def test_a_tokenizers_name_that_a_shell_would_execute_is_offered_in_no_command(
    tmp_path, tiny_clip, base
):
    asks = {"hf_tokenizer_name": "org/x; touch executed"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config(tiny_clip, **asks)))
    weights(tmp_path, base)
    with pytest.raises(FscBenchError) as caught:
        load_model(f"open_clip:local-dir:{tmp_path}", "cpu")

    assert "hf download" not in str(caught.value)
    assert how_to_get("org/x; touch executed") == "That is no name of a repository of the Hub."
    assert "`hf download org/x`" in how_to_get("org/x")
