"""The engine: token ids in, token ids out. Knows nothing of text or terminals.

llama.py, gguf_header.py   llama.cpp and ggml, behind Python
preflight.py, pairing.py   is this file safe to load, and are these its heads
target.py, drafters/       the trunk's timeline, and what proposes for it
sampling.py, verify.py     what the trunk chooses, and so what of a draft stands
depth.py, generate.py      how far to draft, and the loop
engine.py                  all of it together
"""

from mtp_cli.engine.engine import Depth, Engine
from mtp_cli.engine.generate import FinishReason, Generation, Stats
from mtp_cli.engine.sampling import Sampling

__all__ = ["Depth", "Engine", "FinishReason", "Generation", "Sampling", "Stats"]
