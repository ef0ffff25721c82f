"""`fsc-bench explain`: what the local loss aligns the words of a caption with, shown or scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import DataOption, DeviceOption, JsonOption
from fsc_bench.errors import UsageError

if TYPE_CHECKING:
    from fsc_bench.study.boxes import Example
    from fsc_bench.study.explain import Explained


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the command line."""
    app.command("explain")(explain)


def explain(
    model: Annotated[str, typer.Argument(help="FAMILY:CHECKPOINT, as `run -m`; run:FOLDER.")],
    image: Annotated[Path | None, typer.Argument(help="The picture.")] = None,
    caption: Annotated[str | None, typer.Argument(help="A text about it.")] = None,
    foil: Annotated[
        str | None, typer.Option(help="A text to compare with; its other words are marked.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The model before fine-tuning, to stand beside it.")
    ] = None,
    alignment: Annotated[
        str | None,
        typer.Option(help="minmax, minmax-sparse or softmax. [default: the run's own, or minmax]"),
    ] = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="Of many pictures: how much of a word's alignment lies in its object's box.",
        ),
    ] = False,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="For --score: COCO's instances_*.json, or Visual Genome's "
            "region_descriptions.json. [default: scenes of the miniature world]"
        ),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="For --score: COCO's captions_*.json.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="For --score: the pictures. [default: what is linked]")
    ] = None,
    pictures: Annotated[int, typer.Option(min=2, help="For --score: so many, at most.")] = 300,
    seeds: Annotated[str, typer.Option(help="For --score: which are drawn.")] = "0,1,2",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of what is written.")] = Path(
        "explained"
    ),
    data: DataOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """What each word of a caption looks at: the local loss's alignment, as picture and page."""
    names = _names(model, base)
    if score:
        if image or caption or foil:
            raise UsageError("--score takes its pictures and texts from --boxes: leave out yours.")
        source = Source(boxes, captions, images, pictures, _seeds(seeds), data)
        _score(names, source, alignment, device, out, json)
        return
    if image is None or caption is None:
        raise UsageError("explain MODEL IMAGE CAPTION: name a picture and a text about it.")
    if boxes or captions or images:
        raise UsageError("--boxes, --captions and --images are for --score.")
    _explain(names, image, caption, foil, alignment, device, out, json)


def _explain(
    names: list[str], image: Path, caption: str, foil: str | None, alignment: str | None,
    device: str, out: Path, json: bool,
) -> None:  # fmt: skip
    """Explains one picture, shows it, and writes explain.png and explain.html."""
    from fsc_bench.cli.show import print_json, tell
    from fsc_bench.study import explain as study
    from fsc_bench.study.explain_pages import write_page, write_png

    picture = _picture(image)
    found = []
    for name in names:
        explainer = study.Explainer(name, device, alignment)
        found.append(study.explain(explainer, picture, caption, foil))
    write_png(out / "explain.png", picture, found)
    write_page(out / "explain.html", picture, found)
    if json:
        print_json({"image": str(image), "explained": [study.document(one) for one in found]})
    else:
        _show(found)
    tell(f"Written: {out / 'explain.png'}, {out / 'explain.html'}")


def _names(model: str, base: str | None) -> list[str]:
    if base == model:
        raise UsageError(f"--base {base}: it is the model itself: name the one it came from.")
    return [base, model] if base else [model]


def _seeds(text: str) -> tuple[int, ...]:
    from fsc_bench.system.spec import is_seed

    parts = text.split(",")
    if not all(map(is_seed, parts)) or len(set(parts)) < len(parts):
        raise UsageError(f"--seeds {text!r}: write different whole numbers, such as 0,1,2.")
    return tuple(map(int, parts))


