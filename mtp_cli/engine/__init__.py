"""The engine: token ids in, token ids out. Knows nothing of text or terminals.

engine.py      one loaded model with what drafts for it, and the one timeline they share
generate.py    the loop: draft, verify, accept, emit
depth/         how far to draft
drafters/      what is proposed
sampling/      what the target chooses, and so what of a draft stands
files/         may it be loaded, and which heads belong to which trunk
backend/       llama.cpp behind Python, and which of the CPU's kernels run
native/        our compiled code
"""

from mtp_cli.engine.engine import Depth, Engine
from mtp_cli.engine.generate import FinishReason, Generation, Stats
from mtp_cli.engine.sampling.sampler import Sampling

__all__ = ["Depth", "Engine", "FinishReason", "Generation", "Sampling", "Stats"]
