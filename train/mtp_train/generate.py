"""Writes the corpus: many conversations at once, each choosing its own next token.

Owns the conversations' states and the sampling. The target runs behind `mtp_train.batching`; knows
nothing of heads or of PyTorch. Every slot feeds one token a step, given ones (the template, a
prompt) like chosen ones, so that a step is one wide decode and the hidden rows come with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.conversation.repetition import Loop
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
from mtp_cli.engine.files.memory import fits_laid_out
from mtp_cli.engine.sampling.truncation import shortlist
from mtp_train import prompts
from mtp_train.batching import ManySequences
from mtp_train.corpus import Role, Sample, write_shard
from mtp_train.framing import Framing
from mtp_train.layer_rows import unit_rows, write_rows
from mtp_train.target import Target

N_CANDIDATES = 200
TOP_P = 0.95
SHARD_SAMPLES = 256
MAX_TURNS = 4
USUAL_SYSTEM_SHARE = 0.8  # of conversations that begin as the chat's do
LOOP = Loop(max_period=40, min_times=3, min_tokens=40)  # a text that is stuck teaches nothing


@dataclass(frozen=True)
class Settings:
    """tokens: how many to write; n_slots: conversations at once; n_ctx: longest conversation;
    template_share: of first requests that come from templates, the rest the target writes;
    layers: those whose input rows are kept beside the final ones;
    system: what the chat puts in front of this target's conversations, None what its template
    does."""

    tokens: int
    n_slots: int = 128
    n_ctx: int = 512
    max_answer: int = 256
    max_request: int = 120
    template_share: float = 0.6
    greedy_share: float = 0.67
    more_turns: float = 0.2
    seed: int = 1
    layers: tuple[int, ...] = ()
    system: str | None = None


class Conversation:
    """One slot's text so far, and what decides its next token."""

    def __init__(self, rng: random.Random, settings: Settings, n_embd: int):
        self.ids: list[int] = []
        self.roles: list[int] = []
        self.rows = np.zeros((settings.n_ctx, n_embd), np.float16)
        self.layers = tuple(np.zeros_like(self.rows) for _ in settings.layers)
        self.given: list[int] = []
        self.role = Role.USER
        self.answer_role = Role.GREEDY if rng.random() < settings.greedy_share else Role.SAMPLED
        self.temperature = rng.uniform(0.6, 1.0)
        self.system: str | None = None
        self.n_turns = 0
        self.n_chosen = 0  # in this turn
        self.chosen = -1
        self.answer_at = 0

    def feed(self) -> int:
        """The next token to decode."""
        if self.given:
            self.ids.append(self.given.pop(0))
            self.roles.append(Role.GIVEN)
        else:
            self.ids.append(self.chosen)
            self.roles.append(self.role)
            self.n_chosen += 1
        return self.ids[-1]

    def start_turn(self, role: Role, given: list[int]) -> None:
        self.role, self.n_chosen, self.given = role, 0, given
        self.answer_at = len(self.ids) + len(given)

    def sample(self) -> Sample:
        n = len(self.ids)
        return Sample(
            np.array(self.ids, np.int32),
            np.array(self.roles, np.uint8),
            self.rows[:n].copy(),
            tuple(rows[:n].copy() for rows in self.layers),
        )

    def meta(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "greedy": self.answer_role is Role.GREEDY,
            "temp": self.temperature,
            "turns": self.n_turns,
        }


