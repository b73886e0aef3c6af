"""Stages of training beside the trainer's loop: ArmoRM on frozen features, quantization-aware training."""
