"""Models by name: those that other tools keep on this machine, and those of Hugging Face.

names.py   a path, a name or hf:USER/REPO into the file that is meant
stores.py  what tools keep here, and what they call it
hub.py     repositories of Hugging Face: what to take of one, and its download

Imports nothing heavy until it has to: a name that is a path costs nothing.
"""
