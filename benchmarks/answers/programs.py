"""Small Python tasks. Plain data: a request, and the assertions that a right answer's code passes.

A request names the function, so that the assertions can call it.
"""

from __future__ import annotations

_FUNCTIONS = (
    ("add(a, b)", "returns the sum of two numbers", "add(2, 3) == 5 and add(-1, 1) == 0"),
    ("square(x)", "returns the square of a number", "square(4) == 16 and square(-3) == 9"),
    ("is_even(n)", "tells whether a number is even", "is_even(4) and not is_even(7)"),
    ("maximum(a, b)", "returns the larger of two numbers", "maximum(2, 9) == maximum(9, 2) == 9"),
    ("absolute(x)", "returns the absolute value", "absolute(-5) == 5 and absolute(3) == 3"),
    (
        "factorial(n)",
        "returns the factorial of n",
        "factorial(5) == 120 and factorial(0) == 1",
    ),
    (
        "fibonacci(n)",
        "returns the n-th Fibonacci number, where fibonacci(0) is 0 and fibonacci(1) is 1",
        "[fibonacci(n) for n in range(8)] == [0, 1, 1, 2, 3, 5, 8, 13]",
    ),
    ("reverse(s)", "reverses a string", "reverse('abc') == 'cba' and reverse('') == ''"),
    (
        "is_palindrome(s)",
        "tells whether a string reads the same backwards",
        "is_palindrome('level') and not is_palindrome('hello')",
    ),
    (
        "count_vowels(s)",
        "counts the vowels in a string",
        "count_vowels('education') == 5 and count_vowels('xyz') == 0",
    ),
    ("double_all(xs)", "doubles every number of a list", "double_all([1, 2, 3]) == [2, 4, 6]"),
    (
        "only_even(xs)",
        "returns the even numbers of a list",
        "only_even([1, 2, 3, 4]) == [2, 4] and only_even([1]) == []",
    ),
    (
        "mean(xs)",
        "returns the average of a list of numbers",
        "mean([1, 2, 3, 6]) == 3",
    ),
    ("total(xs)", "returns the sum of a list without using sum()", "total([1, 2, 3, 4]) == 10"),
    ("largest(xs)", "returns the largest number of a list", "largest([3, 9, -2]) == 9"),
    ("smallest(xs)", "returns the smallest number of a list", "smallest([3, 9, -2]) == -2"),
    (
        "unique(xs)",
        "removes duplicates from a list and keeps the order",
        "list(unique([3, 1, 3, 2, 1])) == [3, 1, 2]",
    ),
    (
        "is_prime(n)",
        "tells whether a number is prime",
        "[n for n in range(2, 20) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19]",
    ),
    ("gcd(a, b)", "returns the greatest common divisor", "gcd(12, 18) == 6 and gcd(7, 5) == 1"),
    (
        "to_fahrenheit(c)",
        "converts degrees Celsius to Fahrenheit",
        "to_fahrenheit(100) == 212 and to_fahrenheit(0) == 32",
    ),
    ("area(width, height)", "returns the area of a rectangle", "area(3, 4) == 12"),
    (
        "perimeter(width, height)",
        "returns the perimeter of a rectangle",
        "perimeter(3, 4) == 14",
    ),
    (
        "count_words(text)",
        "counts the words in a text",
        "count_words('the cat sat') == 3 and count_words('one') == 1",
    ),
    ("shout(s)", "turns a string into capital letters", "shout('hi there') == 'HI THERE'"),
    (
        "first_and_last(xs)",
        "returns the first and the last element of a list as a tuple",
        "tuple(first_and_last([1, 2, 3])) == (1, 3)",
    ),
    ("join_words(words)", "joins a list of words with spaces", "join_words(['a', 'b']) == 'a b'"),
    (
        "is_leap_year(year)",
        "tells whether a year is a leap year",
        "is_leap_year(2024) and is_leap_year(2000) and not is_leap_year(1900)",
    ),
    (
        "sort_descending(xs)",
        "returns a list sorted from largest to smallest",
        "sort_descending([1, 3, 2]) == [3, 2, 1]",
    ),
    ("power(base, exponent)", "raises a number to a power", "power(2, 5) == 32"),
    (
        "count_letter(s, letter)",
        "counts how often a letter occurs in a string",
        "count_letter('banana', 'a') == 3",
    ),
    (
        "merge(a, b)",
        "returns a new dictionary with the entries of two dictionaries",
        "merge({'x': 1}, {'y': 2}) == {'x': 1, 'y': 2}",
    ),
    ("digits_sum(n)", "returns the sum of the digits of a number", "digits_sum(1234) == 10"),
    (
        "common(a, b)",
        "returns the elements that two lists have in common",
        "sorted(common([1, 2, 3], [2, 3, 4])) == [2, 3]",
    ),
    ("repeat(s, n)", "returns a string repeated n times", "repeat('ab', 3) == 'ababab'"),
    (
        "longest_word(words)",
        "returns the longest word of a list",
        "longest_word(['a', 'pear', 'fig']) == 'pear'",
    ),
    (
        "countdown(n)",
        "returns the list of numbers from n down to 1",
        "list(countdown(4)) == [4, 3, 2, 1]",
    ),
    ("is_empty(xs)", "tells whether a list is empty", "is_empty([]) and not is_empty([1])"),
    ("remove_spaces(s)", "removes all spaces from a string", "remove_spaces(' a b c ') == 'abc'"),
    ("squares(n)", "returns the squares of 1 to n as a list", "squares(4) == [1, 4, 9, 16]"),
    (
        "swap(pair)",
        "returns a tuple of two elements with their order reversed",
        "tuple(swap((1, 2))) == (2, 1)",
    ),
    (
        "count_positive(xs)",
        "counts the numbers of a list that are greater than zero",
        "count_positive([-1, 0, 2, 5]) == 2",
    ),
    (
        "fizzbuzz(n)",
        "returns 'Fizz' if n is divisible by 3, 'Buzz' if by 5, 'FizzBuzz' if by both, else str(n)",
        "[fizzbuzz(n) for n in (3, 5, 15, 7)] == ['Fizz', 'Buzz', 'FizzBuzz', '7']",
    ),
    (
        "index_of(xs, x)",
        "returns the index of x in a list, or -1 if it is not there",
        "index_of([5, 6, 7], 7) == 2 and index_of([5], 1) == -1",
    ),
    (
        "flatten(lists)",
        "turns a list of lists into one list",
        "list(flatten([[1, 2], [], [3]])) == [1, 2, 3]",
    ),
)

PROGRAMS: tuple[tuple[str, str], ...] = tuple(
    (f"Write a Python function `{signature}` that {does}.", f"assert {condition}")
    for signature, does, condition in _FUNCTIONS
)
