"""Writes what was measured into the documents: docs/measured.md, its charts, README's five numbers.

    python -m benchmarks.document           # from benchmarks/results
    python -m benchmarks.document --check   # exits 1 when what is there differs

Every number comes from a recorded run (`python -m benchmarks.record`), and what was not recorded is
said not to be. README's numbers stand between `<!-- numbers -->` and `<!-- /numbers -->`.
"""
