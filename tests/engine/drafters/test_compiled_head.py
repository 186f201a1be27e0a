"""A head in our own code drafts what llama.cpp drafts with the same file.

llama.cpp's `mimo2` MTP context is the reference, on a tiny head and on the shipped one, with the
weights that our code keeps. Rounding differs, so logits are compared in units of how far they lie
apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.drafters import compiled_head
from mtp_cli.engine.drafters.compiled_head import NativeHead, runnable
from mtp_cli.engine.drafters.mtp import N_BATCH, MtpDrafter
from mtp_cli.engine.drafters.opening import open_drafter
from mtp_cli.engine.files import gguf_header
from mtp_cli.engine.files.fused_heads import for_llama_cpp
from mtp_cli.engine.files.pairing import pair
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.errors import MtpError
from mtp_cli.models import built_in_heads, built_in_model
from tests.engine import tiny
from tests.engine.conftest import Files, Targets
from tests.engine.drafters.kept_weights import with_kept_weights
from tests.engine.scripted import GREEDY

Q8_0 = gguf.GGMLQuantizationType.Q8_0
N_CTX = 64
TOLERANCE = 0.15  # of the deviation of a row's logits

needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")
Open = Callable[..., NativeHead]


@pytest.fixture
def native(tiny_file: Files) -> Iterator[Open]:
    heads: list[NativeHead] = []

    def opened(path: Path | None = None, n_ctx: int = N_CTX, n_threads: int = 1) -> NativeHead:
        head = runnable(gguf_header.read_header(path or tiny_file("heads-q8_0")), n_ctx)
        assert head is not None
        heads.append(NativeHead(head, n_ctx=n_ctx, n_batch=N_BATCH, n_threads=n_threads))
        return heads[-1]

    yield opened
    for head in heads:
        head.close()


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    opened: list[tuple[Context, Model]] = []

    def context(path: Path, *, in_floats: bool = False) -> Context:
        kept = tmp_path / f"kept-{len(opened)}.gguf"
        with_kept_weights(path, kept, in_floats=in_floats)
        with for_llama_cpp(kept) as part:
            model = Model(part)
        opened.append(
            (
                Context(
                    model,
                    n_ctx=N_CTX,
                    n_batch=N_BATCH,
                    n_outputs=1,
                    n_threads=1,
                    hidden=HiddenSource.NEXTN,
                    mtp=True,
                ),
                model,
            )
        )
        return opened[-1][0]

    yield context
    for found, model in opened:
        found.close()
        model.close()


def rows(n: int, n_embd: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, n_embd)).astype(np.float32)


def off(ours: Floats, theirs: Floats) -> float:
    """How far apart two rows are at most, in deviations."""
    return float(np.abs(ours - theirs).max() / theirs.std())


@needs_kernels
def test_gates_far_from_zero_are_computed_the_same(
    tiny_file: Files, native: Open, reference: Callable[..., Context], tmp_path: Path
) -> None:
    """e to the power of some of them is infinite, and so are sums of their rows in half precision,
    as llama.cpp's Q5_1 would take them."""
    path = tmp_path / "head.gguf"
    path.write_bytes(tiny_file("heads-q8_0").read_bytes())
    entry = gguf_header.read_header(path).tensors["blk.0.ffn_norm.weight"]
    np.memmap(path, np.float32, "r+", entry.offset, entry.shape)[:] *= 300
    for seed in range(4):
        given = rows(1, native().n_embd, seed)
        for head in (ours := native(path), theirs := reference(path, in_floats=True)):
            head.decode([seed], 1, hidden=given)
        assert np.isfinite(theirs.logits()).all()
        assert off(ours.logits(), theirs.logits()) < TOLERANCE


