"""A BLIP and a BLIP-2 of transformers' own classes with random weights, of a thousandth of their
size, saved as `save_pretrained` does, with an image processor and a tokenizer of some words.
"""

from pathlib import Path

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] _ replace swap obj att ##_ ##obj ##att . , "
WORDS = (PIECES + "a an the of photo no number red blue dog cat on and two 0 1 2 3 4 5 6 7 8 9 10 "
         "11 cow toy car square word").split()  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4}  # fmt: skip
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
TEXT = {**TOWER, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "max_position_embeddings": 24}


def save(folder: Path, kind: str = "blip", seed: int = 1) -> Path:
    """Writes the model's folder. Scores differ widely: the heads are blown up."""
    import torch
    from transformers import (
        BertTokenizer,
        Blip2Config,
        Blip2ForImageTextRetrieval,
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
    )

    torch.manual_seed(seed)
    if kind == "blip":
        text = {**TEXT, "bos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0}
        config = BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16)
        model = BlipForImageTextRetrieval(config)
    else:
        config = Blip2Config(
            vision_config=VISION,
            qformer_config={**TEXT, "use_qformer_text_input": True},
            num_query_tokens=4,
            image_text_hidden_size=16,
        )
        model = Blip2ForImageTextRetrieval(config)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if (name.endswith("weight") and part.ndim > 1) or name == "query_tokens":
                part.normal_(0, 0.3)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipImageProcessor(size=size).save_pretrained(folder)
    folder.joinpath("vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)})
    tokenizer.save_pretrained(folder)
    return folder
