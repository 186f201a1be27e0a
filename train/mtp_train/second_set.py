"""A second set of held-out prompts, of the same kinds as `mtp_cli.bench.held_out`.

Plain data. Written before the heads that fuse layers were trained, and measured once, when they
were done: recipes are chosen by the first set, and this one tells whether they were fitted to it.
"""

from __future__ import annotations

from collections.abc import Mapping

PROMPTS: Mapping[str, tuple[str, ...]] = {
    "Python code": (
        "Write a Python function that checks whether two words are anagrams.",
        "Write a Python script that counts the lines of every .py file in a directory tree.",
        "Write a Python class for a queue with a fixed capacity.",
        "How do I remove duplicates from a list in Python and keep the order?",
        "Write a Python generator that yields the digits of a number from right to left.",
    ),
    "C++ code": (
        "Write a C++ program that prints the multiplication table of seven.",
        "Write a C++ function that reverses a string in place.",
        "Write a C++ struct for a point in the plane with a distance function.",
        "Show a C++ example that sorts a vector of pairs by the second element.",
        "Write a C++ program that converts seconds to hours, minutes and seconds.",
    ),
    "explanation": (
        "Why does bread rise?",
        "Explain how a lighthouse lamp can be seen so far away.",
        "What is the difference between a stack and a heap?",
        "Explain what inflation is to a child who gets pocket money.",
        "How does a zipper work?",
    ),
    "summary": (
        "Summarize in two sentences: The library will open on Sundays from April on. A survey had "
        "shown that many families have no time during the week. Three volunteers run the desk, and "
        "the cafe next door has agreed to open as well.",
        "What is the main point of this text? Bees find their way home by the position of the sun, "
        "and they know the time of day. When researchers kept a hive in the dark for six hours, "
        "the bees flew off in the wrong direction.",
        "Give a one-line summary: Tom missed the last bus and walked home through the snow. On the "
        "way he found a lost dog, and its owner has driven him to work ever since.",
        "List the key facts of this notice: The main hall is being painted from 2 to 9 June. "
        "Choir practice moves to the gym. The side entrance is open until eight in the evening.",
        "Shorten this to one sentence: Because the new software was installed on a Friday "
        "afternoon, nobody noticed until Monday morning that all invoices had been sent twice, and "
        "it took the office a week to apologize to every customer.",
    ),
    "factual question": (
        "What is the capital of Portugal?",
        "Who painted the Mona Lisa?",
        "How many strings does a violin have?",
        "Which metal is liquid at room temperature?",
        "In which year did the Berlin Wall fall?",
    ),
    "translation": (
        "Translate into French: The shop is closed on Mondays.",
        "Translate to Spanish: My brother has forgotten his umbrella again.",
        "How do you say 'Where is the station?' in Italian?",
        'Translate this to German: "We are looking forward to the holidays."',
        "Translate to Portuguese: The soup is too hot to eat.",
    ),
    "short creative": (
        "Write a haiku about the first snow in a parking lot.",
        "Write a four-line poem about a broken clock.",
        "Write a very short story about a postman who gets a letter himself.",
        "Invent a name and a slogan for a bakery in a tower.",
        "Write a short dialogue between a teapot and a cup.",
    ),
    "stepwise maths": (
        "A train travels 180 km in 2 hours and 15 minutes. What is its average speed? Explain.",
        "Solve 5(x + 2) = 45 step by step.",
        "A recipe for 4 people needs 300 g of rice. How much is needed for 10 people?",
        "Find the area of a triangle with a base of 8 cm and a height of 5 cm, with explanation.",
        "Anna saves 15 dollars a week. After how many weeks has she saved 200? Show the steps.",
    ),
    "code review": (
        "Review this code:\n\ndef biggest(numbers):\n    best = 0\n    for n in numbers:\n"
        "        if n > best:\n            best = n\n    return best",
        "What is wrong here?\n\nfor (int i = 0; i <= 10; i++) {\n    int a[10];\n    a[i] = i;\n}",
        'Explain this code:\n\ncounts = {}\nfor c in "mississippi":\n'
        "    counts[c] = counts.get(c, 0) + 1\nprint(max(counts, key=counts.get))",
        'Can this be made shorter?\n\nif x == True:\n    y = "yes"\nelse:\n    y = "no"\nprint(y)',
        "Add error handling:\n\ndef load(path):\n    return json.loads(open(path).read())",
    ),
    "open chat": (
        "Hi, I have just moved to a new town!",
        "What is a good way to start the day?",
        "My neighbour plays the drums at night. What should I do?",
        "Tell me something that most people do not know.",
        "I am learning to cook. Where should I begin?",
    ),
}