@needs_kernels
@pytest.mark.parametrize("name", ["tiny", "shipped"])
def test_llama_cpp_computes_the_same(
    name: str, tiny_file: Files, native: Open, reference: Callable[..., Context]
) -> None:
    """Rows read together, steps from the head's own rows, cells dropped at both ends."""
    path = tiny_file("heads-q8_0") if name == "tiny" else built_in_heads()
    assert path is not None
    ours, theirs = native(path), reference(path)
    rng, n_ids = np.random.default_rng(1), ours.logits().shape[1]
    position = 7
    for turn in range(12):
        n = int(rng.integers(1, 6))
        tokens, given = rng.integers(0, n_ids, n).tolist(), rows(n, ours.n_embd, turn)
        for head in (ours, theirs):
            head.remove_from(position)
            head.decode(tokens, position, first_output=n - 1, hidden=given)
        assert off(ours.logits(), theirs.logits()) < TOLERANCE
        own = theirs.hidden()
        assert own is not None
        assert off(ours.hidden(), own) < TOLERANCE
        position += n
        for step in range(2):
            token, own = int(theirs.logits().argmax()), np.array(own)
            for head in (ours, theirs):
                head.decode([token], position + step, hidden=own)
            assert off(ours.logits(), theirs.logits()) < TOLERANCE
            own = theirs.hidden()
            assert own is not None
        if turn == 6:
            for head in (ours, theirs):
                assert head.remove_before(position - 8)
    other = ours.logits().copy()
    ours.remove_from(position)
    ours.decode([tokens[0]], position, hidden=rows(1, ours.n_embd, 99))
    assert off(ours.logits(), other) > 4 * TOLERANCE, "the comparison can fail"


@needs_kernels
@pytest.mark.parametrize("n_threads", [2, 3, 20])
def test_threads_change_no_bit(native: Open, n_threads: int) -> None:
    """Not even where there are more of them than attention heads."""
    results = []
    for threads in (1, n_threads):
        head = native(n_threads=threads)
        head.decode([3, 1, 4, 1, 5], 0, first_output=4, hidden=rows(5, head.n_embd, 2))
        head.decode([9], 5, hidden=head.hidden())
        results.append((head.logits().copy(), head.hidden().copy()))
    for one, several in zip(*results, strict=True):
        assert np.array_equal(one, several)


@needs_kernels
def test_a_row_read_with_others_or_alone_is_the_same(native: Open) -> None:
    given = rows(6, tiny.N_EMBD, 3)
    together, apart = native(), native()
    together.decode([1, 2, 3, 4, 5, 6], 0, first_output=5, hidden=given)
    for position in range(6):
        apart.decode([position + 1], position, hidden=given[position : position + 1])
    assert np.array_equal(together.logits(), apart.logits())


@needs_kernels
def test_what_it_cannot_read_is_refused(native: Open) -> None:
    head = native(n_ctx=8)
    head.decode([1, 2, 3], 10, first_output=2, hidden=rows(3, head.n_embd, 4))
    before = head.logits().copy()
    for tokens, position, hidden, message in (
        ([1], 14, rows(1, head.n_embd, 5), "does not follow"),
        ([1], 12, rows(1, head.n_embd, 5), "does not follow"),
        ([tiny.N_VOCAB], 13, rows(1, head.n_embd, 5), "no such token"),
        ([-1], 13, rows(1, head.n_embd, 5), "no such token"),
        ([1], 13, rows(1, head.n_embd + 1, 5), "hidden row"),
        ([1], 13, rows(2, head.n_embd, 5), "hidden row"),
        ([1], 13, None, "hidden row"),
    ):
        with pytest.raises(ValueError, match=message):
            head.decode(tokens, position, hidden=hidden)
    with pytest.raises(MtpError, match="context of 8 tokens is full"):
        head.decode([1] * 6, 13, first_output=5, hidden=rows(6, head.n_embd, 5))
    with pytest.raises(ValueError, match="no head 1"):
        head.use_head(1)
    assert np.array_equal(head.logits(), before)
    head.decode([1], 13, hidden=rows(1, head.n_embd, 5))


@needs_kernels
def test_rows_that_are_no_numbers_end_in_none(native: Open) -> None:
    head = native()
    head.decode([1], 0, hidden=np.full((1, head.n_embd), np.nan, np.float32))
    head.clear()
    head.decode([1], 0, hidden=rows(1, head.n_embd, 6))
    assert np.isfinite(head.logits()).all(), "what was dropped is forgotten"


def native_spec() -> tiny.Spec:
    return tiny.heads_for(tiny.llama(), hidden="pre_norm").quantized(Q8_0)


def with_key(key: str, value: object) -> Callable[[tiny.Spec], tiny.Spec]:
    return lambda spec: dataclasses.replace(spec, keys={**spec.keys, key: value})


