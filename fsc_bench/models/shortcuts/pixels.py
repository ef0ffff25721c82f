"""A model's own image transform in two halves: per image up to uint8, then one batched
normalisation.

uint8 batches are a quarter of the bytes between threads and to the device, and the last two steps
cost a third once done for a whole batch. The halves are used only if they give the transform's own
tensor, bit for bit, on images of several shapes (`split`). Where numba is installed, a long run's
resizing is compiled on the way, with the same bytes (resize.py). No family.
"""

import threading
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from fsc_bench.models.shortcuts import resize as _resize

# Pixels in, as of 1,300 photographs of 640x480: about as many more pay for the 2 seconds that
# compiling takes. Shorter runs, and runs on small images such as the demo's, never start it.
WORTH_COMPILING = 400_000_000


class Pixels:
    """`fsc_bench.model.Pixels`: the transform up to uint8, and its last two steps on a batch."""

    def __init__(self, head: transforms.Compose, mean: Any, std: Any, device: str):
        self.head = head
        # A tensor, not a number: CUDA multiplies by 1/255 where it is given a number.
        self.most = torch.tensor(255.0, device=device)
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.std = torch.as_tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.device = device
        self.resize: _resize.Resize | None = None
        self.seen = 0  # pixels that Pillow resized
        self.once = threading.Lock()  # taken for good by the load that has `compile` started

    @property
    def takes_arrays(self) -> bool:
        """Whether `load` would rather have uint8 [h, w, 4] than an image of PIL's."""
        return self.resize is not None

    def load(self, image: Image.Image | np.ndarray) -> np.ndarray:
        array = image if isinstance(image, np.ndarray) else None
        if self.resize is not None:
            if array is None and image.mode == "RGB":
                array = _resize.rgbx(image)
            pixels = None if array is None else self.resize(array)
            if pixels is not None:
                return pixels
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image[:, :, :3])
        self.seen += image.width * image.height
        if self.seen > WORTH_COMPILING and self.once.acquire(blocking=False):
            # The interpreter waits for it at its end: a compiler does not like to be cut off.
            threading.Thread(target=self.compile, name="resize").start()
        return np.asarray(self.head(image))

    def compile(self) -> None:
        """Makes `load` faster from here on, if that is possible; its bytes stay the same."""
        self.resize = _resize.build(self.head.transforms)

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
