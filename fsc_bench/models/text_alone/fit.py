"""The recipe of bigrams.json.gz: counts of word pairs in captions that no benchmark's foils are of.

    python -m fsc_bench.models.text_alone.fit COCO_KARPATHY_TEST FLICKR30K_TEST SUGARCREPE OUT

The first two are `coco_karpathy_test.json` and `flickr30k_test.json` (lists of `{"image",
"caption"}`, as `data get coco_karpathy flickr30k` fetches them), the third the folder of
SugarCrepe's seven files. Captions of a picture that SugarCrepe asks about are left out: 29,095
captions are counted. The package ships the counts, not the captions.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.models.text_alone import Bigrams, count, packed
from fsc_bench.system.files import write_atomically

FACTS = {
    "what": "How often a word or sign follows another in 29,095 captions: counts, no captions.",
    "source": "Flickr30k, test split of Karpathy (5,000 captions; Young et al. 2014), and COCO, "
    "test split of Karpathy, without the pictures of SugarCrepe (24,095 captions; Chen et al. "
    "2015, arXiv:1504.00325)",
    "licence": "COCO's captions: CC BY 4.0. Flickr30k's captions: Creative Commons, for research.",
    "recipe": "python -m fsc_bench.models.text_alone.fit",
}


def captions(coco: Path, flickr: Path, sugarcrepe: Path) -> Iterator[str]:
    """Flickr30k's captions, then COCO's of the pictures that SugarCrepe does not ask about."""
    asked = {
        _number(row["filename"])
        for file in sorted(sugarcrepe.glob("*.json"))
        for row in json.loads(file.read_text(encoding="utf-8")).values()
    }
    for row in json.loads(flickr.read_text(encoding="utf-8")):
        yield from row["caption"]
    for row in json.loads(coco.read_text(encoding="utf-8")):
        if _number(row["image"]) not in asked:
            yield from row["caption"]


def _number(name: str) -> int:
    """COCO's own number of a picture, which val2014 and val2017 share."""
    return int(re.findall(r"\d+", name)[-1])


def fit(coco: Path, flickr: Path, sugarcrepe: Path) -> tuple[Bigrams, int]:
    """(counts, how many captions they are of)."""
    found = list(captions(coco, flickr, sugarcrepe))
    return count(found), len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("coco", "flickr", "sugarcrepe", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    bigrams, n = fit(given.coco, given.flickr, given.sugarcrepe)
    content = packed(bigrams, FACTS)
    write_atomically(given.out, lambda partial: partial.write_bytes(content))
    print(f"{given.out}: {n:,} captions, {len(bigrams.words):,} tokens, {len(content):,} bytes")


if __name__ == "__main__":
    main()
