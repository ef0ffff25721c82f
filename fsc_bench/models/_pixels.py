"""A model's own image transform in two halves: per image up to uint8, then one batched
normalisation.

uint8 batches are a quarter of the bytes between threads and to the device, and the last two steps
cost a third once done for a whole batch. The halves are used only if they give the transform's own
tensor, bit for bit, on images of several shapes (`split`). No family.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms


class Pixels:
    """`load`: PIL RGB image -> uint8 [h, w, 3], in any thread; `finish`: uint8 [n, h, w, 3] ->
    float32.
    """

    def __init__(self, head: Callable, mean: Any, std: Any, device: str):
        self.head = head
        # A tensor, not a number: CUDA multiplies by 1/255 where it is given a number.
        self.most = torch.tensor(255.0, device=device)
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.std = torch.as_tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.device = device

    def load(self, image: Image.Image) -> np.ndarray:
        return np.asarray(self.head(image))

    def finish(self, batch: np.ndarray | torch.Tensor) -> torch.Tensor:
        batch = torch.as_tensor(batch)
        if self.device.startswith("cuda"):
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        floats = batch.to(torch.float32, memory_format=torch.contiguous_format)
        return floats.div_(self.most).sub_(self.mean).div_(self.std)


def split(preprocess: Any, device: str) -> Pixels | None:
    """The two halves of a torchvision transform that ends in ToTensor and Normalize, if exact."""
    steps = getattr(preprocess, "transforms", [])
    if len(steps) < 3 or not isinstance(steps[-2], transforms.ToTensor):
        return None
    if not isinstance(steps[-1], transforms.Normalize):
        return None
    head = transforms.Compose(steps[:-2])
    pixels = Pixels(head, steps[-1].mean, steps[-1].std, device)
    noise = np.random.default_rng(0)
    for width, height in ((97, 64), (50, 131), (224, 224)):
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8))
        loaded = pixels.load(image)
        if loaded.ndim != 3 or loaded.dtype != np.uint8:
            return None
        if not torch.equal(pixels.finish(np.stack([loaded]))[0].cpu(), preprocess(image)):
            return None
    return pixels
