"""The fifty prompts that acceptance is measured on, ten kinds of five: no head was trained on them.

Plain data, and its name: `mtp-train` keeps these prompts out of its text, and a head file's record
(`mtp_cli.acceptance`) says by the name that it is of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

PROMPTS: Mapping[str, tuple[str, ...]] = {
    "Python code": (
        "Write a Python function that returns the second largest number in a list.",
        "Write a Python script that renames all .txt files in a folder to .md.",
        "Write a Python class for a shopping cart with add, remove and total methods.",
        "How do I read a JSON file in Python and print every key?",
        "Write a Python decorator that measures how long a function takes.",
    ),
    "C++ code": (
        "Write a C++ program that prints a right-angled triangle of stars.",
        "Write a C++ function that swaps two integers by reference.",
        "Write a C++ class that represents a complex number with addition.",
        "Show a C++ example that uses std::map to count characters in a string.",
        "Write a C++ program that reads names until an empty line and sorts them.",
    ),
    "explanation": (
        "Why do we dream?",
        "Explain how a refrigerator keeps food cold.",
        "What is the difference between a process and a thread?",
        "Explain overfitting to someone who knows school mathematics.",
        "How does a sewing machine make a stitch?",
    ),
    "summary": (
        "Summarize in two sentences: The town council voted on Tuesday to turn the old railway "
        "line into a path for cyclists and walkers. Work begins in March and takes a year. "
        "Shop owners hope for more visitors, while some residents worry about parking.",
        "What is the main point of this text? Coral reefs cover less than one percent of the ocean "
        "floor, yet a quarter of all marine species depend on them. Warmer water makes the corals "
        "expel the algae that feed them, and many reefs have turned white.",
        "Give a one-line summary: Maria opened the bakery at five every morning for thirty years. "
        "When she retired, the whole street came to thank her, and her daughter took over.",
        "List the key facts of this notice: The swimming pool is closed from 3 to 14 May for "
        "repairs. Season tickets are extended by two weeks. The sauna stays open.",
        "Shorten this to one sentence: Although the experiment was planned for six weeks, the "
        "team had to stop after four because the sensors failed, and the data is enough "
        "only for a first impression.",
    ),
    "factual question": (
        "What is the capital of Canada?",
        "Who wrote Pride and Prejudice?",
        "How many legs does a spider have?",
        "What gas do plants take in from the air?",
        "In which year did the Titanic sink?",
    ),
    "translation": (
        "Translate into Spanish: The train leaves at half past seven.",
        "Translate to French: I have lost my passport and need help.",
        "How do you say 'See you next week' in German?",
        'Translate this to Italian: "My sister likes to cook for her friends."',
        "Translate to Portuguese: Where can I buy a ticket?",
    ),
    "short creative": (
        "Write a haiku about rain on a tin roof.",
        "Write a four-line poem about an old bicycle.",
        "Write a very short story about a fox who finds a mirror.",
        "Invent a name and a slogan for a coffee shop on a boat.",
        "Write a short dialogue between the sun and a snowman.",
    ),
    "stepwise maths": (
        "A box holds 12 eggs. How many boxes are needed for 150 eggs? Explain step by step.",
        "Solve 3x - 7 = 20 step by step.",
        "A shirt costs 40 dollars and is reduced by 15 percent. What is the new price?",
        "Find the perimeter of a rectangle that is 9 cm long and 4 cm wide, with explanation.",
        "If a car uses 6 liters for 100 km, how much does it use for 250 km? Show the steps.",
    ),
    "code review": (
        "Review this code:\n\ndef avg(l):\n    s = 0\n    for i in range(1, len(l)):\n"
        "        s = s + l[i]\n    return s / len(l)",
        "What is wrong here?\n\nint *f() {\n    int x = 5;\n    return &x;\n}",
        'Explain this code:\n\nwords = open("a.txt").read().split()\n'
        "print(sorted(set(words), key=len)[-10:])",
        "Can this be made faster?\n\nresult = []\nfor a in xs:\n    if a not in result:\n"
        "        result.append(a)",
        "Add a docstring and type hints:\n\ndef area(w, h):\n    return w * h",
    ),
    "open chat": (
        "Hey, I just finished my first marathon!",
        "What would you do on a rainy Sunday?",
        "My cat ignores me. Any advice?",
        "Tell me about yourself in two sentences.",
        "I want to surprise my parents for their anniversary. Any ideas?",
    ),
}

DEPTH = 3
MAX_TOKENS = 200  # of an answer
EACH = len(next(iter(PROMPTS.values())))  # prompts of a kind

# Changes with any of the texts.
NAME = f"held-out-{hashlib.sha256(json.dumps(PROMPTS).encode()).hexdigest()[:8]}"


def texts() -> list[str]:
    """All prompts, in the order of a record's answers."""
    return [text for group in PROMPTS.values() for text in group]
