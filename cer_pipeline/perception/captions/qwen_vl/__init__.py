"""Captions by Qwen2.5-VL or Qwen3-VL in this process."""
