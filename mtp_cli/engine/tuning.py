"""The numbers that policy, costs, calibration and drafters are tuned by. Imports nothing of ours.

Each is a field of a frozen object: its value, its unit, what it trades or which failure it
prevents, and the entry of benchmarks/LOG.md that decided it, by the beginning of its title. So they
can be printed, swept (`python -m benchmarks.tuning`) and recorded beside a measurement. Sizes that
follow from llama.cpp or from a file's form stand where they are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Weights = tuple[float, float, float]


def constant(value: Any, unit: str, why: str, log: str = "") -> Any:
    """A field with this default; log: how its entry's title in benchmarks/LOG.md begins."""
    return field(default=value, metadata={"unit": unit, "why": why, "log": log})


@dataclass(frozen=True)
class PolicyTuning:
    """`depth.automatic`: how far to draft."""

    n_futures: int = constant(
        16,
        "continuations",
        "sampled for a decision to draft on; fewer decide by chance",
        "The policy's Python: 0.43",
    )
    n_seen: int = constant(
        64,
        "survivals",
        "remembered for each position, to sample futures from",
        "Positions judged by 64 survivals",
    )
    n_enough: int = constant(
        8,
        "survivals",
        "a position with fewer is held to be like the one before it",
        "Positions never drafted",
    )
    refresh: int = constant(
        8,
        "rounds",
        "between two samples of futures: to sample in each costs more than it tells",
        "The policy's Python: 0.43",
    )
    price_rounds: float = constant(
        32.0,
        "plain rounds",
        "over which the price of time is averaged",
        "Price of time (Dinkelbach)",
    )
    switch_share: float = constant(
        0.5,
        "of a switch",
        "that the round pays which makes it, since the next may stay with it",
        "Half a switch in decisions",
    )
    margin: float = constant(
        0.06,
        "tokens for each plain round longer",
        "by which verifying more must look better",
        "Caution: kept",
    )
    compare_every: int = constant(
        64,
        "rounds of drafting",
        "before a plain one, lest its cost be forgotten",
        "Costs by median and EWMA",
    )
    compare_soon: int = constant(
        4,
        "rounds of drafting",
        "before a plain one while costs are in doubt",
        "Doubts bring a plain round after 4",
    )
    first_wait: int = constant(
        6,
        "rounds",
        "without heads before they are tried again, the first time; doubles in vain",
        "Parked heads: 64 rows kept",
    )
    longest_wait: int = constant(
        128,
        "rounds",
        "the most that this doubles to: trials in vain cost 0.6 percent",
        "Parked heads: 64 rows kept",
    )
    n_opening: int = constant(
        3,
        "rounds",
        "at an answer's beginning in which parked heads are asked, while right",
        "Heads in the first 2 rounds",
    )
    n_before_weak: int = constant(
        16,
        "tokens",
        "of an answer before a match of a single id is copied from: a short one wins nothing back",
        "A match of one id",
    )
    n_tried: int = constant(
        7,
        "ids",
        "copied at once until a copy stood: a longer one that fails costs more",
        "Losses bounded in each answer anew",
    )
    allowance: float = constant(
        0.006,
        "plain rounds a round",
        "that copies may lose before they have to promise more",
        "Bounded losses: kept",
    )
    dearer: float = constant(
        0.04,
        "of margin for each plain round",
        "added to `margin` for what copies lost of late",
        "One purse for all losses",
    )
    lost_most: float = constant(
        1.0,
        "plain rounds",
        "the most of what was lost that counts: bad luck must end",
        "Bad luck locked good heads out",
    )
    doubt: float = constant(
        0.1,
        "tokens for each plain round overdrawn",
        "that heads without a budget must promise",
        "Bounded losses: kept",
    )
    heads_first: float = constant(
        0.4,
        "plain rounds",
        "that heads may lose in the first answer, to be judged at all",
        "One purse for all losses",
    )
    heads_again: float = constant(
        0.1,
        "plain rounds",
        "that they may lose when another answer begins, whatever they won",
        "Losses bounded in each answer anew",
    )
    heads_each: float = constant(
        0.004, "plain rounds a round", "that their budget grows by", "One purse for all losses"
    )
    heads_share: float = constant(
        0.3, "of what drafting wins", "that is added to their budget", "One purse for all losses"
    )
    heads_most: float = constant(
        1.0,
        "plain rounds",
        "the largest budget, so that a good text's gain is not gambled away",
        "Bad luck locked good heads out",
    )
    heads_least: float = constant(
        -0.5,
        "plain rounds",
        "the smallest budget, so that good heads are not out for long",
        "Bad luck locked good heads out",
    )
    n_learned: int = constant(
        4,
        "ids",
        "of a copy to learn from: the ones after them say little more",
        "Copying: right 0.54 to 0.93",
    )
    reading_most: float = constant(
        1.0,
        "plain rounds",
        "that a drafter may take to read what it missed; a longer reading has to have paid",
    )
    n_sure: int = constant(
        8, "rounds", "of an answer before a drafter's worth is told by how sure the target was"
    )
    hope: float = constant(
        0.05,
        "probability",
        "a copied id, or a block's, that is reached less often is left out",
        "Copies of up to 15 ids",
    )
    typical: float = constant(
        0.5, "survival", "taken for granted before anything was drafted", "Positions never drafted"
    )


