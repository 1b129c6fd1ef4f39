"""Tests that checkpoints are read, checked and planned for correctly, on small models."""
