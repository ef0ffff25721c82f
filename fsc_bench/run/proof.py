"""Proof: what decided a number, part by part, so that it is used again only while all still holds.

A result keeps the digest of every part (`Result.parts`) and the hash of all of them
(`Result.fingerprint`). Comparing costs one look at each image file: nothing is read whose size,
times and inode are the remembered ones.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.plan import Plan, choose_prompts
from fsc_bench.errors import UsageError
from fsc_bench.records import ImageRef
from fsc_bench.results import Result, Samples
from fsc_bench.samples import read_samples
from fsc_bench.score.scoring import VERSION
from fsc_bench.task import reading_facts

SHOWN = 16  # hexadecimal digits of an image's digest in the samples file
# Parts that follow from others: named as the reason only where no other part differs.
FOLLOWING = ("texts", "completeness of the data", "notes on the data")


def parts(
    item: Prepared,
    plan: Plan,
    model: str,
    prompts: str | None = None,
    further: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Everything that decides the result of one task and model: what it is -> its digest.

    model: the fingerprint of its identity. prompts: the wanted set of a classification task.
    further: what else decides it, such as the first stage of a model that scores pairs.
    """
    task = item.task
    some = [row.id for row in item.records] if item.partial else []
    facts: dict[str, Any] = {
        "way of counting": VERSION,
        "version": task.version,
        "kind": task.kind,
        "headline": task.headline,
        "chance": task.chance,
        "way of averaging": task.within,
        "subsets": task.subsets,
        "counts": task.counts,
        "official ties": task.official_ties,
        "reading options": reading_facts(task.data),
        "records": [item.fingerprint, some, item.missing_images],
        "completeness of the data": item.partial,
        "notes on the data": item.notes,
        **(further or {}),
    }
    if task.kind == "classification":
        chosen = choose_prompts(task, prompts)
        facts["class names"] = task.class_names(chosen)
        facts["prompts"] = [chosen, task.prompts[chosen].templates]
    found = {name: _digest(value) for name, value in facts.items()}
    texts = hashlib.sha256(b"".join(sorted(plan.text_key.values()))).hexdigest()
    return {"model": model, **found, "texts": texts, "pictures": _pictures(item, plan)}


def fingerprint(found: Mapping[str, str]) -> str:
    """One hash of all parts."""
    return _digest(dict(found))


def sealed(
    result: Result, samples: Samples, item: Prepared, plan: Plan, found: Mapping[str, str]
) -> tuple[Result, Samples]:
    """The result with what decided it; the samples with the digests of their pictures."""
    shown = [
        [shown_digest(item, plan, ref) for ref in row.images] for row in item.records if row.scored
    ]
    return (
        replace(result, parts=dict(found), fingerprint=fingerprint(found)),
        replace(samples, columns={**samples.columns, "image_digests": shown}),
    )


def difference(
    result: Result, found: Mapping[str, str], item: Prepared, plan: Plan, samples: Path
) -> str:
    """Why a result does not stand any more, as the end of a sentence; empty where it stands.

    samples: its samples file, in which the digests of its pictures are.
    """
    if not result.parts or result.fingerprint != fingerprint(result.parts):
        return "it was scored by a version that did not note what decides its number"
    names = [
        name for name in {**found, **result.parts} if found.get(name) != result.parts.get(name)
    ]
    causes = [name for name in names if name not in FOLLOWING] or names
    return " and ".join(_explained(name, result, item, plan, samples) for name in causes)


def _explained(name: str, result: Result, item: Prepared, plan: Plan, samples: Path) -> str:
    scored = sum(row.scored for row in item.records)
    if name == "records" and scored != result.n:
        return f"there are {scored:,} records instead of {result.n:,}"
    if name == "version":
        return f"the task's version is {item.task.version}, not {result.version}"
    if name == "pictures":
        replaced, every = _replaced(item, plan, samples)
        if replaced:
            return f"{replaced:,} of {every:,} pictures have other content"
    return f"the {name} changed"


def _replaced(item: Prepared, plan: Plan, samples: Path) -> tuple[int, int]:
    """(pictures with other content than when the samples were scored, all pictures)."""
    rows = [row for row in item.records if row.scored]
    every = {ref for row in rows for ref in row.images}
    try:
        table = read_samples(samples, ["id", "image_digests"]).to_pydict()
    except UsageError:
        return 0, len(every)
    before = dict(zip(table["id"], table["image_digests"], strict=True))
    replaced = {
        ref
        for row in rows
        for ref, old in zip(row.images, before.get(row.id) or (), strict=False)
        if shown_digest(item, plan, ref) != old
    }
    return len(replaced), len(every)


def shown_digest(item: Prepared, plan: Plan, ref: ImageRef) -> str:
    """The beginning of the digest of a picture's content and crop; empty where it is unreadable."""
    return plan.image_key.get((item.task.name, ref), b"").hex()[:SHOWN]


def _pictures(item: Prepared, plan: Plan) -> str:
    """Hash of the content and crop of every picture, in the order of the records."""
    digest = hashlib.sha256()
    name, keys = item.task.name, plan.image_key
    for row in item.records:
        if row.scored:
            for ref in row.images:
                digest.update(keys.get((name, ref), b"unreadable"))
    return digest.hexdigest()


def _digest(value: Any) -> str:
    content = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
