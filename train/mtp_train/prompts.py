"""Prompts for the training corpus: templates times fillers, by kind of task.

Owns the wording only. Knows nothing of models, token ids or files; every choice comes from the
random generator passed in, so a seed names a prompt. Kinds that work on a text (summaries,
edits, reviews) take it from `material`, earlier answers of the target itself, when there are any;
some of the words, topics and sentences in the templates come from there too: lists alone, however
long, ask for the same answers again and again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from mtp_train import fillers

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a concise assistant. Answer in as few words as possible.",
    "You are an expert programmer. Reply with code and a short explanation.",
    "You are a patient teacher who explains things step by step.",
    "You are a friendly assistant that answers in plain language.",
    "You are a professional editor. You rewrite the user's text as asked and nothing else.",
    "You are a creative writing assistant.",
    "You are a careful mathematician. Show your reasoning.",
    "You're an AI assistant for text re-writing. Rewrite the input text to make it more concise.",
    "You extract and summarize information. Provide a brief summary in up to three sentences.",
)

_LANGUAGES = ("Python", "Python", "Python", "C++", "C++", "JavaScript", "Java", "C", "Rust", "Go")

_TONGUES = ("French", "Spanish", "German", "Italian", "Portuguese")

_FOLLOW_UPS = (
    "Can you explain that in simpler words?",
    "Give me an example.",
    "Make it shorter.",
    "Why?",
    "Can you write that as a list?",
    "Thanks! Anything else I should know?",
    "Can you say more about the second point?",
    "Rewrite it in a more formal tone.",
    "What are the disadvantages?",
    "Show me how to use it.",
    "Summarize that in one sentence.",
    "Are you sure? Please check it again.",
)

_SNIPPETS = (
    "def mean(xs):\n    total = 0\n    for x in xs:\n        total += x\n"
    "    return total / len(xs)",
    "def find(items, key):\n    for i in range(len(items)):\n        if items[i] == key:\n"
    "            return i\n    return None",
    "int sum(int *a, int n) {\n    int s = 0;\n    for (int i = 0; i <= n; i++) s += a[i];\n"
    "    return s;\n}",
    "function add(a, b) {\n  return a + b\n}\nconsole.log(add('1', 2))",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n"
    "        self.items.append(x)\n    def pop(self):\n        return self.items.pop()",
    "for i in range(10):\n    if i % 2 == 0:\n        print(i)",
    'with open("data.txt") as f:\n    lines = f.readlines()\nprint(len(lines))',
    "std::vector<int> v = {3, 1, 2};\nstd::sort(v.begin(), v.end());\n"
    "for (int x : v) std::cout << x << ' ';",
    "SELECT name, COUNT(*) FROM orders GROUP BY name ORDER BY 2 DESC;",
    "x = input()\nif x > 10:\n    print('big')",
)

_PASSAGES = (
    "The library will close at six o'clock on weekdays starting next month because of staff "
    "shortages. Members can still return books through the night slot. Weekend hours stay.",
    "Solar panels turn sunlight into electricity. Their price has fallen by ninety percent in ten "
    "years, which makes them the cheapest source of power in many countries, although storing the "
    "energy for the night remains expensive.",
    "hey team, just a heads up that the server was down this morning for like 20 mins, we think "
    "its the new update, gonna roll it back tonight. sorry about that",
    "Honey bees communicate the location of flowers by dancing. The angle of the dance shows the "
    "direction relative to the sun, and its duration shows the distance.",
    "Our company was founded in 1998 in a small garage. Today it employs over four hundred people "
    "in six countries and builds instruments that measure the quality of drinking water.",
)

# kind -> (weight, templates); {x} fields are filled from _FIELDS or computed in `prompt`.
_KINDS: Mapping[str, tuple[float, Sequence[str]]] = {
    "code": (
        18,
        (
            "Write a {language} function that {task}.",
            "Write a {language} program that {task}.",
            "{language} code that {task}, please.",
            "Show me how to write a function in {language} that {task}.",
            "Implement a function in {language} that {task}. Add comments.",
            "Write {language} code that {task} and explain how it works.",
            "I need a short {language} script that {task}. Include an example of how to call it.",
        ),
    ),
    "review": (
        6,
        (
            "Review this code:\n\n```\n{code}\n```",
            "What does this code do?\n\n```\n{code}\n```",
            "Find the bug in this code and fix it.\n\n{code}",
            "Explain the following code line by line:\n\n{code}",
            "Rewrite this code so that it is easier to read:\n\n```\n{code}\n```",
            "Add comments to this code:\n\n{code}",
            "Write a unit test for this code:\n\n```\n{code}\n```",
        ),
    ),
    "explain": (
        14,
        (
            "Explain {topic}.",
            "Explain {topic} to a ten-year-old.",
            "What is {topic} and why does it matter?",
            "Describe {topic} in simple terms.",
            "Give me an overview of {topic}.",
            "How would you explain {topic} in three sentences?",
            "Write a short essay about {topic}.",
            "Write a paragraph about {topic}.",
            "What are the most important facts about {topic}?",
            "What are the advantages and disadvantages of {topic}?",
            "Compare {topic} and {topic2}.",
        ),
    ),
    "list": (
        10,
        (
            "List {n} {thing}.",
            "Give me {n} {thing}.",
            "What are some {thing}?",
            "Make a bulleted list of {thing}.",
            "Write a numbered list of {n} {thing} with one sentence about each.",
            "Can you suggest {thing}?",
        ),
    ),
    "fact": (
        12,
        (
            "{fact}",
            "{fact}",
            "{fact} Answer briefly.",
            "Quick question: {fact}",
            "What is the capital of {country}?",
            "Which languages are spoken in {country}?",
            "What is {country} known for?",
            "Who invented {invention}?",
            "How does {invention} work?",
            "What does {animal} eat?",
            "How long does {animal} live?",
            "In what year did it happen that {event}?",
            "When did it happen that {event}, and why?",
        ),
    ),
    "maths": (
        9,
        (
            "What is {a} + {b}?",
            "What is {a} times {c}? Show your work.",
            "Solve for x: {c}x + {a} = {b}",
            "A shop sells {c} apples for {a} cents each. How much do they cost together? "
            "Explain step by step.",
            "A train travels {b} kilometers in {c} hours. What is its average speed?",
            "Tom has {a} marbles and gives {c} to Anna. How many are left?",
            "Calculate the area of a rectangle with sides {a} and {c}.",
            "What is {c} percent of {b}? Explain step by step.",
            "Find the derivative of {c}x^3 + {a}x.",
            "Solve step by step: ({a} + {b}) / {c}",
            "If {c} workers finish a job in {a} days, how long do {d} workers need?",
        ),
    ),
    "creative": (
        10,
        (
            "Write a short story about {subject}.",
            "Write a poem about {subject}.",
            "Write a haiku about {subject}.",
            "Write the opening paragraph of a novel about {subject}.",
            "Write a dialogue between {subject} and a stranger.",
            "Write a short scene with {subject}.",
            "Tell me a bedtime story about {subject}.",
            "Write a limerick about {subject}.",
        ),
    ),
    "translate": (
        10,
        (
            "Translate to {tongue}: {sentence}",
            "{tongue} translation of this, please: {sentence}",
            "Translate the following into {tongue}:\n\n{passage}",
            'Translate to {tongue}: "{sentence}"',
            "Translate this sentence into {tongue}: {sentence}",
            "How do you say '{sentence}' in {tongue}?",
            "What does this mean in {tongue}? {sentence}",
        ),
    ),
    "edit": (
        9,
        (
            "Shorten this: {passage}",
            "Say this in other words: {passage}",
            "Correct the grammar: {sentence}",
            "Rewrite this sentence in a more formal way: {sentence}",
            "Rewrite the following text in a friendlier tone:\n\n{text}",
            "Make this text more concise:\n\n{text}",
            "Rewrite this so that a child understands it:\n\n{text}",
            "Improve this paragraph:\n\n{text}",
            "Turn this into a list of bullet points:\n\n{text}",
            "Convert the following text to a professional email:\n\n{text}",
        ),
    ),
    "summary": (
        16,
        (
            "Summarize this passage in a few words: {passage}",
            "In one line, what does this say? {passage}",
            "What are the facts in this text? {passage}",
            "Give me the gist of this:\n\n{passage}",
            "Who does what in this text? {passage}",
            "Summarize in your own words: {passage}",
            "{passage}\n\nSummary, please.",
            "Summarize the following text:\n\n{text}",
            "Summarize this in one sentence:\n\n{text}",
            "{text}\n\nWhat is the main idea of this text?",
            "Give a title to this text:\n\n{text}",
            "What are the key points of the following?\n\n{text}",
            "Write a commit message or a short summary for this:\n\n{text}",
            "TL;DR:\n\n{text}",
            "Answer from the text: what is it about, and who is it for?\n\n{text}",
        ),
    ),
    "mail": (
        5,
        (
            "Write an email to my boss asking for a day off because of {topic}.",
            "Write a polite email to a customer about {thing}.",
            "Write a short letter to a friend about {topic}.",
            "Draft an invitation to a talk about {topic}.",
            "Write a product description for a course on {topic}.",
            "Write a tweet about {topic}.",
            "Write a job advertisement for a teacher of {topic}.",
            "Write a cover letter for someone who knows about {topic}.",
        ),
    ),
    "plan": (
        5,
        (
            "Create a study plan for learning about {topic}.",
            "Plan a three-day workshop about {topic}.",
            "How do I get started with {topic}? Give me steps.",
            "Give me a recipe with {n} ingredients.",
            "What are the steps to find {thing}?",
            "Make a table with {n} {thing} and a short description of each.",
            "Write quiz questions about {topic} with answers.",
            "Write a JSON object that describes {subject}.",
        ),
    ),
    "report": (
        8,
        (
            "Write a short news report about {subject}.",
            "Write a news report about something that happened in {country}.",
            "Write the minutes of a meeting about {topic}.",
            "Write a review of a shop that sells {thing}.",
            "Write a travel guide entry about {country}.",
            "Write a diary entry of someone who {news}.",
            "Write a short biography of the person who invented {invention}.",
            "Write a notice that tells neighbors about {topic}.",
            "Write three paragraphs of a textbook chapter about {animal}.",
        ),
    ),
    "open": (
        11,
        (
            "{open}",
            "{open}",
            "I just {news}!",
            "Yesterday I {news}. What now?",
            "My friend {news}. What should I say?",
            "I want to {goal}. Any ideas?",
            "I would like to {goal}, but I don't know how to begin.",
            "What do you think about {topic}?",
            "Have you ever heard of {topic}?",
            "Tell me a fun fact about {animal}.",
            "Is it a good idea to {goal}?",
        ),
    ),
}


_WORD_FACTS = (
    "What is {word}?",
    "What does '{word}' mean?",
    "Use the word '{word}' in a sentence.",
    "Why is {word} important?",
    "Name three things that have to do with {word}.",
    "Where does the word '{word}' come from?",
)
_PASSAGE_SENTENCES = (2, 4)  # least and most
_OWN_SHARE = 0.3  # of words and sentences that are taken from the target's own texts


def _own(rng: random.Random, texts: Sequence[str]) -> tuple[str | None, str | None]:
    """A word and a sentence out of one of the texts, None for what is to come from a list."""
    if not texts:
        return None, None
    text = rng.choice(texts)
    words = re.findall(r"\b[a-z]{6,}\b", text)
    sentences = re.findall(r"[A-Z][^.!?\n]{20,120}[.!?]", text)
    return (
        rng.choice(words) if words and rng.random() < _OWN_SHARE else None,
        rng.choice(sentences) if sentences and rng.random() < _OWN_SHARE else None,
    )


def _passage(rng: random.Random, text: str) -> str:
    """A few sentences of a text that follow each other."""
    sentences = re.findall(r"[A-Z][^.!?\n]*[.!?]", text)
    n = rng.randint(*_PASSAGE_SENTENCES)
    start = rng.randrange(max(len(sentences) - n, 0) + 1)
    return " ".join(sentences[start : start + n]) or text


def prompt(rng: random.Random, material: Sequence[str] = ()) -> str:
    """One user turn. `material`: texts of the target to work on and to take words from."""
    kinds = list(_KINDS)
    kind = rng.choices(kinds, [_KINDS[name][0] for name in kinds])[0]
    texts = [text for text in material if "```" not in text and len(text) > 80]
    word, sentence = _own(rng, texts)
    text = rng.choice(texts) if texts and rng.random() < 0.8 else rng.choice(_PASSAGES)
    codes = [text.split("```")[1].strip() for text in material if text.count("```") >= 2]
    fields = {
        "language": rng.choice(_LANGUAGES),
        "task": rng.choice(fillers.TASKS),
        "topic": word or rng.choice(fillers.TOPICS),
        "topic2": rng.choice(fillers.TOPICS),
        "thing": rng.choice(fillers.THINGS),
        "subject": word or rng.choice(fillers.SUBJECTS),
        "sentence": sentence or rng.choice(fillers.SENTENCES),
        "tongue": rng.choice(_TONGUES),
        "fact": rng.choice(_WORD_FACTS).format(word=word) if word else rng.choice(fillers.FACTS),
        "open": rng.choice(fillers.OPEN),
        "n": rng.choice(("three", "five", "5", "10", "seven", "4")),
        "a": rng.randint(2, 99),
        "b": rng.randint(100, 999),
        "c": rng.randint(2, 12),
        "d": rng.randint(2, 12),
        "country": rng.choice(fillers.COUNTRIES),
        "invention": rng.choice(fillers.INVENTIONS),
        "animal": rng.choice(fillers.ANIMALS),
        "event": rng.choice(fillers.EVENTS),
        "goal": rng.choice(fillers.GOALS),
        "news": rng.choice(fillers.NEWS),
        "text": text,
        "passage": _passage(rng, text),
        "code": rng.choice(codes) if codes and rng.random() < 0.7 else rng.choice(_SNIPPETS),
    }
    request = rng.choice(_KINDS[kind][1]).format(**fields)
    style = rng.random()
    if style < 0.08:
        return request.lower()
    if style < 0.14:
        return "Please " + request[0].lower() + request[1:]
    return request


def follow_up(rng: random.Random) -> str:
    """One short later user turn of a conversation."""
    return rng.choice(_FOLLOW_UPS)
