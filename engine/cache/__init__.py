"""The KV cache: which positions does a forward recompute, and where do their K and V lie?

`base.py`: the contract of a cache policy.
`none.py`, `prefix.py`, `dual.py`, `vicinity.py`, `commit.py`, `dkv.py`, `block_causal.py`: one
policy each.
`pages.py`: which pages belong to which sequence (integers only).
`kv.py`: the tensors behind the pages.

A new policy is a file here, a line in the registry below and a YAML in conf/cache/.
"""

from engine.cache.base import CachePolicy
from engine.cache.block_causal import BlockCausalCache
from engine.cache.commit import CommitCache
from engine.cache.dkv import DelayedCache
from engine.cache.dual import DualCache
from engine.cache.none import NoCache
from engine.cache.prefix import PrefixCache
from engine.cache.vicinity import VicinityCache

CACHE_POLICIES: dict[str, type[CachePolicy]] = {
    "none": NoCache,
    "prefix": PrefixCache,
    "dual": DualCache,
    "vicinity": VicinityCache,
    "commit": CommitCache,
    "dkv": DelayedCache,
    "block_causal": BlockCausalCache,
}
