"""What people give where a GGUF or a checkpoint folder is expected, and what to do with it instead.

gguf.py     what is no GGUF: other files, folders, names that are no paths
content.py  files, by their first bytes
folder.py   folders, by what is in them
ollama.py   where Ollama keeps a model's GGUF

Imports nothing heavy: a wrong path is refused at once.
"""
