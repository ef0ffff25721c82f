"""One tiny model of each dual encoder of transformers: random weights, its own image processor and
tokenizer, saved as `save_pretrained` does. The tokenizers are made here of a few words.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 32  # pixels
MERGES = 600  # of CLIP's 48,894: all of them take seconds
TEXTS = ["A red Dog", "the blue cat on a table, and two toys: one on the car"]
SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
WORDS = (
    "a an the of photo no number red blue dog cat on and two one toys table car . , : word what "
    "0 1 2 3 4 5 6 7 8 9 ##s replace swap obj att is cup mat"
)
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4}  # fmt: skip
VISION = {**TOWER, "image_size": SIDE, "patch_size": 8}
BERT = {**TOWER, "max_position_embeddings": 24}
SIZE = {"height": SIDE, "width": SIDE}


# ---------------------------------------------------------------- tokenizers


def word_piece() -> Any:
    from transformers import BertTokenizer

    words = [*SPECIAL.split(), *WORDS.split()]
    return BertTokenizer(vocab={word: place for place, word in enumerate(words)})


def clip_bpe() -> Any:
    """CLIP's own, with the first merges of the vocabulary that open_clip brings."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    packed = SimpleTokenizer()
    words = [*list(packed.encoder)[: 512 + MERGES], "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: place for place, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=list(packed.bpe_ranks)[:MERGES], model_max_length=77)


def sentence_piece(folder: Path) -> Any:
    """SigLIP's own class, trained on a few sentences."""
    import sentencepiece
    from transformers import SiglipTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, WORDS] * 4), model_writer=model, vocab_size=60,
        pad_id=-1, bos_id=-1, eos_id=1, unk_id=0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return SiglipTokenizer(str(folder / "spiece.model"))


def byte_pairs(kind: str, special: str, **options: Any) -> Any:
    """Gemma's and XLM-RoBERTa's kind, of the words here."""
    import transformers
    from tokenizers import Tokenizer, models, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    letters = [chr(number) for number in range(33, 127)] + ["▁"]
    trained.train_from_iterator(
        [text.lower() for text in (*TEXTS, WORDS)],
        trainers.BpeTrainer(special_tokens=special.split(), initial_alphabet=letters,
                            vocab_size=200, show_progress=False),
    )  # fmt: skip
    found = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in found["merges"]]
    return getattr(transformers, kind)(vocab=found["vocab"], merges=merges, **options)


def gemma(kind: str = "GemmaTokenizer") -> Any:
    return byte_pairs(kind, "<pad> <eos> <bos> <unk> <mask>", padding_side="right")


def roberta(longest: int) -> Any:
    """XLM-RoBERTa's, of whole words."""
    from transformers import XLMRobertaTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", "▁"]
    words += [f"▁{word}" for word in WORDS.split()] + list("abcdefghijklmnopqrstuvwxyz.,:")
    vocab = [(word, -float(place)) for place, word in enumerate(words)] + [("<mask>", 0.0)]
    return XLMRobertaTokenizer(vocab=vocab, model_max_length=longest)


# ---------------------------------------------------------------- models


def clip(_: Path) -> tuple:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokens = clip_bpe()
    start, end = tokens.bos_token_id, tokens.eos_token_id
    text = {**TOWER, "hidden_size": 16, "vocab_size": len(tokens), "bos_token_id": start,
            "eos_token_id": end, "pad_token_id": end}  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return CLIPModel(config), clip_pixels(CLIPImageProcessor), tokens


def clip_pixels(kind: Any) -> Any:
    return kind(size={"shortest_edge": SIDE}, crop_size=SIZE)


def metaclip_2(_: Path) -> tuple:
    from transformers import CLIPImageProcessor, MetaClip2Config, MetaClip2Model

    tokens = roberta(77)
    text = {**TOWER, "vocab_size": len(tokens), "max_position_embeddings": 77,
            "eos_token_id": tokens.eos_token_id, "bos_token_id": tokens.bos_token_id,
            "pad_token_id": tokens.pad_token_id}  # fmt: skip
    config = MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24)
    return MetaClip2Model(config), clip_pixels(CLIPImageProcessor), tokens


def siglip_model(tokens: Any) -> Any:
    from transformers import SiglipConfig, SiglipModel

    text = {**TOWER, "vocab_size": len(tokens), "max_position_embeddings": 64,
            "pad_token_id": tokens.pad_token_id, "bos_token_id": None,
            "eos_token_id": tokens.eos_token_id}  # fmt: skip
    return SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))


def siglip(folder: Path) -> tuple:
    from transformers import SiglipImageProcessor

    tokens = sentence_piece(folder)
    return siglip_model(tokens), SiglipImageProcessor(size=SIZE), tokens


def siglip_2(_: Path) -> tuple:
    """SigLIP 2 of a fixed size: SigLIP's model with Gemma's tokenizer, as on the Hub."""
    from transformers import SiglipImageProcessor

    tokens = gemma()
    return siglip_model(tokens), SiglipImageProcessor(size=SIZE), tokens


