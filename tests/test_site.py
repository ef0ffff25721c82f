"""The page of a leaderboard: what it says, and what a real browser makes of it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_runs import choices, write_run
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.report.leaderboard import Row, published_rows
from fsc_bench.report.ranking import measured_rows
from fsc_bench.report.site import Board, named, site, verdict
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result, Run, task_facts
from fsc_bench.task import read_task, select, walk

HOSTILE = "<script>alert(1)</script>"
ENDING = "run:x/</script><!--<script> \"'&\u2028"
TASK = """
title = "Two"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
a = 12
[data]
reader = "records"
"""
FSC = select(["fsc"])
FACTS = [TaskFacts.of(task) for task in FSC]


def result(task, value, flags=(), chance=None) -> Result:
    """Every node of a task's tree at `value` plus its place among them, in tenths."""
    nodes = ["headline", *(name for name, _ in walk(task.subsets))]
    metrics = {
        node: {
            metric: Cell(value + n / 10, value - 2, value + 20, 100 + n, task.chance[metric])
            for metric in task.headline
        }
        for n, node in enumerate(nodes)
    }
    return Result(
        task.name, task.version, task.kind, "f", 100, 100, metrics, task.headline, 0, 0,
        flags=flags, facts=task_facts(task),
    )  # fmt: skip


def run_of(model, value, tasks=FSC, **facts) -> Run:
    found = {task.name: result(task, value) for task in tasks}
    facts = {"model": model, "identity": {"weights": "0123abcd" * 8}, **facts}
    return Run(Path(f"runs/{model[:40]}-{value}"), facts, found)


def board_of(runs, published=(), comparisons=None) -> Board:
    by_path = {run.path: run for run in runs}
    rows = measured_rows(runs, FACTS)
    return Board("fsc", FACTS, rows, published, by_path, comparisons or {})


def data_of(text) -> dict:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(block[1])


def test_names_from_result_files_are_text_wherever_they_stand():
    text = site([board_of([run_of(HOSTILE, 41.3), run_of(ENDING, 39.2, device="<b>cpu</b>")])])

    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script") == text.lower().count("</script>") == 2
    rows = data_of(text)["suites"][0]["rows"]
    assert [row["model"] for row in rows[:2]] == [HOSTILE, ENDING.replace("\u2028", "\\u2028")]
    assert ["device", "<b>cpu</b>"] in rows[1]["who"]


def test_the_page_asks_for_nothing_and_runs_its_own_script_alone():
    text = site([board_of([run_of("open_clip:a", 41.3)])])

    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src &#39;sha256-") or policy.startswith(
        "default-src &#39;none&#39;; script-src &#39;sha256-"
    )
    assert "unsafe-inline" not in policy.split("style-src-attr")[0]
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=[\"'](?!data:)", text)
    assert not re.search(r"<[^>]* on[a-z]+=", text[: text.index("<style>")])


def test_a_model_has_every_task_and_subset_with_promised_counts():
    board = board_of([run_of("open_clip:a", 41.3), run_of("b:c", 30.6)])
    suite = data_of(site([board]))["suites"][0]
    row = suite["rows"][0]

    number = list(suite["columns"]).index("sugarcrepe")
    assert row["cells"][number] == [41.3, 413, 20, 200]
    labels = [(node[0], node[1]) for node in suite["tasks"]["sugarcrepe"]]
    assert labels[:3] == [("sugarcrepe", 0), ("replace", 1), ("replace_obj", 2)]
    assert len(row["tasks"]["sugarcrepe"]) == len(labels) == 11
    assert row["tasks"]["sugarcrepe"][2] == [415, 22, 198]  # 41.5 [39.3, 61.3]


def test_the_verdict_is_of_complete_models_alone():
    none = board_of([run_of("a:b", 41.3, FSC[:4])])
    one = board_of([run_of("a:b", 41.3, FSC[:4]), run_of("c:d", 37.2)])

    assert verdict(none) == "Nothing is ranked: of 1 models measured, none has every task of fsc."
    assert verdict(one).startswith("One model is measured on every task of fsc: c:d (Comp 37.2 [")


def test_a_published_name_says_its_family_and_its_base():
    assert named("FSC-CLIP + LoRA (ViT-B-16, laioncoco-100k)") == ("FSC-CLIP + LoRA", "ViT-B-16")
    assert named("NegCLIP(ours) (ViT-B-32, cc3m-100k)") == ("NegCLIP(ours)", "ViT-B-32")
    assert named("plain") == ("plain", "")


