"""Prompts for the training corpus: templates times fillers, by kind of task.

Owns the wording only. Knows nothing of models, token ids or files; every choice comes from the
random generator passed in, so a seed names a prompt. Kinds that work on a text (summaries,
edits, reviews) take it from `material`, earlier answers of the trunk itself, when there are any;
half of the words, topics and sentences in the templates come from there too, since lists as short
as these would ask for the same answers again and again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

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

_TOPICS = """the water cycle;black holes;how vaccines work;photosynthesis;the French Revolution;
machine learning;supply and demand;climate change;the human heart;plate tectonics;blockchain;
the Roman Empire;how a computer boots;public-key cryptography;the immune system;inflation;
quantum entanglement;evolution by natural selection;how airplanes fly;DNA replication;
the Renaissance;how the internet works;compound interest;neural networks;the solar system;
renewable energy;how batteries store energy;the industrial revolution;recursion;democracy;
the greenhouse effect;how bread rises;sleep;memory in computers;the Silk Road;earthquakes;
electric motors;virtual memory;the stock market;World War I;tides;the scientific method;
gravity;antibiotics;how search engines rank pages;photography;relativity;the nervous system;
operating systems;volcanoes;soil erosion;the placebo effect;hash tables;garbage collection;
the Cold War;how rainbows form;nuclear fission;the Great Wall of China;game theory;
ocean currents;compilers;stoicism;the printing press;impressionism;jazz;chess openings""".replace(
    "\n", ""
).split(";")

_THINGS = """healthy breakfasts;gifts for a friend;books for beginners;weekend activities;
ways to save money;interview questions;project ideas;names for a cat;team-building games;
tips for better sleep;ways to reduce stress;places to visit in Italy;small business ideas;
exercises to do at home;science experiments for children;habits of good programmers;
ways to learn a language;questions to ask a mentor;vegetarian dinners;safety rules in a lab;
steps to plan a wedding;items to pack for a camping trip;features of a good website;
ways to save water;reasons to exercise;common mistakes in public speaking;board games;
musical instruments;programming languages;renewable energy sources;houseplants that need little
 light;topics for a school essay;ways to say thank you;ideas for a birthday party""".replace(
    "\n", ""
).split(";")

_TASKS = """reverses a string;checks whether a number is prime;computes the factorial of n;
sorts a list with quicksort;finds the largest element of a list;counts the words in a text;
merges two sorted lists;reads a file and prints its lines;removes duplicates from a list;
computes the n-th Fibonacci number;checks whether a word is a palindrome;performs binary search;
converts Celsius to Fahrenheit;finds the greatest common divisor;transposes a matrix;
counts the vowels in a string;implements a stack;implements a queue with two stacks;
parses a date in the form YYYY-MM-DD;validates an email address;computes the mean and median;
flattens a nested list;counts how often each word occurs;generates a random password;
inserts a node into a linked list;traverses a binary tree in order;rotates an array by k;
finds two numbers that add up to a target;multiplies two matrices;computes a power quickly;
reverses a linked list;checks for balanced parentheses;prints the multiplication table;
capitalizes every word;downloads a web page;converts a number to binary;splits a list in chunks;
simulates rolling two dice;implements a simple bank account class;calculates the area of a circle;
finds the longest common prefix;implements bubble sort;groups words that are anagrams;
computes the sum of the digits of a number;reads numbers and prints their average;
implements a simple calculator;finds all primes below n;writes a CSV file;
formats a list as a table;implements a least-recently-used cache""".replace("\n", "").split(";")

_LANGUAGES = ("Python", "Python", "Python", "C++", "C++", "JavaScript", "Java", "C", "Rust", "Go")

_SUBJECTS = """a lighthouse keeper;a robot who learns to paint;two friends lost in a forest;
a dragon afraid of fire;an old clockmaker;a girl who talks to the sea;a detective and a cat;
the last tree on Earth;a baker in a small village;a time traveler in ancient Egypt;autumn;rain;
the moon;a lost letter;the city at night;a train journey;a grandmother's garden;the ocean;
a knight without a sword;a violin;winter mornings;a spaceship far from home;an honest thief;
a mountain village;first love;a dog waiting at the station;stars;a magic library""".replace(
    "\n", ""
).split(";")

_SENTENCES = """The weather is very nice today.;Where is the nearest train station?;
I would like to order a cup of coffee.;My brother works in a hospital.;
The book on the table belongs to my teacher.;We are going to the beach tomorrow.;
Could you please help me find my keys?;She has been learning to play the piano for two years.;
Thank you very much for your help.;How much does this cost?;He don't like apples and oranges.;
I has a meeting yesterday with my boss and he were late.;The children was playing in the garden.;
Me and him goes to the store every days.;The meeting has been moved to Friday at three o'clock.;
Good morning, how did you sleep?;The results of the experiment were not what we expected.;
Please send me the report by the end of the week.;I am sorry that I am late.""".replace(
    "\n", ""
).split(";")

_TONGUES = ("French", "Spanish", "German", "Italian", "Portuguese")

_FACTS = """What is the capital of Australia?;Who wrote Romeo and Juliet?;
What is the speed of light?;How many continents are there?;
What is the largest planet in the solar system?;
When did World War II end?;What is the chemical symbol of gold?;Who painted the Mona Lisa?;
What is the boiling point of water?;What is the longest river in the world?;
Who was the first person on the moon?;What is the difference between a virus and a bacterium?;
Why is the sky blue?;What causes the seasons?;How far away is the sun?;What is an atom made of?;
Who discovered penicillin?;What language is spoken in Brazil?;What does DNA stand for?;
What is the tallest mountain on Earth?;How many bones does an adult human have?;
What is the currency of Japan?;Why do leaves change color in autumn?;What do bees eat?;
Which animals hibernate?;What is the Pythagorean theorem?;What is a prime number?;
Who invented the telephone?;What is the largest ocean?;Why is the sea salty?;
What is the function of the liver?;What is photosynthesis?;How do magnets work?;
What are the three states of matter?;What is the difference between weather and climate?;
How does a microwave oven work?;What is the population of India?;When was the Internet invented?;
What is a black hole?;Who was Marie Curie?;What is the Great Barrier Reef?;Who was Ada Lovelace?;
What is the main ingredient of bread?;How many minutes are in a day?;What is an ecosystem?"""
FACTS = _FACTS.replace("\n", "").split(";")

_OPEN = """Hi!;Hello, how are you?;What can you do?;Tell me a joke.;Who are you?;Thanks!;
I feel a bit sad today.;Can you help me plan my day?;I'm bored. What should I do?;
What is your favorite color?;Tell me something interesting.;Good morning!;
I have an exam tomorrow and I am nervous.;Should I learn Python or JavaScript first?;
Give me some advice about saving money.;What should I cook tonight?;Recommend me a book.;
How do I make new friends?;I want to start running. How should I begin?;Can you write code?;
What do you think about art?;Help me choose a gift for my mother.;How do I stay motivated?;
I just moved to a new city.;Can you teach me something about space?;Let's play a word game.;
My computer is slow. What can I do?;How can I improve my English?;What is the meaning of life?;
I can't sleep at night. Any tips?;How do I write a good resume?;I lost my keys."""
OPEN = _OPEN.replace("\n", "").split(";")