@dataclass(frozen=True)
class SurvivalTuning:
    """`depth.survival`: how likely a proposed id is to be accepted."""

    drift: float = constant(
        0.001,
        "variance",
        "that the constant's weight gains with each label: texts change",
        "Further features of acceptance",
    )
    caution: float = constant(
        0.5,
        "standard deviations of log-odds",
        "taken off an estimate that is not well known yet",
        "Caution: kept",
    )
    least: float = constant(0.005, "probability", "the lowest estimate: nothing is impossible")
    most: float = constant(0.995, "probability", "the highest estimate: nothing is certain")
    head_weights: Weights = constant(
        (0.0, 0.85, 0.6),
        "weights",
        "before anything was seen: constant, log-odds, agreement",
        "Agreement with a copy as a feature",
    )
    head_variances: Weights = constant(
        (0.3, 0.05, 0.05), "variances", "of these weights", "Agreement with a copy as a feature"
    )
    block_variances: Weights = constant(
        (2.0, 0.1, 0.05),
        "variances",
        "of the same for a block drafter: what its sureness is worth nobody knows before, and each "
        "block that fails costs many rows",
        "Block drafters: whole drafts as futures",
    )
    n_positions: int = constant(
        4, "positions", "of a draft with a regression of their own; later ones share the last"
    )
    copy_weights: Weights = constant(
        (-0.95, 0.85, 1.45),
        "weights",
        "before anything was seen: constant, log2 length, support",
        "The place before the last one",
    )
    copy_variances: Weights = constant(
        (0.4, 0.05, 0.2), "variances", "of these weights", "The place before the last one"
    )
    support: Weights = constant(
        (0.0, 0.55, -1.0),
        "feature",
        "no earlier place to tell; it went on likewise; otherwise",
        "The place before the last one",
    )
    forced_weights: Weights = constant(
        (2.0, 0.0, 0.0), "weights", "before anything was seen: constant, and nothing else"
    )
    forced_variances: Weights = constant((0.4, 0.0, 0.0), "variances", "of these weights")
    value_weights: Weights = constant(
        (0.0, 0.4, 1.0),
        "weights",
        "before anything was seen: constant, log2 of bytes that are there, a token that stood",
    )
    value_variances: Weights = constant((0.4, 0.05, 0.2), "variances", "of these weights")
    end_weights: Weights = constant(
        (0.0, 1.2, 0.0),
        "weights",
        "before anything was seen: constant, whether the value ends there in the prompt, too",
    )
    end_variances: Weights = constant((0.4, 0.2, 0.0), "variances", "of these weights")


