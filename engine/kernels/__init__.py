"""Computational kernels: how are the operations of a forward computed?

Plain functions over tensors; nothing here knows modules, sequences or the engine.

- `reference.py`: attention over pages in plain torch: its definition, and the CPU path.
- One file per operation with its Triton kernels and, beside them, its reference: `norm.py`,
  `swiglu.py`, `qkv.py`, `attention.py`, `route.py`, `experts.py`, `head.py`, `linear.py`. They
  import triton, and are imported only by who has chosen it.
- `tiles.py`: which tiles attention is divided into; `expert_tiles.py`: how experts are multiplied;
  `supported.py`: can a model run on these kernels? They import no triton.
- `python -m engine.kernels.compile`: compiles every kernel for an H100 without one, and lists what
  each takes.
"""
