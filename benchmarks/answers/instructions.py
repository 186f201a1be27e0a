"""Instructions that a program can check. Plain data: a request, and the check of its answer."""

from __future__ import annotations

from benchmarks.answers.checks import (
    Check,
    both,
    has_items,
    is_json_with,
    is_only,
    is_upper,
    matches,
    says,
    says_in_order,
    says_rather,
    shorter_than,
)

_FRUIT = """
    apple apples banana bananas orange oranges grape grapes strawberry strawberries mango mangoes
    mangos pear pears peach peaches cherry cherries pineapple pineapples kiwi kiwis plum plums
    lemon lemons blueberry blueberries raspberry raspberries watermelon watermelons melon fig figs
"""
_COLORS = "red orange yellow green blue purple violet pink brown black white gray grey"

INSTRUCTIONS: tuple[tuple[str, Check], ...] = (
    ("Translate the word 'dog' into Spanish.", says("perro", "perra")),
    ("Translate the word 'house' into French.", says("maison")),
    ("Translate the word 'water' into German.", says("Wasser")),
    ("Translate the word 'cat' into Italian.", says("gatto", "gatta")),
    ("Translate the word 'thank you' into Spanish.", says("gracias")),
    ("Translate into French: Good morning!", says("bonjour", "bon matin")),
    ("Translate into German: Good day!", says("guten tag")),
    ("Translate into English: Buenos días, amigo.", says("good morning", "good day", "hello")),
    ("List three fruits.", has_items(3, _FRUIT)),
    ("List three colors.", has_items(3, _COLORS)),
    ("List exactly four animals, one a line.", has_items(4)),
    ("Name two primary colors.", has_items(2, "red blue yellow green")),
    ("Give me a list of five vegetables.", has_items(5)),
    ("Answer in one word: What color is snow?", is_only("white")),
    ("Answer in one word: Is fire hot or cold?", is_only("hot")),
    ("Answer in one word: What is the capital of France?", is_only("Paris")),
    ("Answer with yes or no only: Is the Earth flat?", is_only("no")),
    ("Answer with yes or no only: Do fish live in water?", is_only("yes")),
    ("Answer with a number only: How many days are in a week?", is_only("7", "seven")),
    ("Answer with a number only: What is 5 + 6?", is_only("11", "eleven")),
    ("Write the word 'hello' in capital letters.", both(says("HELLO"), is_upper("hello"))),
    ("Rewrite in capital letters: the cat is here", is_upper("the cat is here")),
    ("Rewrite in lower case: THE SUN IS HOT", matches(r"the sun is hot")),
    ("Rewrite in the past tense: I walk to school.", says("walked")),
    ("Rewrite in the past tense: She eats an apple.", says("ate")),
    ("Rewrite in the future tense: He reads a book.", says("will read", "will be reading")),
    ("Rewrite as a question: You are hungry.", matches(r"(?i)\bare you\b[^.]*\?")),
    ("Rewrite in the negative: I like coffee.", says("don't like", "do not like", "dislike")),
    ("Correct the spelling: I hav a dogg.", says("have a dog")),
    ("Correct the grammar: She go to school every day.", says("she goes")),
    ("Correct the grammar: He don't like milk.", says("he doesn't", "he does not")),
    ("Repeat this sentence exactly: The quick brown fox.", is_only("the quick brown fox")),
    ("Say 'good night' and nothing else.", is_only("good night")),
    (
        "Sort these words alphabetically: pear, apple, fig",
        says_in_order("apple", "fig", "pear"),
    ),
    ("Sort these numbers from small to large: 9, 2, 5", says_in_order("2", "5", "9")),
    ("Count from 1 to 5.", says_in_order("1", "2", "3", "4", "5")),
    ("Complete the sentence: Roses are red, violets are", says("blue")),
    ("Complete the sequence: 2, 4, 6, 8,", says("10")),
    (
        "Write one sentence about the sea that contains the word 'blue'.",
        both(says("blue"), shorter_than(40)),
    ),
    ("Write a sentence of at most ten words about a dog.", both(says("dog"), shorter_than(11))),
    (
        "Return a JSON object with the keys name and age for Anna, who is 30.",
        is_json_with({"name": "Anna", "age": 30}),
    ),
    (
        "Is this sentence positive or negative? 'I love this movie.'",
        says_rather("positive", "negative"),
    ),
    (
        "Is this sentence positive or negative? 'The food was terrible.'",
        says_rather("negative", "positive"),
    ),
    ("Which of these is an animal: table, horse, stone?", says_rather("horse", "stone")),
    ("Replace the word 'dog' with 'cat': The dog sleeps.", says("the cat sleeps")),
    ("Remove the word 'very' from: It is very cold.", matches(r"(?i)\bit is cold\b")),
    ("Give a synonym for 'happy'.", says("joyful", "joyous", "glad", "cheerful", "content")),
    (
        "Summarize in one sentence: Tom lost his key. He looked everywhere. At last he found it in "
        "his coat.",
        both(says("key", "keys"), shorter_than(35)),
    ),
)
