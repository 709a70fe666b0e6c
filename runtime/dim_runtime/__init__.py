"""Image and trimap in, alpha matte out: no PyTorch, any image size."""
