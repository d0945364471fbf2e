"""Hugging Face checkpoints to quantized GGUF: one pass, no PyTorch, the bytes of llama.cpp's own tools."""