@dataclass(frozen=True)
class Source:
    """Where `--score` has its pictures from: the demo world unless `boxes` names a file."""

    boxes: Path | None
    captions: Path | None
    images: Path | None
    pictures: int
    seeds: tuple[int, ...]
    data: Path | None

    def examples(self) -> "tuple[list[Example], str]":
        from fsc_bench.study.boxes import demo_examples, examples_of_files
        from fsc_bench.task import data_folder

        if self.boxes is None:
            if self.captions or self.images:
                raise UsageError("--captions and --images go with --boxes: name the file of boxes.")
            if self.pictures < len(self.seeds):
                raise UsageError(f"--pictures {self.pictures}: fewer than {len(self.seeds)} seeds.")
            words = ", ".join(map(str, self.seeds))
            found = demo_examples(self.pictures, self.seeds)
            return found, f"{len(found):,} scenes of the miniature world, seeds {words}"
        return examples_of_files(
            self.boxes, self.captions, self.images, self.pictures, self.seeds[0],
            data_folder(self.data),
        )  # fmt: skip


def _command(names: list[str], source: Source, alignment: str | None) -> list[str]:
    """What repeats the numbers."""
    *base, model = names
    options = {
        "--base": base[0] if base else None,
        "--alignment": alignment,
        "--boxes": source.boxes,
        "--captions": source.captions,
        "--images": source.images,
        "--pictures": source.pictures,
        "--seeds": ",".join(map(str, source.seeds)),
        "--data": source.data,
    }
    given = [(name, str(value)) for name, value in options.items() if value is not None]
    return ["fsc-bench", "explain", model, "--score", *(part for pair in given for part in pair)]


def _score(
    names: list[str], source: Source, alignment: str | None, device: str, out: Path, json: bool
) -> None:
    """Scores, shows, and writes score.md, score.json and words.csv."""
    import csv
    import io
    import shlex

    from fsc_bench import __version__
    from fsc_bench.cli.show import Terminal, print_json, print_table, say, tell
    from fsc_bench.study import localisation as study
    from fsc_bench.study.explain import Explainer
    from fsc_bench.system.files import write_json, write_text

    explainers = [Explainer(name, device, alignment) for name in names]
    examples, words = source.examples()
    terminal = Terminal()
    try:
        found = study.localise(explainers, examples, terminal.progress)
    finally:
        terminal.close()
    how = {
        "data": words,
        "alignment": ", ".join(dict.fromkeys(one.alignment for one in explainers)),
        "command": shlex.join(_command(names, source, alignment)),
        "fsc_bench": __version__,
        "weights": {one.name: one.adapter.identity.weights for one in explainers},
    }
    document = study.document(found, how)
    write_text(out / "score.md", study.markdown(found, how))
    write_json(out / "score.json", document)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(study.csv_rows(found))
    write_text(out / "words.csv", text.getvalue())
    if json:
        print_json(document)
    else:
        title = f"Alignment ({how['alignment']}) inside the true box, percent; {words}"
        print_table(study.header(found), [study.cells_of(line) for line in found.lines], title)
        for why, count in found.left_out.items():
            say(f"left out: {count:,} {why}")
    tell(f"Written: {out / 'score.md'}, {out / 'score.json'}, {out / 'words.csv'}")


def _picture(path: Path) -> Any:
    """The picture in RGB. Raises DataError, one line, for what is none."""
    from fsc_bench.data.pixels import decode
    from fsc_bench.errors import DataError, reason
    from fsc_bench.system.regular import Irregular, read_file

    try:
        return decode(read_file(path), str(path))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such picture.") from None
    except Irregular as error:
        raise DataError(f"{path}: it {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}.") from None


def _show(found: "Sequence[Explained]") -> None:
    """A table for each model and text."""
    from fsc_bench.cli.show import print_table, say
    from fsc_bench.study.explain_pages import blocks, facts

    for title, one, reading in blocks(found):
        rows = [
            [
                word.text,
                "*" if word.differs else "",
                f"{word.cosine:.3f}",
                f"{100 * word.share:.1f}",
                f"{100 * word.spread:.0f}",
                f"{word.peak[0] + 1}, {word.peak[1] + 1}",
            ]
            for word in reading.words
        ]
        header = ["word", "differs", "cosine", "share %", "spread %", "peak"]
        print_table(header, rows, f"{title}: {reading.text}")
        say(f"{facts(reading)}; {one.grid.rows} x {one.grid.columns} patches, {one.alignment}")
        print()
