"""Many models by one word: a file of names, and a pattern of checkpoints."""

import pytest

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
