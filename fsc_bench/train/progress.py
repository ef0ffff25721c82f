"""Progress: lines for people, metrics.jsonl for programs, TensorBoard where it is wanted."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fsc_bench.errors import UsageError
from fsc_bench.system.files import complaints
from fsc_bench.train.checkpoint import RESUME
from fsc_bench.train.config import TrainConfig


class Progress:
    """What the leading process of a run tells; the others say and write nothing."""

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        steps: int,
        say: Callable[[str], Any],
        leader: bool,
    ):
        self.out, self.config, self.steps, self.say, self.leader = out, config, steps, say, leader
        self.began, self.images = time.perf_counter(), 0
        self.board = None
        if config.tensorboard and leader:
            self.board = summary_writer()(str(out / "tensorboard"))

    def log(self, step: int, rate: float, report: dict, scales: dict, bad: int) -> None:
        """One logged step; `report` holds the loss, its terms and the accuracy on negatives,
        `scales` the logit scale and the bias that may stand beside it.
        """
        self.images += self.config.batch_size
        if step % self.config.log_every and step not in (1, self.steps):
            return
        seconds = time.perf_counter() - self.began
        speed, self.began, self.images = self.images / seconds, time.perf_counter(), 0
        line = {
            "step": step, "learning_rate": rate, **report, **scales,
            "unusable_pairs": bad, "images_per_second": speed, "memory_mb": _memory(),
        }  # fmt: skip
        self._write(line)
        parts = " ".join(
            f"{name} {report[name]:.4f}" for name in self.config.weights if name in report
        )
        accuracy = report.get("negative_accuracy")
        self.say(
            f"step {step:,}/{self.steps:,}  loss {report['loss']:.4f} ({parts})"
            + (f"  negatives {accuracy:.1f}%" if accuracy is not None else "")
            + f"  scale {scales['logit_scale']:.1f}  {speed:.1f} images/s  {line['memory_mb']:,} MB"
        )

    def dev(self, step: int, loss: float, figures: dict[str, float]) -> None:
        """The loss and the figures, in percent, of the dev split."""
        self._write({"step": step, "dev_loss": loss, **{f"dev_{k}": v for k, v in figures.items()}})
        words = "  ".join(f"{name} {value:.1f}%" for name, value in figures.items())
        self.say(f"dev at {step:,}: loss {loss:.4f}  {words}")
        self.began, self.images = time.perf_counter(), 0

    def probe(self, step: int, figures: dict[str, float]) -> None:
        """What a look at the probe found (mechanism.py)."""
        self._write({"step": step, **{f"probe_{name}": value for name, value in figures.items()}})
        told = {"cos_negative": "caption with negatives", "cos_random": "with other captions",
                "base_image": "images with the base's"}  # fmt: skip
        words = [f"{text} {figures[name]:.3f}" for name, text in told.items() if name in figures]
        self.say(f"probe at {step:,}: cosine of a {', '.join(words)}")
        self.began, self.images = time.perf_counter(), 0

    def close(self) -> None:
        if self.board:
            self.board.close()

    def _write(self, line: dict[str, Any]) -> None:
        if not self.leader:
            return
        path = self.out / "metrics.jsonl"
        with complaints(path, RESUME):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.board:
            for name, value in line.items():
                if name != "step":
                    self.board.add_scalar(name, value, line["step"])


def summary_writer() -> type:
    """TensorBoard's writer. Raises UsageError, one line, where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("tensorboard = true: `pip install tensorboard` first.") from None
    return SummaryWriter


def _memory() -> int:
    """Megabytes: the GPU's peak, or else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