def test_220_models_with_a_base_each_are_below_3_megabytes():
    """Of every task a comparison with the base, and of the flips as many as fit."""
    line = {"name": "caltech101", "metric": "accuracy", "a": 61.25, "b": 57.5,
            "difference": -3.75, "low": -6.2, "high": -1.31, "verdict": "UNDECIDED",
            "fixed": 119, "broken": 120}  # fmt: skip
    flip = {"fixed": True, "task": "spec", "subset": "existence_i2t", "id": "existence_i2t/11",
            "texts": ["a blue moon over the long wall"] * 2, "answer": ""}  # fmt: skip
    told = {"a": "open_clip:base", "b": "open_clip:tuned", "verdict": "BETTER", "averages": [],
            "tasks": [line] * 41, "flips": [flip] * 20}  # fmt: skip
    facts = {"packages": {"torch": "2.9.1", "numpy": "2.3.1"}, "device": "cuda:0"}
    ten = [run_of("some:model", 20.3 + 5 * n, **facts) for n in range(10)]
    names = [{**facts, "model": f"open_clip:ViT-B-32/{n}", "base": "a:b"} for n in range(220)]
    runs = [replace(ten[n % 10], path=Path(f"runs/{n}"), facts=names[n]) for n in range(220)]
    board = board_of(runs, published_rows(FACTS), {run.path: told for run in runs})

    assert len(site([board]).encode()) < 3_000_000


def test_a_model_is_shown_against_its_base_with_flips(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(TASK)
    rows = [("a", f"p{n}", n % 3 > 0) for n in range(12)]
    better = [(subset, picture, True) for subset, picture, _ in rows]
    write_run(tmp_path / "runs", "mine:base", [(read_task(path), choices(rows))])
    tuned = write_run(tmp_path / "runs", "mine:tuned", [(read_task(path), choices(better))])
    facts = json.loads((tuned.path / "run.json").read_text())
    (tuned.path / "run.json").write_text(json.dumps({**facts, "base": "mine:base"}))

    out = tmp_path / "page.html"
    done = CliRunner().invoke(
        app, ["leaderboard", str(tmp_path / "runs"), "-o", str(tmp_path), "--html", str(out)]
    )

    assert done.exit_code == 0, done.output
    found = {row["model"]: row for suite in data_of(out.read_text())["suites"]
             for row in suite["rows"]}  # fmt: skip
    assert found["mine:tuned"]["base"] == "mine:base"
    told = found["mine:tuned"]["comparison"]
    assert told["sentence"].endswith("mine:tuned, compared with mine:base.")
    assert told["lines"][-1][2:4] == ["66.67", "100.00"]
    assert [kind for kind, _, _ in told["flips"]] == ["fixed"] * 4  # p0, p3, p6, p9
    assert told["flips"][0][2][0].startswith("caption ")
    assert "comparison" not in found["mine:base"]


def test_where_the_extra_is_missing_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("fsc_bench.report.site.find_spec", lambda name: None)

    done = CliRunner().invoke(app, ["leaderboard", str(tmp_path), "--html", "page.html"])

    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "fsc-bench: leaderboard --html needs jinja2: `pip install 'fsc-bench[html]'`."
    ]


# ---------------------------------------------------------------- a real browser


