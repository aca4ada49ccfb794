"""Training: the loop, LoRA and QLoRA set-up, batches by token budget, checkpoints."""
