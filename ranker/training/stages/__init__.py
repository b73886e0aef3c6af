"""Stages of training beside the trainer's loop: ArmoRM on frozen features, the finish for 8 bits."""