def with_tensor(name: str, values: Floats) -> Callable[[tiny.Spec], tiny.Spec]:
    return lambda spec: dataclasses.replace(spec, tensors={**spec.tensors, name: values})


@pytest.mark.parametrize(
    "changed",
    [
        with_key("mimo2.attention.value_scale", 0.5),
        with_key("mimo2.rope.freq_base_swa", 500.0),
        with_key("mimo2.rope.scaling.factor", 4.0),
        with_key("mimo2.rope.dimension_count", 8),
        with_key("mimo2.attention.value_length", 32),
        with_key("mimo2.nextn_predict_layers", 2),
        with_key("mimo2.attention.sliding_window", N_CTX - 1),
        with_tensor("blk.0.attn_sinks.weight", np.ones(tiny.N_HEAD, np.float32)),
        with_tensor("blk.0.ffn_up.bias", np.ones(tiny.N_FF, np.float32)),
        with_tensor("output.weight", np.ones((tiny.EOS, tiny.N_EMBD), np.float32)),
        lambda spec: spec.quantized(gguf.GGMLQuantizationType.F32),
        lambda spec: spec.quantized(gguf.GGMLQuantizationType.Q4_0),
        lambda _: tiny.mimo2().quantized(Q8_0),
        lambda _: tiny.llama().quantized(Q8_0),
    ],
)
def test_every_other_file_is_left_to_llama_cpp(
    tmp_path: Path, changed: Callable[[tiny.Spec], tiny.Spec]
) -> None:
    path = changed(native_spec()).write(tmp_path / "other.gguf")
    assert runnable(gguf_header.read_header(path), N_CTX) is None


@needs_kernels
def test_a_window_of_all_rows_hides_none(tmp_path: Path) -> None:
    path = with_key("mimo2.attention.sliding_window", N_CTX)(native_spec()).write(tmp_path / "w")
    assert runnable(gguf_header.read_header(path), N_CTX) is not None


@needs_kernels
def test_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = native_spec().write(tmp_path / "heads.gguf")

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "fromfile", no_memory)
    head = runnable(gguf_header.read_header(path), 8)
    assert head is not None
    with pytest.raises(MtpError, match="no memory for the head"):
        NativeHead(head, n_ctx=8, n_batch=4, n_threads=1)


@needs_kernels
def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = native_spec().write(tmp_path / "heads.gguf")
    head = runnable(gguf_header.read_header(path), N_CTX)
    assert head is not None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MtpError, match="shorter"):
        NativeHead(head, n_ctx=8, n_batch=4, n_threads=1)
    path.unlink()
    with pytest.raises(MtpError, match="No such file"):
        NativeHead(head, n_ctx=8, n_batch=4, n_threads=1)


@needs_kernels
@pytest.mark.parametrize("n_ctx", [1, 2, 64])
def test_a_targets_heads_run_in_it(tiny_file: Files, new_target: Targets, n_ctx: int) -> None:
    target = new_target("llama", n_ctx=n_ctx)
    shards = [gguf_header.read_header(tiny_file("llama"))]
    pairing = pair(shards, tiny_file("heads-q8_0"))
    assert pairing is not None
    drafter = open_drafter(target, pairing, n_threads=1, n_gpu_layers=0)
    try:
        assert isinstance(drafter, MtpDrafter)
        assert isinstance(drafter._context, NativeHead)
    finally:
        drafter.close()


@needs_kernels
def test_it_drafts_as_well_as_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped head, in the real loop: the same text, and nearly the same drafts."""
    counts = []
    for is_native in (True, False):
        if not is_native:
            monkeypatch.setattr(compiled_head, "runnable", lambda header, n_ctx: None)
        with Engine.open(built_in_model(), built_in_heads(), n_ctx=256, n_gpu_layers=0) as engine:
            prompt = engine.tokenize("Rain falls", add_special=True, parse_special=False)
            answer = engine.generate(prompt, GREEDY, max_tokens=60, depth=3)
            text = [token for round_ in answer for token in round_]
            counts.append((text, sum(answer.stats.accepted)))
    (ours, n_ours), (theirs, n_theirs) = counts
    assert ours == theirs
    assert abs(n_ours - n_theirs) <= 3
    assert n_ours > 10
