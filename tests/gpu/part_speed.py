"""Images and texts a second: from files to vectors, of the encoder alone, and by other programs."""

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from drawn import captions, model_of, photos
from PIL import Image

from fsc_bench.data import jpeg
from fsc_bench.data.images import Images
from fsc_bench.embed.encode import Encoder, decoders, wait_for
from fsc_bench.embed.plan import Plan, text_digests
from fsc_bench.embed.store import Store
from fsc_bench.models.shortcuts import pixels as shortcut
from fsc_bench.records import OWN, ImageRef
from fsc_bench.system.settings import working


def measure(check: Any) -> Iterator[tuple[str, dict]]:
    n = 12 if check.tiny else 4096
    folder = check.folder / "raw" / "drawn"
    folder.mkdir(parents=True)
    files = []
    for number, content in enumerate(photos(n)):
        files.append(folder / f"{number:05}.jpg")
        files[-1].write_bytes(content)
    architectures = ("ViT-S-32-alt",) if check.tiny else ("ViT-B-32", "ViT-L-14")
    texts = captions(64 if check.tiny else 20_000)
    with working():
        yield from by_threads(check, architectures[0], files)
        yield from by_others(check, architectures[0], files, texts)
        for architecture in architectures:
            share = n if architecture != "ViT-L-14" else n // 2
            for precision in ("fp32", "bf16"):
                model = model_of(architecture, check.device, precision)
                name = f"{architecture} {precision}"
                yield name, whole(check, model, files[:share], texts)
                del model
                free(check.device)
        if not check.tiny:  # compiling takes a minute
            model = model_of(architectures[0], check.device, "bf16")
            yield f"{architectures[0]} bf16 compiled", compiled(check, model, files)


def whole(check: Any, model: Any, files: list[Path], texts: list[str]) -> dict:
    """Images and texts a second, and the share of the time in which the card waits."""
    ends = encoded(check, model, files)
    alone = tower(check, model, ends["batch"])
    seconds, tokens = texts_encoded(check, model, texts)
    return {
        "images_per_second": round(ends["images"] / ends["seconds"], 1),
        "encoder_alone": round(alone, 1),
        "card_waits_percent": round(
            100 * max(0.0, 1 - ends["images"] / alone / ends["seconds"]), 1
        ),
        "batch": ends["batch"],
        "decode_threads": decoders(),
        "texts_per_second": round(len(texts) / seconds, 1),
        "tokens_per_second": round(tokens / seconds, 1),
    }


def encoded(check: Any, model: Any, files: list[Path]) -> dict[str, Any]:
    """The engine from files to stored vectors; the batch size is found before the clock runs."""
    images = Images(check.folder)
    place = {os.urandom(32): ("drawn", ImageRef(OWN, file.name)) for file in files}
    with fresh_store(check) as store:
        encoder = Encoder(model, images, store)
        batch = encoder.batch
        wait_for(model.encode_images(probe(model, batch)))
        begun = time.perf_counter()
        failed = encoder.encode(Plan({}, place, {}, len(place), 0))
        seconds = time.perf_counter() - begun
    assert not failed, next(iter(failed.values()))
    return {"images": len(place), "seconds": seconds, "batch": batch}


def probe(model: Any, rows: int) -> torch.Tensor:
    """A batch as `preprocess` would have made it, on the CPU."""
    one = model.preprocess(Image.new("RGB", (640, 480), (120, 80, 40)))
    return one[None].repeat(rows, 1, 1, 1)


def tower(check: Any, model: Any, batch: int) -> float:
    """Images a second of the image tower on pixels that are there already."""
    pixels = probe(model, batch).to(check.device, model.dtype)
    wait_for(model.encode_images(pixels))
    rounds, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < (0.2 if check.tiny else 2):
        wait_for(model.encode_images(pixels))
        rounds += 1
    return rounds * batch / (time.perf_counter() - begun)


def texts_encoded(check: Any, model: Any, texts: list[str]) -> tuple[float, int]:
    """(seconds, tokens) from strings to stored vectors."""
    plan = Plan({}, {}, text_digests(texts), 0, len(texts))
    tokens = int(model.extras.tokens.ids(texts)[1].sum()) if model.extras.tokens else 0
    with fresh_store(check) as store:
        encoder = Encoder(model, Images(check.folder), store)
        _ = encoder.batch
        wait_for(model.encode_texts(texts[:64]))
        begun = time.perf_counter()
        encoder.encode(plan)
        return time.perf_counter() - begun, tokens


