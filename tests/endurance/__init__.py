"""Endurance: long runs by hand, outside `make test`; CONTRIBUTING.md says how.

fuzz.py   damaged files through every reader of ours
kill.py   SIGKILL at random moments of what writes files
disk.py   a disk that fills while files are written
talk.py   a long conversation with the built-in model, beside plain decoding

mutations.py, readers.py  what fuzz damages, and what reads it
writing.py, training.py   the writers that kill and disk interrupt
"""