@dataclass(frozen=True)
class CostTuning:
    """`depth.cost`: a Kalman filter over logarithms of seconds; deviations are theirs."""

    noise: float = constant(0.2, "deviation", "of one observation", "Noise of costs")
    level_first: float = constant(
        0.3, "deviation", "of the level of all row counts at first", "Costs by median and EWMA"
    )
    level_drift: float = constant(
        0.03,
        "deviation a round",
        "that the level gains: loads come and go",
        "Costs by median and EWMA",
    )
    own_first: float = constant(
        0.1, "deviation", "of what is one row count's own, at first", "Costs by median and EWMA"
    )
    own_drift: float = constant(
        0.004,
        "deviation a round",
        "that one row count's own part gains",
        "Costs by median and EWMA",
    )
    kept: float = constant(
        1 - 1 / 48,
        "of a row count's own part",
        "is kept with each observation of others, "
        "else one that was disturbed once would be avoided for ever",
        "A row count held dear for ever",
    )
    expected: float = constant(
        0.1,
        "logarithm",
        "an observation nearer than this is as expected",
        "The policy's Python: 0.43",
    )
    expected_every: int = constant(
        4,
        "observations",
        "of those as expected, one is learned from: Python's time",
        "The policy's Python: 0.43",
    )
    stall: float = constant(
        0.6,
        "logarithm",
        "an observation further off is believed when the next one is too",
        "Noise of costs",
    )
    refuted: float = constant(
        0.3,
        "logarithm",
        "rows that are surely faster than measured by more were measured on a busy machine",
        "Tables measured on a busy machine",
    )
    refuted_own: float = constant(
        0.1,
        "logarithm",
        "a row count that is surely further off, by itself, was measured wrong",
        "Tables measured on a busy machine",
    )
    first_patience: int = constant(
        1,
        "answers",
        "before refuted costs are learned anew, the first time; doubles each time",
        "Tables measured on a busy machine",
    )


@dataclass(frozen=True)
class CalibrationTuning:
    """`depth.calibrate`: what is measured first, and for how long."""

    counts: tuple[int, ...] = constant(
        (*range(1, 10), 12, 16), "rows", "counts that are measured; others lie between"
    )
    n_often: int = constant(
        5,
        "rows",
        "counts up to here decide most, and are measured in each pass",
        "Six rows, measured once",
    )
    rarely: int = constant(
        4, "passes", "of which larger counts have one", "Six rows, measured once"
    )
    target_s: float = constant(
        0.9, "seconds", "for all counts; each is measured once in any case, the first ones twice"
    )
    long_s: float = constant(
        2.5, "seconds", "a longer context that would take more to read is left out"
    )
    n_short: int = constant(16, "tokens", "of context while row counts are measured")
    n_long: int = constant(
        272,
        "tokens",
        "of context to measure growth with: llama.cpp reads cells in steps of 256",
        "Row cost grows with the context",
    )
    n_remembered: int = constant(64, "tables", "kept in the cache's file")


@dataclass(frozen=True)
class ExactnessTuning:
    """`depth.exactness`: what has to be seen before row counts are believed to change no bit."""

    counts: tuple[int, ...] = constant(
        (*range(2, 10), 12, 16), "rows", "counts that are tried; no other one is ever believed"
    )
    n_proofs: int = constant(
        8, "rows of text", "that must come out as alone, for each count and size of context"
    )
    n_checked: int = constant(
        4, "decodes", "of a count in an answer that are compared, every row of them"
    )
    check_every: int = constant(32, "decodes", "of which one is compared after these")
    first_s: float = constant(0.3, "seconds", "that comparing may take from the start")
    share: float = constant(0.2, "of the time", "that comparing may take after these")


@dataclass(frozen=True)
class LearningTuning:
    """`depth.learning`: how costs are learned while answering."""

    first_s: float = constant(
        0.1, "seconds", "that measuring may lose against plain rounds at first"
    )
    share: float = constant(0.1, "of the time", "that it may lose after these")
    deep: int = constant(4, "ids", "drafted to learn what a further one costs")
    copied: tuple[int, ...] = constant(
        (2, 4, 8, 16), "rows", "counts that are tried where only copying drafts"
    )
    n_resting: int = constant(8, "plain rounds", "before a draft, to learn what waiting rows cost")


@dataclass(frozen=True)
class CoreTuning:
    """`backend.cores`: how many threads a decode has beside other programs."""

    look_every_s: float = constant(
        0.2, "seconds", "between looks at what cores did; the system counts hundredths"
    )
    n_looks: int = constant(2, "looks", "back, over which cores are averaged")
    missing: float = constant(
        0.35, "cores", "that others may use before a thread is taken back for them"
    )
    own_share: float = constant(
        0.5,
        "cores",
        "that this process used since a look long ago, if that was for a decode and no pause",
    )
    n_recounts: int = constant(
        2, "counts", "of what runs, before another program is believed to be more than a moment's"
    )
    recount_s: float = constant(0.001, "seconds", "between those counts")
    spare_niceness: int = constant(
        3,
        "steps of nice",
        "of a spare thread: with it the other program keeps the two thirds of a core that are fair",
    )
    own_core: float = constant(
        0.85,
        "cores",
        "that a decode's only thread has at least where no other program wants that core: a spare "
        "thread would take from it where two want both",
    )


