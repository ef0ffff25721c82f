"""The commands of hard negatives: `negatives build`, `negatives show`. As main.py says."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fsc_bench.cli.options import JsonOption
from fsc_bench.errors import DataError, UsageError


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.add_typer(negatives_app, name="negatives")


negatives_app = typer.Typer(help="Hard negatives: make them once, look at them.")
Captions = Annotated[
    str, typer.Argument(help="KIND:PATH of training data, or a text file with a caption a line.")
]
GeneratorOption = Annotated[
    str | None, typer.Option("--generator", help="rules, spacy[:MODEL] or file:PATH.")
]
CaptionKey = Annotated[str, typer.Option(help="The column or field of captions, of KIND:PATH.")]
TABLES = (".parquet", ".tsv", ".csv")


@negatives_app.command("build")
def negatives_build(
    captions: Captions,
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write.")],
    generator: GeneratorOption = None,
    candidates: Annotated[int, typer.Option(min=1, help="How many of each kind.")] = 4,
    seed: Annotated[int, typer.Option(help="Another seed, other candidates.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="How many work at once.")] = 1,
    caption_key: CaptionKey = "",
) -> None:
    """Writes hard negatives of every caption; train with --set negatives=file:OUT."""
    from fsc_bench.train.negatives import build, load_generator

    maker = load_generator(generator or "rules")
    texts = _captions(captions, caption_key)
    facts = build(texts, maker, seed, candidates, out, processes=processes)
    made = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "captions_sha256")
    _say(f"Written: {out} ({len(texts):,} captions; {made})")


@negatives_app.command("show")
def negatives_show(
    captions: Annotated[
        str,
        typer.Argument(
            help="KIND:PATH of training data, a text file with a caption a line, or a table that "
            "holds negatives: what `build` wrote, or NegCLIP's TSV."
        ),
    ],
    generator: GeneratorOption = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many captions.")] = 10,
    seed: Annotated[int, typer.Option(help="Another seed, other negatives.")] = 0,
    caption_key: CaptionKey = "",
    json: JsonOption = False,
) -> None:
    """Prints captions with their hard negatives: made now, or those of a file."""
    from fsc_bench.cli.show import print_json, say
    from fsc_bench.train.negatives import load_generator, show

    if _is_table(captions) and not generator:
        held = _table(captions)
        shown = show(list(held.rows), held, number, seed=seed, candidates_per_kind=1000)
    else:
        maker = load_generator(generator or "rules")
        shown = show(_captions(captions, caption_key), maker, number, seed=seed)
    if json:
        print_json([{"caption": caption, "negatives": made} for caption, made in shown])
        return
    for caption, made in shown:
        say(caption)
        for kind, texts in made.items():
            for place, text in enumerate(texts or ["-"]):
                say(f"  {'' if place else kind:<10}{text}")


def _is_table(where: str) -> bool:
    """Whether this is a bare path of a table, with or without options behind a question mark."""
    from fsc_bench.train.sources import kinds

    known = where.partition(":")[0] in kinds()
    return not known and where.partition("?")[0].endswith(TABLES)


def _table(where: str) -> Any:
    """The negatives that a table holds. Raises UsageError that says how its captions are named."""
    from fsc_bench.train.negatives.file import load

    try:
        return load(where)
    except UsageError as error:
        kind = "parquet" if where.partition("?")[0].endswith(".parquet") else "coco-tsv"
        raise UsageError(f"{error} Its captions alone are {kind}:{where}.") from None


def _captions(where: str, caption_key: str) -> list[str]:
    """Every usable caption of a text file or of training data."""
    from fsc_bench.train.sources import BadPair, Keys, kinds, open_pairs

    path = Path(where).expanduser()
    if where.partition(":")[0] in kinds() or not path.is_file():
        pairs, found, empty = open_pairs(where, Keys(caption=caption_key)), [], 0
        for index in range(len(pairs)):
            try:
                found.append(pairs.caption(index))
            except BadPair:
                empty += 1
        if empty:
            _say(f"{empty:,} pairs have no usable caption.")
    elif _is_table(where):
        found = list(_table(where).rows)
    else:
        found = _lines(path)
        if caption_key:
            raise UsageError(
                f"--caption-key {caption_key}: {path} is plain text, a caption a line."
            )
    if not found:
        raise UsageError(f"{where}: there is no caption in it.")
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a text file. Raises DataError for one that is no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds a zero byte")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a text file with a caption a line: {error}. A table ends in "
            f"{', '.join(TABLES)}; training data are KIND:PATH."
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
