"""Tests of the engine's own modules: its loop, strategies, memory, and ranks of a group."""