@dataclass(frozen=True)
class CopyTuning:
    """`drafters.ngram`: what is found in the text before."""

    sizes: tuple[int, ...] = constant(
        (12, 6, 3, 2),
        "ids",
        "n-grams looked up, longest first; the last is the shortest match",
        "Copying: right 0.54 to 0.93",
    )
    sizes_alone: tuple[int, ...] = constant(
        (12, 6, 3, 2, 1),
        "ids",
        "likewise where no head drafts: with one, a single id's match tells nothing more",
        "A match of one id",
    )
    longest: int = constant(
        64, "ids", "that a match is followed back to learn its length", "A match followed back"
    )
    surer: int = constant(
        3,
        "ids",
        "of a match from which on a copy goes before the rest of a value that is looked up",
    )


@dataclass(frozen=True)
class HeadTuning:
    """`drafters.mtp`: what a head reads."""

    n_waiting: int = constant(
        32,
        "rows",
        "kept while nothing is drafted: more make drafts no better",
        "Rows a waiting head needs",
    )
    n_forgotten: int = constant(
        8, "rows", "dropped at once when one more comes", "Rows a waiting head needs"
    )
    n_ctx: int = constant(
        512, "rows", "that a head remembers: it drafts no better with more", "A head's context"
    )
    n_prompt_eagle3: int = constant(
        256, "rows", "of a prompt's end that an EAGLE-3 drafter reads: the answer waits meanwhile"
    )
    n_prompt_block: int = constant(
        512,
        "rows",
        "of a prompt's end that a block drafter reads, a product for each layer and none between: "
        "the answer waits meanwhile",
    )


@dataclass(frozen=True)
class SmallModelTuning:
    """`drafters.small_model`: what a draft model reads of a long text."""

    n_first: int = constant(
        4, "tokens", "of the beginning, which all others attend to (arXiv:2309.17453)"
    )
    n_last: int = constant(256, "tokens", "of the end: the answer waits while they are read")
    n_ctx: int = constant(4096, "tokens", "that it remembers at most")


@dataclass(frozen=True)
class DrawTuning:
    """`sampling.sampler`: how drafts are drawn."""

    sharpness: float = constant(
        1.5,
        "temperature over draft's",
        "a draft a little surer than the head accepts more",
        "Acceptance rules: draws from q^1.5",
    )


@dataclass(frozen=True)
class Tuning:
    """All of them."""

    policy: PolicyTuning = PolicyTuning()
    survival: SurvivalTuning = SurvivalTuning()
    cost: CostTuning = CostTuning()
    calibration: CalibrationTuning = CalibrationTuning()
    learning: LearningTuning = LearningTuning()
    exactness: ExactnessTuning = ExactnessTuning()
    cores: CoreTuning = CoreTuning()
    copies: CopyTuning = CopyTuning()
    heads: HeadTuning = HeadTuning()
    small_model: SmallModelTuning = SmallModelTuning()
    draws: DrawTuning = DrawTuning()


TUNING = Tuning()


@dataclass(frozen=True)
class Entry:
    """One constant, for people. name: its object's and its own, with a dot between."""

    name: str
    value: Any
    unit: str
    why: str
    log: str


def entries(tuning: Tuning = TUNING) -> Iterator[Entry]:
    for group in dataclasses.fields(tuning):
        constants = getattr(tuning, group.name)
        for one in dataclasses.fields(constants):
            value = getattr(constants, one.name)
            yield Entry(f"{group.name}.{one.name}", value, **one.metadata)


def replaced(tuning: Tuning, name: str, value: Any) -> Tuning:
    """The same but for one constant, by the name that its entry has."""
    group, _, own = name.partition(".")
    constants = dataclasses.replace(getattr(tuning, group), **{own: value})
    return dataclasses.replace(tuning, **{group: constants})
