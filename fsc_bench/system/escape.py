"""Escape: a stranger's text made harmless for where it goes: terminal, Markdown, HTML, CSV.

Names of models, flags, captions and paths are data: none of them may end a table's cell, add a
link, run as a formula or move a terminal's cursor. Each function takes any text, lone surrogates
included, and gives one printable line that reads as the text did.
"""

import html
import re
import unicodedata

JOINERS = "\u200c\u200d"  # invisible, but some scripts and emoji cannot be written without them
# What cells of spreadsheets that are formulas begin with, full-width twins and blanks included.
FORMULA = re.compile(r"[\s'\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def is_printable(text: str) -> bool:
    """Whether a text is one line of visible characters and spaces."""
    return text.isprintable() or all(map(_printable, text))


def _printable(character: str) -> bool:
    if character.isprintable() or character in JOINERS:
        return True
    return unicodedata.category(character) == "Zs"  # spaces of other widths


def for_terminal(text: str) -> str:
    r"""The text on one line; what is not printable as Python writes it: `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(one if _printable(one) else _written(one) for one in text)


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def for_markdown(text: str) -> str:
    """The text as plain words of Markdown, wherever it stands: in a cell, a list or a heading.

    No character of it makes markup: neither tables, emphasis, code, links, mathematics nor HTML,
    and no address in it becomes a link. Underscores within words stay: they mean nothing there.
    """
    text = for_terminal(text).strip()
    text = text.replace("\\", "\\\\")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[`*\[\]|~$@]", r"\\\g<0>", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    text = re.sub(r"://", r"\\://", text)
    text = re.sub(r"(?i)\b(www)\.", r"\1\\.", text)
    # At the beginning of a line these make headings, rules and lists.
    return re.sub(r"^(\d+(?=[.)]))?([#+\-=.)])", r"\1\\\2", text)


def for_html(text: str) -> str:
    """The text for between tags and for quoted attributes, of HTML and of SVG."""
    return html.escape(for_terminal(text), quote=True)


def for_csv(text: str) -> str:
    """The text as a cell of a CSV file: no spreadsheet takes it for a formula.

    A cell that begins with `=`, `+`, `-` or `@` gets an apostrophe before it, as spreadsheets write
    "this is text". Quoting is the CSV writer's; numbers are given to it as numbers.
    """
    text = for_terminal(text)
    return f"'{text}" if FORMULA.match(text) else text


def shortened(value: object, most: int = 80) -> str:
    """A value as Python writes it, to be quoted in a message; `...` where it is cut at the end."""
    if isinstance(value, str | bytes | list | tuple | dict) and len(value) > 10 * most:
        value = _beginning(value, 10 * most)  # not the whole of a megabyte
    try:
        text = for_terminal(repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _beginning(value: object, most: int) -> object:
    return dict(list(value.items())[:most]) if isinstance(value, dict) else value[:most]
