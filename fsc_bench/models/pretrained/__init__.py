"""Pretrained: what `save_pretrained` of transformers writes, as parts of a dual encoder."""
