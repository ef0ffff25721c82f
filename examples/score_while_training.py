"""Training an open_clip model, with a score every few steps.

    python examples/score_while_training.py --steps 20 --every 10

It trains a small CLIP on made-up pairs and scores `demo-fast`, which is drawn, not fetched. With
your own model and data, score `fast`, whose benchmarks `fsc-bench data get fast` fetches.
"""

import argparse

import open_clip
import torch

import fsc_bench


def tiny_clip() -> torch.nn.Module:
    return open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        text_cfg={"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    )


def made_up_batch(tokenizer, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Squares of one colour, and their names."""
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}
    names = [list(colours)[number] for number in torch.randint(len(colours), (size,))]
    pixels = torch.tensor([colours[name] for name in names], dtype=torch.float32)
    images = pixels[:, :, None, None].expand(-1, -1, 32, 32) + 0.1 * torch.randn(size, 3, 32, 32)
    return images, tokenizer([f"a {name} square" for name in names])


def train(steps: int, every: int, tasks: str = "demo-fast", limit: int | None = None) -> list:
    torch.manual_seed(0)
    model = tiny_clip()
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    preprocess = open_clip.image_transform(32, is_train=False)
    loss_of = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for step in range(1, steps + 1):
        images, texts = made_up_batch(tokenizer)
        loss = loss_of(*model(images, texts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0:
            scores = fsc_bench.score(
                model, tasks, preprocess=preprocess, tokenizer=tokenizer, limit=limit
            )
            print(f"step {step}, loss {loss.item():.3f}\n{scores.report()}\n")
            history.append(scores)
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--tasks", default="demo-fast")
    given = parser.parse_args()
    train(given.steps, given.every, given.tasks)
