"""A server that speaks the OpenAI API. Its layers, from the outside in, each testable by itself:

cli.py       the command's options
run.py       loads the model, listens, ends cleanly
app.py       routes, keys, errors: HTTP in, answers out
replies.py   an answer as one object, or as a stream of them
requests.py  what the API takes
messages.py  the API's messages as a chat template takes them
prompts.py   messages to ids, for many conversations over one tokeniser
answers.py   one request answered by the engine, as events
worker.py    the thread that owns the engine, and the queue in front of it
timelines.py which conversations stay in memory
metrics.py   what `/metrics` tells
faults.py    the API's own error objects
"""
