"""The trainer: losses, LoRA, hard negatives, data and the loop that turns a recipe into a model."""