_COUNTRIES = """Spain;Norway;Egypt;Argentina;Thailand;Kenya;Poland;Mexico;South Korea;Portugal;
Vietnam;Morocco;Peru;Finland;Turkey;Indonesia;Greece;Nigeria;Chile;Hungary;New Zealand;Iran;
Ireland;Cuba;Ethiopia;Pakistan;Austria;Colombia;Ukraine;the Philippines;Iceland;Nepal""".replace(
    "\n", ""
).split(";")

_INVENTIONS = """the light bulb;the steam engine;the bicycle;the World Wide Web;dynamite;the radio;
the microscope;the airplane;the piano;the vacuum cleaner;the sewing machine;paper;the compass;
the zipper;the typewriter;the ballpoint pen;the elevator;the camera;the thermometer;chocolate
""".replace("\n", "").split(";")

_ANIMALS = """an octopus;a snail;an elephant;a penguin;a honey bee;a kangaroo;a blue whale;an owl;
a crocodile;a bat;a butterfly;a camel;a shark;an ant;a giraffe;a frog;a wolf;a scorpion""".replace(
    "\n", ""
).split(";")

_EVENTS = """the Berlin Wall fell;the French Revolution began;the Wright brothers first flew;
the first iPhone came out;the American Civil War ended;Columbus reached America;
the Black Death reached Europe;the Eiffel Tower was built;the Roman Empire fell in the West;
World War I began;the Soviet Union dissolved;the Panama Canal was opened""".replace("\n", "").split(
    ";"
)

_GOALS = """learn the guitar;save for a house;eat less sugar;read more books;throw a party;
get a dog;change careers;grow tomatoes on a balcony;travel to Japan;get up earlier;
build a bookshelf;write a novel;spend less time on my phone;learn to swim;lose some weight;
make my apartment cozier;meet my neighbors;cook for ten people;run a half marathon;
teach my kids chess
""".replace("\n", "").split(";")

_NEWS = """passed my driving test;got a new job;moved in with my partner;broke my arm;
planted a garden;failed an exam;adopted a kitten;burned dinner;had an argument with my brother;
lost my wallet;bought a bicycle;won a small prize;forgot a birthday;sold my car;
started to paint;missed my flight;finished a long book;got a bad haircut;became an uncle""".replace(
    "\n", ""
).split(";")

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
_PASSAGE_SENTENCES = (2, 4)
_OWN_SHARE = 0.5  # of words and sentences that are taken from the trunk's own texts


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
    """One user turn. `material`: texts of the trunk to work on and to take words from."""
    kinds = list(_KINDS)
    kind = rng.choices(kinds, [_KINDS[name][0] for name in kinds])[0]
    texts = [text for text in material if "```" not in text and len(text) > 80]
    word, sentence = _own(rng, texts)
    text = rng.choice(texts) if texts and rng.random() < 0.8 else rng.choice(_PASSAGES)
    codes = [text.split("```")[1].strip() for text in material if text.count("```") >= 2]
    fields = {
        "language": rng.choice(_LANGUAGES),
        "task": rng.choice(_TASKS),
        "topic": word or rng.choice(_TOPICS),
        "topic2": rng.choice(_TOPICS),
        "thing": rng.choice(_THINGS),
        "subject": word or rng.choice(_SUBJECTS),
        "sentence": sentence or rng.choice(_SENTENCES),
        "tongue": rng.choice(_TONGUES),
        "fact": rng.choice(_WORD_FACTS).format(word=word) if word else rng.choice(FACTS),
        "open": rng.choice(OPEN),
        "n": rng.choice(("three", "five", "5", "10", "seven", "4")),
        "a": rng.randint(2, 99),
        "b": rng.randint(100, 999),
        "c": rng.randint(2, 12),
        "d": rng.randint(2, 12),
        "country": rng.choice(_COUNTRIES),
        "invention": rng.choice(_INVENTIONS),
        "animal": rng.choice(_ANIMALS),
        "event": rng.choice(_EVENTS),
        "goal": rng.choice(_GOALS),
        "news": rng.choice(_NEWS),
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
