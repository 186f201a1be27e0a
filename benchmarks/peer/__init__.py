"""Side by side with llama.cpp itself: its server, compiled like our wheel, on the same files.

    python -m benchmarks.peer build                   # llama-server, once: ten minutes on 2 cores
    python -m benchmarks.peer run --quick             # a first look, two minutes
    python -m benchmarks.peer run --json peer.json    # the built-in model: 15 minutes on 2 cores
    python -m benchmarks.peer run --outtype bf16 --json peer-bf16.json
    python -m benchmarks.peer run --scaled width --repetitions 3 --json peer-scaled.json
    python -m benchmarks.peer run --model m.gguf --draft-model small.gguf    # a file without heads

Both run one file: the target packed with its head by `mtp-convert pack`, as architecture mimo2, for
which llama.cpp has a drafting graph. There the head drafts over the whole vocabulary. Ours runs
that target with its trimmed head file beside it too, as mtp-chat does, which llama.cpp cannot. Of a
file without heads llama-server shows all its ways to copy, and a draft model where one is named;
ours copies. A prompt goes, as the same token ids, to every setting of both tools directly one after
another, in an order that changes; ratios are taken within one prompt, then the median over
repetitions, then the geometric mean over classes. Both decode greedily with the same threads and
context size, and everything else as each does by default.

What is compared is decoding: llama-server's own `timings.predicted_per_second`, and ours without
the prompt's pass. Neither counts the first token, which the prompt's pass gives, nor HTTP.
"""