def naflex(_: Path) -> tuple:
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    tokens = gemma("Siglip2Tokenizer")
    text = {**TOWER, "vocab_size": len(tokens), "max_position_embeddings": 64}
    vision = {**TOWER, "patch_size": 8, "num_patches": 16}
    config = Siglip2Config(text_config=text, vision_config=vision)
    return Siglip2Model(config), Siglip2ImageProcessor(patch_size=8, max_num_patches=20), tokens


def align(_: Path) -> tuple:
    from transformers import AlignConfig, AlignModel, EfficientNetImageProcessor

    tokens = word_piece()
    vision = {"image_size": SIDE, "width_coefficient": 0.25, "depth_coefficient": 0.1,
              "kernel_sizes": [3, 3], "in_channels": [32, 16], "out_channels": [16, 128],
              "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 6],
              "depthwise_padding": [], "hidden_dim": 32}  # fmt: skip
    text = {**BERT, "max_position_embeddings": 80, "vocab_size": len(tokens)}
    model = AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=32))
    pixels = EfficientNetImageProcessor(size=SIZE, crop_size=SIZE)
    return model, pixels, tokens


def altclip(_: Path) -> tuple:
    from transformers import AltCLIPConfig, AltCLIPModel, CLIPImageProcessor

    tokens = roberta(512)
    text = {**BERT, "vocab_size": len(tokens), "project_dim": 24, "max_position_embeddings": 34,
            "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}  # fmt: skip
    config = AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return AltCLIPModel(config), clip_pixels(CLIPImageProcessor), tokens


def chinese_clip(_: Path) -> tuple:
    from transformers import ChineseCLIPConfig, ChineseCLIPImageProcessor, ChineseCLIPModel

    tokens = word_piece()
    text = {**BERT, "max_position_embeddings": 60, "vocab_size": len(tokens)}
    config = ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return ChineseCLIPModel(config), clip_pixels(ChineseCLIPImageProcessor), tokens


def flava_config(tokens: Any) -> Any:
    from transformers import FlavaConfig

    text = {**BERT, "max_position_embeddings": 80, "vocab_size": len(tokens)}
    book = {"num_groups": 1, "hidden_size": 8, "num_blocks_per_group": 1, "vocab_size": 10}
    return FlavaConfig(image_config=VISION, text_config=text, multimodal_config=TOWER,
                       image_codebook_config=book, hidden_size=32, projection_dim=24,
                       init_codebook=False)  # fmt: skip


def flava(_: Path) -> tuple:
    from transformers import FlavaForPreTraining, FlavaImageProcessor

    tokens = word_piece()
    pixels = FlavaImageProcessor(size=SIZE, crop_size=SIZE)
    return FlavaForPreTraining(flava_config(tokens)), pixels, tokens


def blip_parts(tokens: Any) -> tuple:
    from transformers import BlipConfig, BlipImageProcessor

    text = {**BERT, "vocab_size": len(tokens), "encoder_hidden_size": 32, "bos_token_id": 2,
            "sep_token_id": 3, "pad_token_id": 0, "projection_dim": 24}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16,
                        projection_dim=24)  # fmt: skip
    return config, BlipImageProcessor(size=SIZE)


def blip(_: Path) -> tuple:
    from transformers import BlipForImageTextRetrieval

    tokens = word_piece()
    config, pixels = blip_parts(tokens)
    return BlipForImageTextRetrieval(config), pixels, tokens


def blip_pretrained(_: Path) -> tuple:
    """BLIP's other class with a common space."""
    from transformers import BlipModel

    tokens = word_piece()
    config, pixels = blip_parts(tokens)
    return BlipModel(config), pixels, tokens


def blip_2(_: Path) -> tuple:
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipImageProcessor

    tokens = word_piece()
    former = {**BERT, "vocab_size": len(tokens), "encoder_hidden_size": 32,
              "use_qformer_text_input": True}  # fmt: skip
    config = Blip2Config(vision_config=VISION, qformer_config=former, num_query_tokens=4,
                         image_text_hidden_size=16)  # fmt: skip
    return Blip2ForImageTextRetrieval(config), BlipImageProcessor(size=SIZE), tokens


MODELS: dict[str, Callable[[Path], tuple]] = {
    "clip": clip, "metaclip_2": metaclip_2, "siglip": siglip, "siglip 2": siglip_2,
    "siglip 2 naflex": naflex, "align": align, "altclip": altclip, "chinese_clip": chinese_clip,
    "flava": flava, "blip": blip, "blip model": blip_pretrained, "blip-2": blip_2,
}  # fmt: skip


def save(folder: Path, name: str, seed: int = 1) -> Path:
    """Writes a model's folder. Its weights are large, so that vectors differ widely."""
    import torch

    torch.manual_seed(seed)
    model, pixels, tokens = MODELS[name](folder)
    with torch.no_grad():
        for part in model.parameters():
            if part.ndim > 1:
                part.normal_(0, 0.2)
    model.save_pretrained(folder)
    pixels.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