@pytest.fixture(scope="module")
def browser():
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("needs Debian's chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of two suites: four measured and all published rows, and one row of its own."""
    runs = [run_of(HOSTILE, 41.3), run_of("open_clip:b", 52.4), run_of(ENDING, 33.2),
            run_of("run:tuned", 47.9, base="open_clip:b")]  # fmt: skip
    file = tmp_path_factory.mktemp("page") / "page.html"
    own = TaskFacts("constructor", "own", "compositionality", 1, ("text",), {"text": 50.0})
    other = Board("own", [own], [Row("mine:one", "measured", {}, path=Path("runs/one"))])
    file.write_text(site([board_of(runs, published_rows(FACTS)), other]), encoding="utf-8")
    return file


@pytest.fixture
def page(browser, file):
    """The page, opened anew. JavaScript's answers by `ask`. After every test: nothing was asked of
    anywhere, and the console is empty.
    """

    def ask(script):
        return browser.execute_script(f"return {script}")

    def press(*keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(browser).send_keys(*keys).perform()

    def view(width, scheme):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    browser.get("about:blank")
    browser.get_log("performance")
    view(1440, "light")
    browser.get(file.as_uri())
    yield SimpleNamespace(ask=ask, press=press, view=view, browser=browser)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert {one["request"]["url"].partition("#")[0] for one in sent} == {file.as_uri()}
    assert browser.get_log("browser") == []


NAMES = "[...document.querySelectorAll('#board tbody th a')].map(link => link.textContent)"
SORT = "document.querySelectorAll('#board thead th')[5].ariaSort"


def soon(page, script, wanted):
    """Waits, for five seconds at most, until an answer is the wanted one: sorting and addresses are
    heard of a little later.
    """
    for _ in range(50):
        if page.ask(script) == wanted:
            break
        page.ask("new Promise(done => setTimeout(done, 100))")
    assert page.ask(script) == wanted


def choose(page, name, value):
    page.ask(
        f"(select => {{ select.value = {json.dumps(value)}; "
        f"select.dispatchEvent(new Event('change')) }})(document.getElementById('{name}'))"
    )


def test_the_browser_sorts_filters_and_searches(page):
    assert page.ask(NAMES)[:2] == ["open_clip:b", "run:tuned"]
    choose(page, "kind", "=measured")
    assert page.ask(NAMES) == [
        "open_clip:b",
        "run:tuned",
        HOSTILE,
        ENDING.replace("\u2028", "\\u2028"),
    ]
    choose(page, "base", "=open_clip:b")
    assert page.ask(NAMES) == ["run:tuned"]
    choose(page, "base", "")
    choose(page, "kind", "")
    choose(page, "family", "=NegCLIP(ours)")
    assert len(page.ask(NAMES)) == 5
    choose(page, "base", "=DataComp-XL ViT-B-32")
    assert page.ask(NAMES) == ["NegCLIP(ours) (DataComp-XL ViT-B-32, laioncoco-100k)"]
    choose(page, "group", "classification")
    assert page.ask("document.querySelectorAll('#board thead th').length") == 5 + 21
    choose(page, "group", "averages")
    choose(page, "family", "")


def test_another_suite_has_a_table_of_its_own(page):
    choose(page, "suite", "1")

    assert page.ask(NAMES) == ["mine:one", "chance"]
    heads = "[...document.querySelectorAll('#board thead th')].slice(5).map(one => one.innerText)"
    assert [name.split()[0] for name in page.ask(heads)] == ["Comp"]
    choose(page, "group", "compositionality")
    assert [name.split()[0] for name in page.ask(heads)] == ["constructor"]
    told = "[...document.querySelectorAll('.verdict')].map(one => one.offsetHeight > 0)"
    assert page.ask(told) == [False, True]


def test_the_keyboard_alone_sorts_and_opens_a_model_and_comes_back(page):
    from selenium.webdriver.common.keys import Keys

    page.ask("document.querySelector('#board thead th:nth-child(6) [tabindex], "
             "#board thead th:nth-child(6)[tabindex]').focus()")  # fmt: skip
    page.press(Keys.ENTER)
    soon(page, SORT, "descending")
    assert page.ask(NAMES)[0] == "FSC-CLIP + LoRA (ViT-L-14, laioncoco-100k)"
    page.press(Keys.ENTER)
    soon(page, SORT, "ascending")
    assert page.ask(NAMES)[0] == "chance"
    second = ENDING.replace("\u2028", "\\u2028")  # 33.2, and chance is 33.1
    assert page.ask(NAMES)[1] == second
    last = "[...document.querySelectorAll('#board tbody td:nth-child(6)')].at(-1).innerText"
    assert page.ask(last) == "-"
    for _ in range(12):  # over the other headings, to the first model
        page.press(Keys.TAB)
        if page.ask("document.activeElement.textContent") == "chance":
            break
    page.press(Keys.TAB, Keys.ENTER)
    soon(page, "document.getElementById('overview').hidden", True)
    assert page.ask("document.activeElement.textContent") == second
    page.press(Keys.ESCAPE)
    soon(page, "document.getElementById('overview').hidden", False)
    assert page.ask("document.activeElement.textContent") == second


def test_a_model_of_a_hostile_name_has_its_own_page_by_that_name(page):
    script = "JSON.parse(document.getElementById('data').textContent).suites[0].rows"
    number = page.ask(f"{script}.findIndex(row => row.model === {json.dumps(HOSTILE)})")
    page.ask(f"document.querySelector('a[href=\"#model-0-{number}\"]:not(svg a)').click()")
    soon(page, "document.querySelector('#model h2')?.textContent", HOSTILE)
    cells = "[...document.querySelectorAll('#model tbody tr')].map(row => row.innerText)"
    lines = [line.split("\t") for line in page.ask(cells)]
    assert next(line for line in lines if line[0] == "sugarcrepe")[2].startswith(
        "41.3 [39.3, 61.3]"
    )
    assert len(lines) == 4 + sum(
        len(task.headline) * (1 + len(list(walk(task.subsets)))) for task in FSC
    )


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk_in_light_and_in_dark(page, width, scheme):
    page.view(width, scheme)

    assert page.ask("document.documentElement.scrollWidth") <= width
    red = int(re.findall(r"\d+", page.ask("getComputedStyle(document.body).backgroundColor"))[0])
    assert (red < 64) is (scheme == "dark")


def test_printed_it_has_every_row_and_no_control(page):
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    assert page.ask("document.getElementById('choices').offsetHeight") == 0
    assert len(page.ask(NAMES)) == 4 + 2 + len(published_rows(FACTS))
