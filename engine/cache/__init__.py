"""Cache policies by name. A new one is a file here, a line below and a YAML in conf/cache/."""

from engine.cache.base import CachePolicy
from engine.cache.dual import DualCache
from engine.cache.none import NoCache

CACHE_POLICIES: dict[str, type[CachePolicy]] = {"none": NoCache, "dual": DualCache}
