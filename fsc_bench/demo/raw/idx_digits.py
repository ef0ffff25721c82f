"""MNIST in miniature: `t10k-{images-idx3,labels-idx1}-ubyte.gz` of rendered digits.

28x28 pixels, light on dark.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, stream, write_idx


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 300) -> None:
    rng = stream(seed, 30)
    pixels = np.zeros((n, 28, 28), np.uint8)
    labels = (np.arange(n) % 10).astype(np.uint8)
    for i, value in enumerate(labels):
        style = ("font", "stroke")[i // 10 % 2]
        scene = world.sample_scene(rng, "digit", split="test", value=int(value), style=style)
        grey = Image.fromarray(world.render(scene)).convert("L").resize((28, 28), Image.BOX)
        array = np.asarray(grey)
        pixels[i] = 255 - array if np.median(array) > 127 else array
    write_idx(raw, pixels, labels)
