"""Tests that the benchmarks compare like with like, and check what they report."""
