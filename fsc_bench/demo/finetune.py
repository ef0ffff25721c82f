"""Fine-tuning in the demo world: its training data, and the shipped models rebuilt by the trainer.

    fsc-bench train demo-fsc-clip                  the run, as anybody's
    python -m fsc_bench.demo.finetune              all four, into weights/

`world:finetune?pairs=19200` is training data like any other: it comes in by the entry point
`fsc_bench.training_data`. Scenes are of the split "train" and of a part of the world (`FINETUNE`).
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fsc_bench.demo import model as demo_model
from fsc_bench.demo import world
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.spec import Spec
from fsc_bench.train.sources import Keys, Pair

MODELS = ("clip", "global-hn", "fsc-clip", "fsc-clip-lora")
# One kind of false sentence is drawn for each column of hard negatives.
KINDS: dict[str, tuple[str, ...]] = {
    "swap": ("swap_attribute", "swap_texture", "swap_size", "swap_object"),
    "replace": ("replace_object", "replace_attribute", "replace_texture", "replace_size",
                "replace_relation", "replace_count", "replace_background"),
    "shuffle": ("shuffle",),
}  # fmt: skip


class World:
    """Scenes with true sentences, and false ones of the kinds of hard negatives wanted."""

    def __init__(self, pairs: int, seed: int, kinds: tuple[str, ...], positives: bool = False):
        for kind in kinds:
            if kind not in KINDS:
                known = ", ".join(KINDS)
                raise UsageError(
                    f"negative_kinds: the world has {known}, not {kind!r}.{near_miss(kind, KINDS)}"
                )
        self.pairs, self.seed, self.kinds, self.positives = pairs, seed, kinds, positives
        self.keys = [str(number) for number in range(pairs)]
        first = [repr(self._scene(number)) + self.caption(number) for number in range(50)]
        self.fingerprint = hashlib.sha256(repr((pairs, seed, first)).encode()).hexdigest()

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, index: int) -> Pair:
        scene, description, style, rng = self._described(index)
        negatives = tuple(
            self._false(scene, description, style, kind, rng) or "" for kind in self.kinds
        )
        # Of a stream of its own: what else is drawn is the same with and without.
        more = np.random.default_rng([20412, self.seed, index])
        positives = paraphrase(description, style, more) if self.positives else ()
        caption = world.verbalise(description, style)
        return Pair(Image.fromarray(world.render(scene)), caption, negatives, positives)

    def caption(self, index: int) -> str:
        _, description, style, _ = self._described(index)
        return world.verbalise(description, style)

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([20411, self.seed, index])

    def _scene(self, index: int) -> world.Scene:
        return world.sample_scene(self._rng(index), domain=world.FINETUNE, split="train")

    def _described(self, index: int):
        rng = self._rng(index)
        scene = world.sample_scene(rng, domain=world.FINETUNE, split="train")
        return scene, world.describe(scene, rng), world.sample_style(rng), rng

    @staticmethod
    def _false(scene, description, style, kind: str, rng) -> str | None:
        """A sentence of this kind that is false of the scene, of the caption's own words."""
        caption = world.verbalise(description, style)
        if kind == "shuffle":
            words = caption.split()
            for _ in range(6):
                text = " ".join(words[place] for place in rng.permutation(len(words)))
                if text != caption and not world.is_true(text, scene):
                    return text
            return None
        for name in rng.permutation(KINDS[kind]):
            changed = world.falsify(description, scene, str(name), rng, world.FINETUNE)
            if changed is not None:
                text = world.verbalise(changed, style)
                if text != caption:
                    return text
        return None


def paraphrase(
    description: world.Description, style: world.Style, rng: np.random.Generator
) -> tuple[str, ...]:
    """Another sentence of the same meaning: other things first where no relation orders them, or
    another wording. Empty where a few draws give none.
    """
    if not description.relations:
        description = replace(description, mentions=description.mentions[::-1])
    for _ in range(8):
        text = world.verbalise(description, world.sample_style(rng))
        if text != world.verbalise(description, style):
            return (text,)
    return ()


def open_pairs(path: str, keys: Keys, links: Mapping[str, str]) -> World:
    spec = Spec("world", path)
    options = spec.options("pairs", "seed")
    if spec.place != "finetune":
        raise UsageError(f"world:{path}: there is world:finetune?pairs=19200&seed=0.")
    try:
        pairs, seed = int(options.get("pairs", "19200")), int(options.get("seed", "0"))
    except ValueError:
        raise UsageError(f"world:{path}: pairs and seed are whole numbers.") from None
    if pairs < 50:
        raise UsageError(f"world:{path}: pairs must be at least 50.")
    kinds = keys.negative_kinds if keys.negatives else ()
    return World(pairs, seed, kinds, bool(keys.positives))


def rebuild(name: str, folder: Path, weights: Path, say=print) -> Path:
    """Trains the shipped model `name` in `folder` and writes it to `weights`, in float16."""
    from safetensors.torch import load_file

    from fsc_bench.train.config import read_recipe
    from fsc_bench.train.loop import train

    recipe = read_recipe(f"demo-{name}")
    run = train(recipe, folder / name, resume=True, say=say)
    model = demo_model.build()
    model.load_state_dict(load_file(run / "model.safetensors"), strict=True)
    facts = json.loads((run / "config.json").read_text())
    metadata = {
        "format": "pt",
        "recipe": f"demo-{name}",
        "config": json.dumps(facts["settings"]),
        "seed": str(recipe.config.seed),
        "steps": str(facts["trained_steps"]),
        "base": facts["base"]["weights"],
        "data": facts["data"]["fingerprint"],
        "architecture": json.dumps(demo_model.architecture()),
        "words": " ".join(demo_model.WordTokenizer().words),
    }
    path = weights / f"{name}.safetensors"
    demo_model.save(model, path, metadata)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; default all")
    parser.add_argument("--out", type=Path, default=demo_model.WEIGHTS, help="folder of weights")
    parser.add_argument("--runs", type=Path, help="keep the training runs here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--report", action="store_true", help="then score on the dev world (needs a checkout)"
    )
    arguments = parser.parse_args()
    for name in arguments.models:
        if name not in MODELS:
            parser.error(f"no demo model {name!r}.{near_miss(name, MODELS)}")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.models or MODELS:
            path = rebuild(name, arguments.runs or Path(scratch), arguments.out)
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MB", flush=True)
            if arguments.report:
                from fsc_bench.demo.pretrain import report

                report(demo_model.load(path)[0])


if __name__ == "__main__":
    main()
