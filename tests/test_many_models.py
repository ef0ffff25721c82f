"""Many models by one word: a file of names, and a pattern of checkpoints."""

import os

import pytest

from fsc_bench.cli import watching
from fsc_bench.cli.model_lists import expanded
from fsc_bench.errors import UsageError


def test_a_file_names_one_model_a_line_without_comments_and_repeats(tmp_path):
    file = tmp_path / "models.txt"
    file.write_text("# mine\ndemo:pretrained\n\n  demo:clip  \ndemo:pretrained\n")

    assert expanded([f"@{file}", "demo:fsc-clip"]) == [
        "demo:pretrained", "demo:clip", "demo:fsc-clip",
    ]  # fmt: skip


def test_a_pattern_gives_its_files_by_number_with_the_options(tmp_path):
    for epoch in (10, 2, 1):
        (tmp_path / f"epoch_{epoch}.pt").touch()

    found = expanded([f"open_clip:ViT-B-32@{tmp_path}/*.pt?activation=gelu"])

    assert found == [
        f"open_clip:ViT-B-32@{tmp_path}/epoch_{epoch}.pt?activation=gelu" for epoch in (1, 2, 10)
    ]


def test_what_names_nothing_is_one_line(tmp_path):
    (tmp_path / "models.txt").write_text("demo:clip\nopenclip:ViT-B-32/openai\nViT\n")
    (tmp_path / "epoch_1.bin").touch()
    (tmp_path / "empty.txt").write_text("# none\n")
    for word, said in [
        (f"@{tmp_path}/models.txt", "line 2: .*Did you mean 'open_clip'.*line 3: "),
        (f"@{tmp_path}/none.txt", "none.txt: cannot be read: No such file"),
        (f"@{tmp_path}/empty.txt", "names no model"),
        (f"open_clip:ViT-B-32@{tmp_path}/epoch_*.pt", "no file is called so.*epoch_1.bin"),
        (f"{tmp_path}/*.pt", "of which architecture"),
    ]:
        with pytest.raises(UsageError, match=said) as raised:
            expanded([word])
        assert "\n" not in str(raised.value)


class Folder:
    """A folder that changes while it is watched: one step, five seconds, for each look."""

    def __init__(self, path, *steps):
        self.path, self.steps, self.clock = path, list(steps), 1_000_000.0

    def write(self, name, content):
        (self.path / name).write_bytes(content)
        os.utime(self.path / name, (self.clock, self.clock))

    def pause(self, seconds):
        self.clock += seconds
        if not self.steps:
            raise KeyboardInterrupt
        for name, content in self.steps.pop(0).items():
            self.write(name, content)

    def seen(self):
        found = []
        with pytest.raises(KeyboardInterrupt):
            for file in watching.appearing(self.path, self.pause, lambda: self.clock):
                found.append((file.name, file.read_bytes()))
        return found


def test_a_checkpoint_is_taken_once_it_no_longer_grows_and_again_when_written_anew(tmp_path):
    steps = [
        {"epoch_10.pt": b"half"},
        {"epoch_10.pt": b"whole of ten", "epoch_2.pt": b"two", ".epoch_3.pt": b"hidden"},
        {"notes.txt": b"none", "empty.pt": b""},
        {},
        {"epoch_2.pt": b"two, written anew"},
        {},
    ]

    assert Folder(tmp_path, *steps).seen() == [
        ("epoch_2.pt", b"two"),
        ("epoch_10.pt", b"whole of ten"),
        ("epoch_2.pt", b"two, written anew"),
    ]


def test_a_broken_checkpoint_is_passed_over_and_the_end_says_what_was_done(tmp_path):
    files = [tmp_path / name for name in ("1.pt", "2.pt", "3.pt")]
    said, scored = [], []

    def score(model):
        scored.append(model)
        return 2 if model.endswith("2.pt?activation=gelu") else 0

    of = watching.named(["open_clip:ViT-B-32?activation=gelu"], tmp_path)
    watching.watch(tmp_path, of, score, said.append, iter(files))

    assert scored == [f"open_clip:ViT-B-32@{file}?activation=gelu" for file in files]
    assert said[-1] == (
        f"2 checkpoints of {tmp_path} scored; not scored: 2.pt. The same command goes on."
    )


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "there are 0 models"),
        (["open_clip:ViT-B-32", "open_clip:RN50"], "there are 2 models"),
        (["open_clip:ViT-B-32/openai"], "leave them out, as in open_clip:ViT-B-32"),
        (["open_clip:ViT-B-32@one.pt"], "leave them out, as in open_clip:ViT-B-32"),
        (["openclip:ViT-B-32"], "Did you mean 'open_clip'"),
    ],
)
def test_what_cannot_be_watched_is_one_line(models, words, tmp_path):
    with pytest.raises(UsageError, match=words) as raised:
        watching.named(models, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="none: there is no such folder"):
        watching.named(["open_clip:ViT-B-32"], tmp_path / "none")
