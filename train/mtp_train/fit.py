"""The training run: batches in, checkpoints out, resumable at any step.

Owns the schedule, the optimizers and the checkpoint. Knows nothing of how the corpus was made
or of GGUF. A run is a function of its settings and the corpus: every random choice is drawn
from (seed, epoch) or (seed, step), so an interrupted run and an uninterrupted one agree.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary
from mtp_train.agreement import Agreement, agreement
from mtp_train.corpus import Batch, Sample, epoch_pieces, make_batch
from mtp_train.files import writing, written_whole
from mtp_train.head import Chains, Head, shifted
from mtp_train.losses import Adopted, blocked_cross_entropy, target_distribution
from mtp_train.precision import autocast, product_type
from mtp_train.shape import HeadShape
from mtp_train.tables import Tables

_CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Settings:
    """steps: optimizer steps of the whole run; curriculum: the share of them after which one more
    draft step is unrolled; step_weights: the loss weight of each draft step; later_share: of a
    batch's sequences that are unrolled beyond the first."""

    steps: int
    batch_tokens: int = 4096
    lr: float = 1e-2
    output_lr: float = 3e-4
    norm_lr: float = 3e-3
    weight_decay: float = 0.01
    warmup: int = 30
    decay: float = 0.5
    curriculum: tuple[float, ...] = (0.5, 0.75)
    step_weights: tuple[float, ...] = (1.0, 0.8, 0.6, 0.5)
    later_share: float = 0.4
    temperature: float = 1.0
    hard: float = 0.0
    seed: int = 1
    checkpoint_every: int = 50
    evaluate_every: int = 100

    def rate(self, step: int) -> float:
        """Warm-up, plateau, then linearly to zero."""
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return min(1.0, (step + 1) / self.warmup, left)

    @property
    def steps_between_points(self) -> int:
        """Of the curve, which has four at least."""
        return min(self.evaluate_every, max(1, self.steps // 4))

    @classmethod
    def going_on(cls, steps: int) -> Settings:
        """Of a run that starts from a head which has been unrolled before."""
        return cls(steps, curriculum=(0.25, 0.5))

    @classmethod
    def cooldown(cls, steps: int) -> Settings:
        """Of a run that only takes the noise of the rate out of a head: 0.3 of the usual rates,
        falling from the first step, and all three draft steps throughout."""
        usual = cls(steps)
        return replace(
            usual,
            lr=0.3 * usual.lr,
            output_lr=0.3 * usual.output_lr,
            norm_lr=0.3 * usual.norm_lr,
            decay=1.0,
            curriculum=(0.0, 0.0),
        )

    def n_unrolled(self, step: int) -> int:
        return 1 + sum(step >= share * self.steps for share in self.curriculum)


@dataclass
class Progress:
    """Where a run stands; saved with the weights."""

    step: int = 0
    epoch: int = 0
    index: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A run as read back from its folder."""

    head: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    progress: Progress
    shape: HeadShape
    draft_ids: npt.NDArray[np.int32]
    settings: Settings
    form: Path | None  # heads in whose form these are written; None for a head file of our own


def read_checkpoint(folder: Path, target: str) -> Checkpoint | None:
    """The folder's checkpoint, None when it has none; MtpError when it is of another target.

    target: the fingerprint of the target that the head is for
    """
    path = folder / _CHECKPOINT
    if not path.exists():
        return None
    saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if saved.get("target") != target:
        raise MtpError(f"{path}: these heads are for another model; take another folder")
    return Checkpoint(
        saved["head"],
        saved["optimizers"],
        Progress(**saved["progress"]),
        HeadShape.from_saved(saved["shape"]),
        saved["draft_ids"].numpy(),
        Settings(**saved["settings"]),
        Path(saved["form"]) if saved.get("form") else None,
    )


class Run:
    """One training run in one folder."""

    def __init__(
        self,
        folder: Path,
        target: str,
        settings: Settings,
        head: Head,
        samples: Sequence[Sample],
        vocabulary: DraftVocabulary,
        target_output: Tensor,
        form: Path | None = None,
        tables: Tables | None = None,
    ):
        """target: the fingerprint of the target that the head is for;
        target_output: (n_draft, n_embd) the target's own output rows of the draft ids;
        tables: the target's, for ids that the draft vocabulary lacks; None for a head that never
            drafts in them;
        form: heads in whose form these are to be written."""
        self.folder, self.target, self.settings, self.head = folder, target, settings, head
        self.samples, self.vocabulary = samples, vocabulary
        self.target_output, self.tables = target_output, tables
        self.form = form
        self.progress = Progress()
        s = settings
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                head.matrices(),
                lr=s.lr,
                weight_decay=s.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(head.norms(), lr=s.norm_lr, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        head.output.requires_grad_(s.output_lr > 0)
        if s.output_lr:
            self.optimizers.append(
                torch.optim.AdamW(
                    [head.output], lr=s.output_lr, weight_decay=0.0, betas=(0.9, 0.98)
                )
            )
        self._base = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self._pieces: list[list[Sample]] = []
        self._pieces_epoch = -1

    def save(self) -> None:
        """Write the checkpoint; it replaces the last one only when complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        made = {
            "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
            "shape": asdict(self.head.shape),
            "draft_ids": torch.from_numpy(self.vocabulary.draft_ids),
            "settings": asdict(self.settings),
            "target": self.target,
            "form": None if self.form is None else str(self.form),
        }
        with written_whole(self.folder / _CHECKPOINT) as partial, partial.open("wb") as file:
            try:
                torch.save(made, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # the file's own, which torch replaces
                    raise error.__context__ from error
                raise

    def resume(self, saved: Checkpoint) -> None:
        """Continue where a checkpoint stands."""
        self.head.load_state_dict(saved.head)
        for optimizer, state in zip(self.optimizers, saved.optimizers, strict=True):
            optimizer.load_state_dict(state)
        self.progress = saved.progress

    def train(
        self,
        held_out: Sequence[Sample],
        on_step: Callable[[Progress, float], None],
        on_agreement: Callable[[Progress, Agreement], None],
    ) -> None:
        """To the end of the settings' steps, with checkpoints and measurements on the way."""
        while self.progress.step < self.settings.steps:
            started = time.monotonic()
            loss = self._step(self._next_batch())
            self.progress.seconds += time.monotonic() - started
            on_step(self.progress, loss)
            at_end = self.progress.step == self.settings.steps
            if at_end or self.progress.step % self.settings.steps_between_points == 0:
                found = agreement(self.head, held_out, self.vocabulary, tables=self.tables)
                self._log(found)
                on_agreement(self.progress, found)
            if at_end or self.progress.step % self.settings.checkpoint_every == 0:
                self.save()

    def _log(self, found: Agreement) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        recent = self.progress.losses[-100:]
        entry = {
            **asdict(self.progress),
            "losses": None,
            "loss": sum(recent) / max(len(recent), 1),
            **asdict(found),
        }
        path = self.folder / "log.jsonl"
        with writing(path), path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _next_batch(self) -> Batch:
        at = self.progress
        if self._pieces_epoch != at.epoch:
            self._pieces = epoch_pieces(
                self.samples,
                self.settings.batch_tokens,
                self.head.shape.prompt_rows,
                self.settings.seed,
                at.epoch,
            )
            self._pieces_epoch = at.epoch
        adopts = self.tables is not None
        batch = make_batch(self._pieces[at.index], self.vocabulary, adopts=adopts)
        at.index += 1
        if at.index == len(self._pieces):
            at.epoch, at.index = at.epoch + 1, 0
        return batch

    def _step(self, batch: Batch) -> float:
        settings, at = self.settings, self.progress
        for optimizer, base in zip(self.optimizers, self._base, strict=True):
            optimizer.param_groups[0]["lr"] = base * settings.rate(at.step)
            optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch, settings.n_unrolled(at.step))
        torch.autograd.backward(loss)
        for optimizer in self.optimizers:
            optimizer.step()
        at.step += 1
        at.n_tokens += int((batch.weights > 0).sum())
        at.losses = [*at.losses[-199:], loss.item()]
        return at.losses[-1]

    def _loss(self, batch: Batch, n_unrolled: int) -> Tensor:
        """The weighted cross entropy per counted position of the first draft step, plus that of
        the later ones by their weights."""
        head, device = self.head, self.head.output.device
        weights = torch.from_numpy(batch.weights).to(device)
        chosen = weights > 0
        with autocast(device):
            rows = torch.from_numpy(batch.rows).to(device)[chosen].float()
            adopted = self._adopted(batch, chosen)
            targets = self._targets(rows, adopted)
            number = torch.full(chosen.shape, -1, device=device)
            number[chosen] = torch.arange(len(rows), device=device)
            tokens = torch.from_numpy(batch.tokens).to(device)
            before = torch.from_numpy(batch.before).to(device).float()
            hidden = head.read(before)
            total = rows.new_zeros(())
            embedded = None if self.tables is None else self.tables.embeddings(batch, device)
            chains = Chains(head, tokens, hidden, embedded)
            use = chosen
            for k in range(min(n_unrolled, head.max_depth or n_unrolled)):
                if k == 1:
                    few = self._few(len(tokens), device)
                    chains.keep(few)
                    chosen, number, weights = chosen[few], number[few], weights[few]
                    use = use[few]
                if k > 0:  # a chain goes on inside an answer, where the one before it could
                    use = chosen & (shifted(use[..., None].float(), 1)[..., 0] > 0)
                out = chains.step(use)
                places = number[use]
                step = blocked_cross_entropy(
                    head.normed(out[use], k),
                    head.output,
                    targets[places],
                    weights[use],
                    None if adopted is None else adopted.of(places),
                )
                total = total + self.settings.step_weights[k] * step / weights[use].sum().clamp(
                    min=1
                )
        return total

    def _few(self, n_sequences: int, device: torch.device) -> Tensor:
        """The sequences of this batch that are unrolled beyond the first draft step."""
        draws = np.random.default_rng((self.settings.seed, self.progress.step))
        n_few = max(1, round(self.settings.later_share * n_sequences))
        return torch.from_numpy(draws.permutation(n_sequences)[:n_few]).to(device)

    def _adopted(self, batch: Batch, chosen: Tensor) -> Adopted | None:
        """The columns behind the draft vocabulary's, for the chosen positions."""
        if self.tables is None or not len(batch.adopted):
            return None
        sequence, index = chosen.nonzero(as_tuple=True)
        known = torch.from_numpy(batch.known).to(chosen.device)[sequence] <= index[:, None]
        return Adopted(self.tables.output_rows(batch, chosen.device), known)

    def _targets(self, rows: Tensor, adopted: Adopted | None) -> Tensor:
        s = self.settings
        dtype = product_type(rows.device)
        targets = target_distribution(rows, self.target_output, s.temperature, dtype, adopted)
        if s.hard:
            best = targets.argmax(-1, keepdim=True)
            targets.mul_(1 - s.hard).scatter_add_(
                1, best, torch.full_like(best, s.hard, dtype=targets.dtype)
            )
        return targets
