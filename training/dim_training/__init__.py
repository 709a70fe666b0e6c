"""Data in, checkpoints out: composition, losses and the three stages of Deep Image Matting."""
