"""Page: a comparison as one HTML file with nothing outside it. It computes nothing.

Names, captions and reasons may be a stranger's: everything is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: bold }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #8884; text-align: right }
td:first-child, th:first-child, td.text { text-align: left }
.BETTER { color: #2a7f3f } .WORSE { color: #b3261e } .sub td:first-child { padding-left: 2rem }
.flips { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
.flip { border: 1px solid #8884; border-radius: .4rem; padding: .6rem }
.flip img { max-width: 160px; max-height: 160px; margin-right: .3rem }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd }
  .BETTER { color: #6fce86 } .WORSE { color: #ff8a80 } }
"""
HEADER = ("", "metric", "A", "B", "B - A", "p", "Holm", "verdict", "fixed", "broken", "n", "images")


def comparison_page(comparisons: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, str]) -> str:
    """comparisons: as `fsc-bench compare --json` gives them. thumbnails: data URIs by task and the
    picture's name in a samples file.
    """
    parts = [_comparison(one, thumbnails) for one in comparisons]
    title = escape("; ".join(f"{one['b']} against {one['a']}" for one in comparisons))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _comparison(one: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
    word = escape(one["verdict"])
    lines = [f'<h1><span class="{word}">{word}</span>: {escape(one["b"])}</h1>']
    lines.append(f"<p>compared with {escape(one['a'])}, over the same samples.</p>")
    lines += [f"<p>{escape(note)}</p>" for note in one["notes"]]
    lines.append(f"<table><caption>A {escape(one['a'])}, B {escape(one['b'])}; percent</caption>")
    lines.append("<tr>" + "".join(f"<th>{escape(name)}</th>" for name in HEADER) + "</tr>")
    lines += [_row(line) for line in one["averages"]]
    for line in one["tasks"]:
        lines.append(_row(line))
        lines += [_row(sub, "sub") for sub in one["subsets"].get(line["task"], ())]
    lines.append("</table>")
    if one["left_out"]:
        lines.append("<h2>Left out</h2><ul>")
        lines += [
            f"<li>{escape(task)}: {escape(why)}</li>" for task, why in one["left_out"].items()
        ]
        lines.append("</ul>")
    if one["flips"]:
        lines.append('<h2>Flipped samples, the biggest movers first</h2><div class="flips">')
        lines += [_flip(flip, thumbnails) for flip in one["flips"]]
        lines.append("</div>")
    return "\n".join(lines)


def _row(line: Mapping[str, Any], kind: str = "") -> str:
    of = line.get("of")
    name = line["name"] + (f" ({of[0]} of {of[1]})" if of and of[0] < of[1] else "")
    cells = [
        name,
        line["metric"],
        f"{line['a']:.2f}",
        f"{line['b']:.2f}",
        f"{line['difference']:+.2f} [{line['low']:+.2f}, {line['high']:+.2f}]",
        *("-" if line[key] is None else f"{line[key]:.4f}" for key in ("p", "holm")),
        line["verdict"],
        *("-" if line[key] is None else f"{line[key]:,}" for key in ("fixed", "broken")),
        f"{line['n']:,}",
        f"{line['images']:,}",
    ]
    inside = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="{kind} {escape(line["verdict"])}">{inside}</tr>'


def _flip(flip: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
    word = "fixed" if flip["fixed"] else "broken"
    names = [f"{flip['task']} {name}" for name in flip["images"]]
    pictures = "".join(
        f'<img src="{escape(thumbnails[name])}" alt="{escape(name)}">'
        if name in thumbnails
        else f"<code>{escape(name)}</code> "
        for name in names
    )
    texts = list(flip["texts"])
    if flip["answer"]:
        texts = [f"{flip['answer']}; A: {flip['taken_a']}; B: {flip['taken_b']}"]
    told = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return (
        f'<div class="flip"><b>{word}</b> {escape(flip["task"])} {escape(flip["subset"])} '
        f"{escape(flip['id'])}<br>{pictures}<ol>{told}</ol>margins {flip['margin_a']:+.3f} and "
        f"{flip['margin_b']:+.3f}</div>"
    )
