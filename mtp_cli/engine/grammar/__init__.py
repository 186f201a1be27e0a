"""What an answer may be: grammars, and which ids they allow next. Knows nothing of how ids are
chosen or drafted.
"""