class Generator:
    """Keeps every slot busy until enough tokens are on disk."""

    def __init__(self, path: Path, folder: Path, settings: Settings, n_threads: int):
        self._settings, self._folder = settings, folder
        shards = read_shards(path)
        self._target = target_fingerprint(shards)
        self._model = Model(path, lays_out=fits_laid_out(shards))
        self._eps = Target(path).sizes.rms_eps
        self._many = ManySequences(
            self._model, settings.n_slots, settings.n_ctx, n_threads, settings.layers
        )
        self._framing = Framing(self._model)
        self._rng = random.Random(settings.seed)
        self._sampler = np.random.default_rng(settings.seed)
        self._material: list[str] = []
        self._asked: set[tuple[str, str | None]] = set()
        self._done: list[tuple[Sample, dict[str, Any]]] = []
        self._n_shards = 0
        self.n_tokens = 0
        self._slots = [self._begin() for _ in range(settings.n_slots)]

    def run(self, on_step: Callable[[int], None]) -> None:
        """on_step is told the tokens finished so far."""
        while self.n_tokens < self._settings.tokens:
            self.step()
            on_step(self.n_tokens)
        self._flush()

    def close(self) -> None:
        self._many.close()
        self._model.close()

    def step(self) -> None:
        slots = self._slots
        logits, rows = self._many.decode(
            [slot.feed() for slot in slots], [len(slot.ids) - 1 for slot in slots]
        )
        layer_rows = [unit_rows(found, self._eps) for found in self._many.layer_rows()]
        choices = logits.argmax(1)
        drawn = [i for i, slot in enumerate(slots) if self._is_drawn(slot)]
        if drawn:
            heat = [1.0 if slots[i].role is Role.USER else slots[i].temperature for i in drawn]
            choices[drawn] = draw(logits[drawn], np.array(heat), self._sampler)
        for i, slot in enumerate(slots):
            at = len(slot.ids) - 1
            slot.rows[at] = rows[i]
            for kept, found in zip(slot.layers, layer_rows, strict=True):
                kept[at] = found[i]
            if not slot.given and not self._choose(slot, int(choices[i])):
                self._many.drop(i)
                slots[i] = self._begin()

    @staticmethod
    def _is_drawn(slot: Conversation) -> bool:
        return not slot.given and slot.role is not Role.GREEDY

    def _begin(self) -> Conversation:
        settings, rng, framing = self._settings, self._rng, self._framing
        new = Conversation(rng, settings, self._model.n_embd)
        new.system = settings.system
        if framing.takes_system and rng.random() >= USUAL_SYSTEM_SHARE:
            new.system = rng.choice((None, *prompts.SYSTEMS))
        if rng.random() >= settings.template_share:
            opening = framing.opening(new.system)
            if opening:  # without one there is nothing to decode before the request
                new.start_turn(Role.USER, opening)
                return new
        request = prompts.prompt(rng, self._material)
        if (request, new.system) in self._asked:
            new.answer_role = Role.SAMPLED  # the greedy answer is in the corpus already
        self._asked.add((request, new.system))
        new.start_turn(new.answer_role, framing.asked(new.system, request))
        return new

    def _choose(self, slot: Conversation, token: int) -> bool:
        """Take `token` as the slot's next; False when the conversation is over."""
        slot.chosen = token
        n, settings = len(slot.ids), self._settings
        if slot.role is Role.USER:
            if self._model.is_eog(token) and slot.n_chosen >= 3:
                slot.start_turn(slot.answer_role, list(self._framing.answer))
                return n + len(slot.given) < settings.n_ctx - 8
            return not self._model.is_eog(token) and slot.n_chosen < settings.max_request
        if self._model.is_eog(token):
            slot.n_turns += 1
            if self._goes_on(slot):
                self._next_turn(slot)
                return True
            slot.feed()  # its row is never asked for
            self._keep(slot)
            return False
        full = slot.n_chosen >= settings.max_answer or n >= settings.n_ctx - 2
        if full or (slot.n_chosen % 8 == 0 and LOOP.period(slot.ids)):
            slot.n_turns += 1
            self._keep(slot)
            return False
        return True

    def _goes_on(self, slot: Conversation) -> bool:
        has_room = len(slot.ids) < self._settings.n_ctx - 200 and slot.n_turns < MAX_TURNS
        return has_room and self._rng.random() < self._settings.more_turns

    def _next_turn(self, slot: Conversation) -> None:
        framing = self._framing
        if self._rng.random() < 0.5:
            slot.start_turn(Role.USER, list(framing.next_turn))
            return
        slot.start_turn(slot.answer_role, framing.asked_on(prompts.follow_up(self._rng)))

    def _keep(self, slot: Conversation) -> None:
        self._done.append((slot.sample(), slot.meta()))
        self.n_tokens += len(slot.ids)
        length = self._rng.choice((60, 100, 160))
        text = self._framing.text(slot.ids[slot.answer_at : slot.answer_at + length])
        if len(text) > 80:
            self._material = [*self._material[-499:], text]
        if len(self._done) >= SHARD_SAMPLES:
            self._flush()

    def _flush(self) -> None:
        if self._done:
            samples, meta = zip(*self._done, strict=True)
            name = f"shard-{self._settings.seed}-{self._n_shards:04d}.npz"
            path = self._folder / name
            for i, layer in enumerate(self._settings.layers):
                write_rows(path, layer, np.concatenate([s.layers[i] for s in samples]))
            write_shard(path, self._target, samples, meta)
        self._done = []
        self._n_shards += 1


def draw(
    logits: npt.NDArray[np.float32], temperature: npt.NDArray[Any], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """One token a row, by temperature and top-p among the likeliest candidates."""
    drawn = np.empty(len(logits), np.int64)
    for i, (row, point) in enumerate(zip(logits, rng.random(len(logits)), strict=True)):
        top = shortlist(row, N_CANDIDATES)
        top = top[row[top].argsort()[::-1]]
        weights = np.exp((row[top] - row[top[0]]) / temperature[i])
        before = (weights / weights.sum()).cumsum() - weights / weights.sum()
        edges = weights[before <= TOP_P].cumsum()
        drawn[i] = top[(edges < point * edges[-1]).sum()]
    return drawn
