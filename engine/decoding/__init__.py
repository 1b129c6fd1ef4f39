"""Decoding strategies by name. A new one is a file here, a line below and a YAML in
conf/decoding/."""

from engine.decoding.base import DecodingStrategy
from engine.decoding.fixed import Fixed
from engine.decoding.threshold import Threshold

DECODERS: dict[str, type[DecodingStrategy]] = {"fixed": Fixed, "threshold": Threshold}
