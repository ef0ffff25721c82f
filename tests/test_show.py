"""Show: what strangers wrote, on a terminal: one printable line, whatever stands in it."""

import io
import sys

import pytest

from fsc_bench.cli import main, show

EVIL = ["[/x]", "a\\", "[red]b", "two\nlines", "\x1b[2Jc", "\u202egpj"]
SHOWN = ["[/x]", "a\\", "[red]b", r"two\nlines", r"\x1b[2Jc", r"\u202egpj"]


class Screen(io.StringIO):
    """A terminal that is told to be one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_cells_of_a_table_are_shown_as_they_are_written(monkeypatch, capsys, terminal):
    screen = Screen() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    show.print_table(["name", "[/bold]"], [*([cell, "1.5"] for cell in EVIL), []], "title [/t]\x07")

    text = screen.getvalue()
    assert all(word in text for word in [*SHOWN, "[/bold]", r"title [/t]\x07"])
    assert all(line.isprintable() for line in text.split("\n"))


def test_lines_of_progress_and_results_are_printable(capsys):
    terminal = show.Terminal()
    for line in EVIL:
        terminal.say(line)
        show.say(line)
        show.tell(line)

    found = capsys.readouterr()
    assert found.err.splitlines()[0] == "[/x]"
    assert r"two\nlines" in found.err and "two\nlines" in found.out
    assert all(line.isprintable() for line in (found.out + found.err).split("\n"))


def test_a_quiet_terminal_says_what_went_wrong_and_nothing_else(capsys):
    terminal = show.Terminal(quiet=True)
    for line in ("m  task  text 41.5", "fsc-bench: no", "Traceback (most", "  File x", "E: y", "z"):
        terminal.say(line)
    terminal.progress("task: images", 1, 2)

    assert capsys.readouterr().err.splitlines() == [
        "fsc-bench: no",
        "Traceback (most",
        "  File x",
        "E: y",
    ]


def ran(monkeypatch, capsys, error: BaseException) -> tuple[int, str]:
    """(exit code, stderr) of a command that raises."""

    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(main.TyperGroup, "main", fails)
    with pytest.raises(SystemExit) as end:
        main.app([])
    return end.value.code, capsys.readouterr().err


def test_what_the_system_says_against_a_file_is_one_line_with_its_path(monkeypatch, capsys):
    denied = PermissionError(13, "Permission denied", "/data/a\nb")
    assert ran(monkeypatch, capsys, denied) == (
        1,
        "fsc-bench: /data/a\\nb: Permission denied (EACCES).\n",
    )
    code, line = ran(monkeypatch, capsys, OSError(28, "No space left on device", "/d"))
    assert (code, line[:36]) == (1, "fsc-bench: /d: the disk is full. Fre")


def test_our_own_faults_and_a_librarys_keep_their_traceback(monkeypatch, capsys):
    for error in (KeyError("x"), OSError("a library's own words"), ValueError("y")):
        with pytest.raises(type(error)):
            ran(monkeypatch, capsys, error)


def test_a_screen_of_few_characters_shows_the_others_by_number(monkeypatch, capfd):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    main._print_anything()

    show.say("41.5 ±2.1† 犬")

    screen.seek(0)
    assert screen.read() == "41.5 \\xb12.1\\u2020 \\u72ac\n"
