"""The prompts of the benchmark: the community mtp-bench's nine classes, copying and open chat.

Plain data. Each class has the same few prompts in every run; a repetition takes the next one.
"""

from __future__ import annotations

_CODE_TO_EDIT = '''\
class Inventory:
    """Counts of articles by name."""

    def __init__(self):
        self.counts = {}

    def add(self, name, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.counts[name] = self.counts.get(name, 0) + amount

    def remove(self, name, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        if self.counts.get(name, 0) < amount:
            raise ValueError("not enough in stock")
        self.counts[name] = self.counts[name] - amount

    def total(self):
        return sum(self.counts.values())
'''

_TEXT_TO_EDIT = """\
The ferry leaves the harbour at six in the morning and reaches the island shortly before eight. \
Visitors who want to climb the hill should bring water, because there is no shop beyond the \
village. The path begins behind the church, crosses two fields and follows the old wall up to the \
ridge. From the top one can see both lighthouses and, on clear days, the mountains of the \
mainland. The last ferry back leaves at seven in the evening and does not wait.
"""

_CODE_TO_REVIEW = """\
import json, os, threading

class Cache:
    def __init__(self, path, limit=1000):
        self.path = path
        self.limit = limit
        self.items = {}
        self.lock = threading.Lock()
        if os.path.exists(path):
            self.items = json.load(open(path))

    def get(self, key, default=None):
        try:
            return self.items[key]["value"]
        except:
            return default

    def put(self, key, value):
        self.lock.acquire()
        if len(self.items) > self.limit:
            oldest = None
            for k in self.items:
                if oldest == None or self.items[k]["time"] < self.items[oldest]["time"]:
                    oldest = k
            del self.items[oldest]
        self.items[key] = {"value": value, "time": os.times()[4]}
        f = open(self.path, "w")
        f.write(json.dumps(self.items))
        self.lock.release()

    def clear(self):
        for key in self.items:
            del self.items[key]

    def stats(self):
        total = 0
        for key in self.items.keys():
            total = total + len(str(self.items[key]["value"]))
        return {"items": len(self.items), "bytes": total, "average": total / len(self.items)}
"""

PROMPTS: dict[str, tuple[str, ...]] = {
    "python": (
        "Write a Python function that returns the n-th Fibonacci number, with a docstring.",
        "Write a Python class for a stack with push, pop and peek methods.",
        "Write a Python script that counts the words in a text file.",
    ),
    "cpp": (
        "Write a C++ function that reverses a linked list.",
        "Write a C++ program that reads numbers from standard input and prints their average.",
        "Write a C++ class for a two-dimensional point with addition and distance.",
    ),
    "explanation": (
        "Explain how a refrigerator works.",
        "Explain what an operating system does to someone who has never programmed.",
        "Explain why the sky is blue.",
    ),
    "summary": (
        f"Summarize this text in two sentences:\n\n{_TEXT_TO_EDIT}",
        "Summarize the story of Robinson Crusoe in one paragraph.",
        "Summarize the main causes of the First World War.",
    ),
    "factual": (
        "What is the capital of Australia, and when was it founded?",
        "Which planets of the solar system have rings?",
        "Who invented the telephone, and in which year was it patented?",
    ),
    "translation": (
        "Translate into French: The weather is nice today and we are going to the market.",
        "Translate into Spanish: My brother works in a small hotel near the station.",
        "Translate into German: The children are playing in the garden behind the house.",
    ),
    "creative": (
        "Write a short poem about the sea in winter.",
        "Write the opening of a story about a clock that runs backwards.",
        "Describe a city on the moon in a few sentences.",
    ),
    "mathematics": (
        "A train travels 120 km in 1.5 hours. What is its average speed? Explain step by step.",
        "Solve 3x + 7 = 22 step by step.",
        "Anna has 24 apples and gives a third of them away. How many are left? Show each step.",
    ),
    "review": (
        f"Review this code and list its problems:\n\n```python\n{_CODE_TO_REVIEW}```",
        f"What would you improve in this code, and why?\n\n```python\n{_CODE_TO_REVIEW}```",
        f"Explain what this code does, method by method:\n\n```python\n{_CODE_TO_REVIEW}```",
    ),
    # The built-in model copies in all of them, in every format it was quantized to; of others that
    # begin with the instruction it makes up code of its own (benchmarks/LOG.md).
    "editing": (
        f"```python\n{_CODE_TO_EDIT}```\n\n"
        "Repeat this code exactly, but rename the method `total` to `sum_of_counts`.",
        f"Repeat this text exactly, word for word:\n\n{_TEXT_TO_EDIT}",
        f"Correct the spelling in this text and repeat it:\n\n{_TEXT_TO_EDIT}",
    ),
    "chat": (
        "I can't sleep well lately. What could I try?",
        "What would you cook for four friends on a weeknight?",
        "I am thinking about learning to play the guitar. How should I start?",
    ),
}

CHAT_CLASSES = ("explanation", "summary", "factual", "creative", "chat")
"""The classes that are conversation, as the project's bar counts them."""
