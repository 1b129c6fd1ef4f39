"""Tests of the demo task, its tokenizer, and the training of the demo models."""
