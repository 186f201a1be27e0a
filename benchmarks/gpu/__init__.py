"""What drafting is worth on one NVIDIA card: prepared where there is a network, run where there is
none, in at most 8 minutes.

    python -m benchmarks.gpu prepare FOLDER             # with a CUDA compiler; long, and goes on
    python -m benchmarks.gpu prepare FOLDER --python 3.12 --part-mib 40
    python -m benchmarks.gpu run                        # on the card, see what `prepare` says
    python -m benchmarks.gpu run --dry-run              # every stage on the CPU, tiny, two minutes
    python -m benchmarks.gpu show runs/gpu/gpu.json     # the table again

Each stage is a process of its own with a share of the time that is left: one that dies or hangs
costs the others nothing. What it found is written down piece by piece, so that a run that is cut
off keeps what it had.
"""
