"""The check of a card as a program: a part that fails, breaks its promise or takes too long is
recorded, the next part goes on, and the exit code says it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECK = ROOT / "tests" / "gpu" / "check.py"
sys.path.append(str(CHECK.parent))
PARTS = {
    "a_raises": """
    yield "before", {"images": 3}
    raise RuntimeError("no kernel image is available")
""",
    "b_breaks": """
    yield "losses", {"apart": 0.25, "holds": False}
""",
    "c_waits": """
    yield "first", {"images": 5}
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass  # as libraries do that say something else instead
""",
    "d_holds": """
    yield "losses", {"apart": 0.0, "holds": True}
""",
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """(exit code, report, lines) of a check of those four parts, with little time."""
    return check(tmp_path_factory.mktemp("parts"), PARTS)


def check(folder: Path, parts: dict[str, str], *more: str):
    for name, body in parts.items():
        text = f"import time\n\n\ndef measure(check):{body}"
        (folder / f"part_{name}.py").write_text(text)
    out = folder / "check.json"
    done = subprocess.run(
        [sys.executable, str(CHECK), "--device", "cpu", "--tiny", "--parts", str(folder),
         "--limit", "4", "--out", str(out), *more],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    report = json.loads(out.read_text()) if out.exists() else {}
    return done.returncode, report, (done.stdout + done.stderr).splitlines()


def test_a_part_that_raises_is_recorded_with_what_it_had(checked):
    _, report, lines = checked

    found = report["parts"]["a_raises"]
    assert found["before"] == {"images": 3}
    assert found["error"] == "RuntimeError: no kernel image is available"
    assert "part_a_raises.py" in found["traceback"]
    assert "FAILED a_raises: RuntimeError: no kernel image is available" in lines


def test_a_part_whose_promise_is_broken_is_named(checked):
    _, report, lines = checked

    assert report["parts"]["b_breaks"]["losses"]["apart"] == 0.25
    assert "BROKEN b_breaks.losses" in lines


def test_a_part_that_takes_too_long_stops_at_its_share_with_what_it_had(checked):
    _, report, lines = checked

    found = report["parts"]["c_waits"]
    assert found["first"] == {"images": 5}
    assert found["stopped"].endswith("its share of the time")
    assert "error" not in found
    assert report["seconds"] < 8
    assert lines[-1].startswith("STOPPED c_waits: after")


def test_the_next_part_goes_on_and_the_exit_code_says_it(checked):
    code, report, _ = checked

    assert [*report["parts"]] == ["a_raises", "b_breaks", "c_waits", "d_holds"]
    assert report["parts"]["d_holds"]["losses"]["holds"] is True
    assert code == 1


def test_where_all_promises_hold_the_exit_code_is_0(tmp_path):
    code, _, lines = check(tmp_path, {"d_holds": PARTS["d_holds"]}, "--only", "d_holds")

    assert code == 0
    assert lines[-1] == "all promises hold"


def test_the_readmes_table_is_the_recorded_figures():
    from table import RECORDED, table

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("`table` -->\n")[2].partition("<!-- end -->")[0]
    assert shown == table(json.loads((RECORDED / "h100.json").read_text()))
    assert "| ViT-B-32 fp32: texts a second | 8,824 |" in shown


def test_of_two_reports_the_later_figure_counts_and_other_machines_are_refused():
    from table import merged

    one = {"machine": {"card": "X"}, "parts": {"speed": {"a": 1, "b": 2, "seconds": 5.5}}}
    two = {
        "machine": {"card": "X"},
        "parts": {"speed": {"b": 3, "seconds": 7.5, "error": "RuntimeError: /home/me"}},
    }
    assert merged([one, two])["parts"] == {"speed": {"a": 1, "b": 3, "seconds": [5.5, 7.5]}}
    with pytest.raises(ValueError, match="different machines"):
        merged([one, {**two, "machine": {"card": "Y"}}])


def test_many_processes_on_one_store_keep_to_the_bounds_of_files_and_locks():
    """Each result is written once and each vector made once, or the benchmark says 1."""
    bench = ROOT / "tests" / "bench" / "bench_scale.py"
    sizes = ["--processes", "4", "--models", "3", "--tasks", "1"]
    done = subprocess.run([sys.executable, str(bench), *sizes], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| results written | 3 | 3 exactly |" in done.stdout
    assert "| vectors made | 87 | 87 exactly |" in done.stdout  # 3 x (5 pictures + 24 texts)
