"""Tests that every kernel computes what its reference does."""
