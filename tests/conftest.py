"""Set before torch is imported: tiny matrices on many threads are slower than on one, and a busy
neighbour makes them hundreds of times slower. GPUs are hidden: float32 on CPU is what is exact."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