def compiled(check: Any, model: Any, files: list[Path]) -> dict[str, Any]:
    begun = time.perf_counter()
    model.extras.compile()
    ends = encoded(check, model, files)
    alone = tower(check, model, ends["batch"])
    took = time.perf_counter() - begun - ends["seconds"]
    return {
        "images_per_second": round(ends["images"] / ends["seconds"], 1),
        "encoder_alone": round(alone, 1),
        "compiling_seconds": round(took, 1),
    }


def by_threads(check: Any, architecture: str, files: list[Path]) -> Iterator[tuple[str, dict]]:
    """The engine in bf16 with so many cores to decode on, with and without the extra `fast`."""
    model = model_of(architecture, check.device, "bf16")
    cores = sorted(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 4, 8, 16) if count <= len(cores)]
    found: dict[str, float] = {}
    try:
        with without_fast():
            for count in counts:
                os.sched_setaffinity(0, cores[:count])
                some = files if check.tiny else files[: len(files) * count // 16]
                ends = encoded(check, model, some)
                found[str(count)] = round(ends["images"] / ends["seconds"], 1)
    finally:
        os.sched_setaffinity(0, cores)
    yield f"{architecture} bf16, images a second by cores", found
    model.extras.pixels.compile()
    ends = encoded(check, model, files)
    yield (
        f"{architecture} bf16 with the extra fast",
        {
            "images_per_second": round(ends["images"] / ends["seconds"], 1),
            "simplejpeg": jpeg.decoder() is not None,
            "numba": bool(model.extras.pixels.takes_arrays),
        },
    )


@contextlib.contextmanager
def without_fast() -> Iterator[None]:
    """Pillow alone reads and resizes, as where the extra `fast` is not installed."""
    decoder, worth = jpeg.decoder, shortcut.WORTH_COMPILING
    jpeg.decoder, shortcut.WORTH_COMPILING = lambda: None, 2**62
    try:
        yield
    finally:
        jpeg.decoder, shortcut.WORTH_COMPILING = decoder, worth


def by_others(
    check: Any, architecture: str, files: list[Path], texts: list[str]
) -> Iterator[tuple[str, dict]]:
    """A plain loop over open_clip and torch's loader, and clip_benchmark's own evaluation."""
    model = model_of(architecture, check.device, "fp32")
    workers = 0 if check.tiny else min(16, len(os.sched_getaffinity(0)))
    some = files[: 8 if check.tiny else 2048]
    loader = torch.utils.data.DataLoader(
        Files(some, model.preprocess), 8 if check.tiny else 256, num_workers=workers
    )
    bare = model.model.float()

    def plain() -> None:
        with torch.no_grad():
            for images, _ in loader:
                last = bare.encode_image(images.to(check.device), normalize=True)
            last.cpu()

    yield (
        f"{architecture} fp32, a plain loop over open_clip",
        {"images_per_second": round(len(some) / timed(plain), 1), "workers": workers},
    )
    few = texts[: 16 if check.tiny else 4096]

    def padded() -> None:
        with torch.no_grad():
            for at in range(0, len(few), 256):
                last = bare.encode_text(
                    model.tokenizer(few[at : at + 256]).to(check.device), normalize=True
                )
            last.cpu()

    yield (
        f"{architecture} fp32, a plain loop over texts",
        {"texts_per_second": round(len(few) / timed(padded), 1)},
    )
    yield f"{architecture} fp32, clip_benchmark", theirs(check, model, bare, some, few, workers)


def theirs(check: Any, model: Any, bare: Any, files: list, texts: list, workers: int) -> dict:
    """clip_benchmark's zero-shot retrieval over the same files, one caption each, without amp."""
    from clip_benchmark.metrics import zeroshot_retrieval

    def collate(rows: list) -> tuple[torch.Tensor, list[list[str]]]:
        return torch.stack([row[0] for row in rows]), [[texts[row[1] % len(texts)]] for row in rows]

    loader = torch.utils.data.DataLoader(
        Files(files, model.preprocess), 8 if check.tiny else 256, num_workers=workers,
        collate_fn=collate,
    )  # fmt: skip

    def evaluate() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            zeroshot_retrieval.evaluate(
                bare, loader, model.tokenizer, check.device, amp=False, recall_k_list=[1]
            )

    return {"pairs_per_second": round(len(files) / timed(evaluate), 1)}


class Files(torch.utils.data.Dataset):
    """(pixels, number) of each file, as users of open_clip read them."""

    def __init__(self, files: list[Path], preprocess: Callable):
        self.files, self.preprocess = files, preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self.preprocess(Image.open(self.files[number]).convert("RGB")), number


@contextlib.contextmanager
def fresh_store(check: Any) -> Iterator[Store]:
    yield Store(check.folder / f"store-{os.urandom(4).hex()}")


def timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def free(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
