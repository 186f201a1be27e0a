"""The target's own rows of the ids that a text holds and the draft vocabulary lacks.

Heads draft in such ids, too, once the text holds them (`mtp_cli.engine.drafters.adopted_ids`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtp_train.corpus import Batch


@dataclass(frozen=True)
class Tables:
    """A target's: (n_vocab, n_embd) float32 each; one array where the two are tied."""

    token_embd: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]

    def embeddings(self, batch: Batch, device: torch.device) -> Tensor:
        """Of a batch's adopted ids: (n_adopted, n_embd)."""
        return torch.from_numpy(self.token_embd[batch.adopted]).to(device)

    def output_rows(self, batch: Batch, device: torch.device) -> Tensor:
        """Of a batch's adopted ids: (n_adopted, n_embd)."""
        return torch.from_numpy(self.output[batch.adopted]).to(device)
