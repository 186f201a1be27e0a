"""The text part of GLM-4.5V: GLM-4.5 beside a vision tower.

Its `mrope_section` is not written. With text it turns nothing otherwise, and with it llama.cpp's
graph of the head has four positions a row where it wants one, and aborts.
"""

from __future__ import annotations

from dataclasses import replace

from mtp_convert.families.glm4_moe import GLM4_MOE
from mtp_convert.families.rope import MROPE, SCALED

GLM4V_MOE = replace(
    GLM4_MOE,
    name="GLM-4.5V",
    classes=("Glm4vMoeForConditionalGeneration",),
    ropes=SCALED | {MROPE},
)

FAMILIES = (GLM4V_MOE,)
