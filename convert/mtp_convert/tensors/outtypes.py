"""The names of number formats that a user may ask for. Knows nothing of the formats themselves.

A module of its own, so that the command line can list them without loading what encodes them.
"""

from __future__ import annotations

from mtp_cli.errors import MtpError

NAMES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s",
         "q4_k_m", "q5_k_s", "q5_k_m", "q6_k")  # fmt: skip
# llama-quantize's own short names.
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}


def canonical(name: str) -> str:
    """An outtype as NAMES spells it; MtpError when there is none of that name."""
    lower = name.lower()
    found = ALIASES.get(lower, lower)
    if found not in NAMES:
        raise MtpError(f"number format {name!r}: expected one of {', '.join(NAMES)}")
    return found
