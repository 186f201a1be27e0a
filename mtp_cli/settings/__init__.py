"""Settings that hold for every start: a file, environment variables, the user's names for models.

file.py     the TOML file: where it is, what is in it, on which line
options.py  which settings of file and environment become a command's options, and why
command.py  the commands that follow them

The options are the command's own: nothing lists them twice. Knows nothing of what they mean.
"""
