"""How much the packed local loss saves against a plain one, forward and backward.

    python tests/bench/bench_local_loss.py [--repeats 7] [--threads N]

Both compute the same loss of the same tokens, in turns, in one process. The plain one, frozen
here, is the paper's equations as one would first write them: all 77 positions, one pass per hard
negative, autograd. Exactness is asserted before anything is timed. The exit code is 1 where a
target is missed: 4 times the speed and 1/8 of the bytes that autograd saves beyond its inputs.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from fsc_bench.train.losses import local_hn_loss_packed, pack_texts

SPEED, BYTES = 4.0, 1 / 8
GAMMA, BETA, SCALE = 2.0, 0.02, 100.0


def plain_scores(patches, words, mask):
    """Local scores [B] of one text per image: patches [B, P, D], words [B, 77, D]."""
    similarity = torch.einsum("btd,bpd->btp", words, patches).detach()
    low = similarity.min(-1, keepdim=True).values
    high = similarity.max(-1, keepdim=True).values
    attention = (similarity - low) / (high - low)
    attention = attention / attention.sum(-1, keepdim=True)
    attended = F.normalize(torch.einsum("btp,bpd->btd", attention, patches), dim=-1)
    cosine = (attended * F.normalize(words, dim=-1)).sum(-1)
    return (SCALE * cosine).masked_fill(~mask, -torch.inf).logsumexp(-1)


def plain_loss(patches, captions, caption_mask, negatives, negative_token_mask, negative_mask):
    scores = [plain_scores(patches, captions, caption_mask)]
    for k in range(negatives.shape[1]):
        scores.append(plain_scores(patches, negatives[:, k], negative_token_mask[:, k]))
    present = torch.cat([torch.ones_like(negative_mask[:, :1]), negative_mask], dim=1)
    logits = torch.stack(scores, dim=1).masked_fill(~present, -torch.inf)
    log_p = logits.log_softmax(-1).masked_fill(~present, 0.0)
    target = present * BETA / present.sum(-1, keepdim=True)
    target = target + F.one_hot(torch.zeros(len(target), dtype=torch.long), present.shape[1]) * (
        1 - BETA
    )
    loss = -(target * (1 - log_p.exp()) ** GAMMA * log_p).sum(-1)
    kept = negative_mask.any(-1)
    return loss[kept].mean()


def batch(images, patches, negatives, width, positions=77):
    """Raw tokens and masks like those of COCO captions: SOT, 8 to 17 words, EOT, padding."""
    words = torch.randint(9, 19, (images, 1 + negatives))
    place = torch.arange(positions)
    mask = (place >= 1) & (place <= words[..., None])
    present = torch.rand(images, negatives) < 0.9
    # A common direction, as real tokens have, so that similarities are not pure noise.
    image_tokens = torch.randn(images, patches, width) + torch.randn(width)
    text_tokens = torch.randn(images, 1 + negatives, positions, width) + torch.randn(width)
    return image_tokens, text_tokens, mask, present


class SavedBytes:
    """Bytes of distinct storages that autograd saves, those of `inputs` not counted."""

    def __init__(self, inputs):
        self.known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self.kept = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept: no address reuse
        return tensor

    @property
    def total(self):
        return sum(size for size, _ in self.kept.values())


def measure(images, patches, negatives, width, repeats):
    image_tokens, text_tokens, mask, present = batch(images, patches, negatives, width)
    captions, others = text_tokens[:, 0].contiguous(), text_tokens[:, 1:].contiguous()
    caption_mask, other_mask = mask[:, 0], mask[:, 1:]
    with torch.no_grad():
        packed, index = pack_texts(captions, caption_mask, others, other_mask, present)

    calibration = {"focal_gamma": GAMMA, "label_smoothing": BETA}

    def plain(image_tokens, captions, others):
        return plain_loss(image_tokens, captions, caption_mask, others, other_mask, present)

    def ours(image_tokens, packed):
        return local_hn_loss_packed(image_tokens, packed, index, present, SCALE, **calibration)

    def ours_with_packing(image_tokens, captions, others):
        packed, index = pack_texts(captions, caption_mask, others, other_mask, present)
        return local_hn_loss_packed(image_tokens, packed, index, present, SCALE, **calibration)

    variants = {
        "plain": (plain, [image_tokens, captions, others]),
        "packed": (ours, [image_tokens, packed]),
        "padded in": (ours_with_packing, [image_tokens, captions, others]),
    }

    def step(name):
        function, inputs = variants[name]
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        saved = SavedBytes(inputs)
        with saved.hooks:
            loss = function(*inputs)
        loss.backward()
        return loss.detach(), [tensor.grad for tensor in inputs], saved.total

    exact(step, present)
    sizes = {name: step(name)[2] for name in variants}
    times = {name: [] for name in variants}
    for _ in range(repeats):
        for name, (function, inputs) in variants.items():
            inputs = [tensor.detach().requires_grad_() for tensor in inputs]
            start = time.perf_counter()
            function(*inputs).backward()
            times[name].append(time.perf_counter() - start)
    return times, sizes


def exact(step, present):
    """Losses equal to 1e-6 and gradients to 1e-5, both relative."""
    loss, (image, caption, other), _ = step("plain")
    packed_loss, (packed_image, _), _ = step("packed")
    padded_loss, padded, _ = step("padded in")
    torch.testing.assert_close(packed_loss, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(padded_loss, loss, rtol=1e-6, atol=0)
    other = other * present[..., None, None]
    pairs = zip((image, *padded), (packed_image, image, caption, other), strict=True)
    for expected, got in pairs:
        worst = (expected - got).abs().max() / expected.abs().max()
        assert worst < 1e-5, f"gradients differ by {worst:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.repeats} repeats")
    print(
        "   B    P  K    D  variant     milliseconds [range]   speed-up [range]    saved MB  share"
    )
    missed = []
    for images, patches, negatives, width in ((64, 49, 3, 512), (64, 196, 3, 512)):
        times, sizes = measure(images, patches, negatives, width, arguments.repeats)
        for name, seconds in times.items():
            ratios = [a / b for a, b in zip(times["plain"], seconds, strict=True)]
            speed, share = statistics.median(ratios), sizes[name] / sizes["plain"]
            print(
                f"{images:4} {patches:4} {negatives:2} {width:4}  {name:10}"
                f" {1e3 * statistics.median(seconds):7.1f}"
                f" [{1e3 * min(seconds):.1f}-{1e3 * max(seconds):.1f}]"
                f"  {speed:6.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
                f"  {sizes[name] / 1e6:8.2f}  1/{1 / share:.1f}"
            )
            if name == "packed" and (speed < SPEED or share > BYTES):
                missed.append(f"P={patches}: {speed:.2f} times the speed, {share:.3f} of the bytes")
    for line in missed:
        print(f"target missed at {line}")
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
