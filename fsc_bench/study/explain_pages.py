"""Pages of explanations: the maps over the picture, as one PNG and as an HTML file with nothing
outside it.

Each patch is drawn as it is, not smoothed: what the loss knows is one number a patch. Texts may be
a stranger's; all of them are escaped.
"""

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsc_bench.study.explain import Explained, Reading, Word
from fsc_bench.study.geometry import Frame, Grid
from fsc_bench.system.escape import for_terminal
from fsc_bench.system.files import write_atomically, write_text

SIDE = 144  # pixels of the long side of a small multiple
COLUMNS = 10  # small multiples in a row of the PNG
GAP, LINE = 10, 18  # pixels
PAPER, INK, PALE, MARK = (255, 255, 255), (30, 34, 40), (110, 118, 129), (179, 38, 30)
# Dark violet to yellow, in five steps: even in lightness, and told apart by colour-blind eyes.
RAMP = np.array([(13, 8, 71), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)], float)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem }
.words { display: flex; flex-wrap: wrap; gap: .8rem; margin: .6rem 0 1.6rem }
figure { margin: 0; width: 144px; font-size: 13px } figure img { width: 144px; display: block }
figcaption b.differs { color: #b3261e; text-decoration: underline } .pale { color: #6e7681 }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd }
  figcaption b.differs { color: #ff8a80 } }
"""


def heat(image: Image.Image, word: Word, frame: Frame, grid: Grid) -> Image.Image:
    """The picture, small, with a word's map over the part that the model's patches see."""
    shown = small(image)
    factor, size = SIDE / max(image.size), shown.size
    grey = np.asarray(shown.convert("L"), float)[..., None].repeat(3, axis=2)
    levels = _on_pixels(word.map / word.map.max(), size, factor, frame, grid)
    place = np.clip(np.nan_to_num(levels) * (len(RAMP) - 1), 0, len(RAMP) - 1.001)
    below = place.astype(int)
    rest = (place - below)[..., None]
    colour = RAMP[below] * (1 - rest) + RAMP[below + 1] * rest
    shown = np.where(np.isnan(levels)[..., None], 0.3 * grey + 0.7 * 255, 0.5 * grey + 0.5 * colour)
    return Image.fromarray(shown.astype(np.uint8))


def small(image: Image.Image) -> Image.Image:
    """The picture at the size of the small multiples."""
    factor = SIDE / max(image.size)
    return image.resize([max(1, round(side * factor)) for side in image.size])


def _on_pixels(
    values: np.ndarray, size: Sequence[int], factor: float, frame: Frame, grid: Grid
) -> np.ndarray:
    """The value of the patch that each pixel of the small picture lies in; NaN outside of all."""
    places = []
    for axis, count in ((0, grid.columns), (1, grid.rows)):
        middle = (np.arange(size[axis]) + 0.5) / factor
        patch = np.floor((middle * frame.scale[axis] - frame.offset[axis]) / grid.patch[axis])
        places.append(np.where((patch >= 0) & (patch < count), patch, -1).astype(int))
    column, row = places
    found = values[row[:, None], column]
    return np.where((row[:, None] >= 0) & (column >= 0), found, np.nan)


def blocks(explained: Sequence[Explained]) -> list[tuple[str, Explained, Reading]]:
    """What is shown, in order: (title, model, text)."""
    found = []
    for one in explained:
        found.append((f"{one.model}: caption", one, one.caption))
        if one.foil is not None:
            found.append((f"{one.model}: foil", one, one.foil))
    return found


def facts(reading: Reading) -> str:
    return (
        f"cosine {reading.cosine:.3f}, local score {reading.local_score:.2f}, of which the end "
        f"token {100 * reading.rest:.1f}%"
    )


def of_word(word: Word) -> str:
    """What stands below a map: the word's cosine and its share of the local score."""
    return f"{word.cosine:.2f}, {100 * word.share:.1f}%"


# ---------------------------------------------------------------- PNG


def write_png(path: Path, image: Image.Image, explained: Sequence[Explained]) -> None:
    """All maps as small multiples: a block for each model and text."""
    sheet = _sheet(image, explained)
    write_atomically(path, lambda partial: sheet.save(partial, "PNG"))


def _sheet(image: Image.Image, explained: Sequence[Explained]) -> Image.Image:
    factor = SIDE / max(image.size)
    tile = (SIDE + GAP, round(image.size[1] * factor) + 2 * LINE + GAP)
    parts = blocks(explained)
    columns = min(COLUMNS, max(len(reading.words) + 1 for _, _, reading in parts))
    rows = [-(-(len(reading.words) + 1) // columns) for _, _, reading in parts]
    width = max(columns * tile[0], 620) + GAP
    sheet = Image.new("RGB", (width, sum(2 * LINE + GAP + n * tile[1] for n in rows) + GAP), PAPER)
    draw, y = ImageDraw.Draw(sheet), GAP
    for (title, one, reading), count in zip(parts, rows, strict=True):
        _write(draw, (GAP, y), f"{title}: {reading.text}", 14, INK, width - GAP)
        _write(draw, (GAP, y + LINE), facts(reading), 12, PALE, width - GAP)
        y += 2 * LINE + GAP // 2
        sheet.paste(small(image), (GAP, y + LINE))
        for number, word in enumerate(reading.words, 1):  # the first place is the picture's
            row, column = divmod(number, columns)
            corner = (GAP + column * tile[0], y + row * tile[1])
            _write(draw, corner, word.text, 13, MARK if word.differs else INK, corner[0] + SIDE)
            if word.differs:
                draw.line((corner[0], corner[1] + 15, corner[0] + 24, corner[1] + 15), MARK, 2)
            sheet.paste(heat(image, word, one.frame, one.grid), (corner[0], corner[1] + LINE))
            under = (corner[0], corner[1] + tile[1] - LINE - GAP // 2)
            _write(draw, under, of_word(word), 11, PALE, corner[0] + SIDE)
        y += count * tile[1] + GAP // 2
    return sheet


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int,
    colour: tuple[int, int, int], right: int,
) -> None:  # fmt: skip
    """One line; what does not fit ends in three dots (the HTML has all of it)."""
    font, text = ImageFont.load_default(size), for_terminal(text)
    if draw.textlength(text, font) > right - corner[0]:
        while text and draw.textlength(f"{text}...", font) > right - corner[0]:
            text = text[:-1]
        text = f"{text}..."
    draw.text(corner, text, colour, font)


# ---------------------------------------------------------------- HTML


def write_page(path: Path, image: Image.Image, explained: Sequence[Explained]) -> None:
    """The same as one HTML file that needs nothing else."""
    write_text(path, page(image, explained))


def page(image: Image.Image, explained: Sequence[Explained]) -> str:
    shown = image.copy()
    shown.thumbnail((480, 480))
    first = explained[0]
    title = escape(for_terminal(first.caption.text))
    lines = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>",
        f'<p><img src="{_data_uri(shown)}" alt="the picture"></p>',
        "<p>What the local loss aligns each word with: brighter patches have more of the word's "
        "attention; pale parts the model does not see. Below each word: its cosine with what it "
        "attends to, and its share of the text's local score. Words that caption and foil do not "
        f"share are red. Alignment: {escape(first.alignment)}.</p>",
    ]
    for heading, one, reading in blocks(explained):
        lines.append(f"<h2>{escape(for_terminal(heading))}: {escape(for_terminal(reading.text))}")
        lines.append(f'</h2><p class="pale">{escape(facts(reading))}</p><div class="words">')
        lines += [_figure(image, word, one) for word in reading.words]
        lines.append("</div>")
    return "\n".join(lines) + "\n</body></html>\n"


def _figure(image: Image.Image, word: Word, one: Explained) -> str:
    kind = ' class="differs"' if word.differs else ""
    text = escape(for_terminal(word.text))
    source = _data_uri(heat(image, word, one.frame, one.grid))
    return (
        f'<figure><img src="{source}" alt="where {text} looks"><figcaption><b{kind}>{text}</b> '
        f'<span class="pale">{of_word(word)}</span></figcaption></figure>'
    )


def _data_uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"
