"""The engine: token ids in, token ids out. Knows nothing of text or terminals.

binding.py, llama.py, memory.py
                           llama.cpp behind Python, with errors instead of aborts
kernels.py, few_rows.py, native/
                           which kernels of the CPU run, ggml's and ours
gguf_header.py             a GGUF's keys and tensors
preflight.py, soundness.py is this file safe to load
pairing.py                 are these its heads
target.py, drafters/       the trunk's timeline, and what proposes for it
sampling.py, verify.py     what the trunk chooses, and so what of a draft stands
calibrate.py, cost.py      what a round costs here
acceptance.py, depth.py    what survives, and so how far to draft
generate.py                the loop
engine.py                  all of it together
"""

from mtp_cli.engine.engine import Depth, Engine
from mtp_cli.engine.generate import FinishReason, Generation, Stats
from mtp_cli.engine.sampling import Sampling

__all__ = ["Depth", "Engine", "FinishReason", "Generation", "Sampling", "Stats"]
