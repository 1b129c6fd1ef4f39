"""Cache policies by name. A new one is a file here, a line below and a YAML in conf/cache/."""

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
