"""Computational kernels: how is attention over KV-cache pages computed?

`reference.py`: in plain torch; the definition of the operation, and the CPU path.
"""
