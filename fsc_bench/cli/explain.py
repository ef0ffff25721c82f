"""`fsc-bench explain`: what the local loss aligns the words of a caption with, shown or scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import DeviceOption, JsonOption
from fsc_bench.errors import UsageError

if TYPE_CHECKING:
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
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of what is written.")] = Path(
        "explained"
    ),
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """What each word of a caption looks at: the local loss's alignment, as picture and page."""
    from fsc_bench.cli.show import print_json, tell
    from fsc_bench.study import explain as study
    from fsc_bench.study.explain_pages import write_page, write_png

    if image is None or caption is None:
        raise UsageError("explain MODEL IMAGE CAPTION: name a picture and a text about it.")
    picture = _picture(image)
    found = []
    for name in [base, model] if base else [model]:
        explainer = study.Explainer(name, device, alignment)
        found.append(study.explain(explainer, picture, caption, foil))
    write_png(out / "explain.png", picture, found)
    write_page(out / "explain.html", picture, found)
    if json:
        print_json({"image": str(image), "explained": [study.document(one) for one in found]})
    else:
        _show(found)
    tell(f"Written: {out / 'explain.png'}, {out / 'explain.html'}")


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
