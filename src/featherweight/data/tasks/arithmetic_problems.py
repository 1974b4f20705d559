"""Problems of arithmetic by size, each with the steps that solve it. Kinds and sizes follow
reasoning-gym's chain_sum, products, gcd, basic_arithmetic and leg_counting; nothing is copied.

The size is what makes a problem long to solve:

    chain_sum         operations, + and -, of numbers with one to three digits
    products          digits of the second factor; the first has two
    gcd               divisions of Euclid's algorithm
    basic_arithmetic  operations, + - * / with parentheses; all divisions are exact
    leg_counting      kinds of animals, a word problem
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

ANIMALS = (
    ("hen", "hens", 2),
    ("duck", "ducks", 2),
    ("monkey", "monkeys", 2),
    ("cow", "cows", 4),
    ("horse", "horses", 4),
    ("lizard", "lizards", 4),
    ("bee", "bees", 6),
    ("ant", "ants", 6),
    ("beetle", "beetles", 6),
    ("spider", "spiders", 8),
    ("scorpion", "scorpions", 8),
    ("crab", "crabs", 10),
)
MAX_SIZE = 8


@dataclass(frozen=True)
class Problem:
    """question: says nothing of the answer's form; steps: equations that lead to `answer`."""

    question: str
    steps: tuple[str, ...]
    answer: int


def chain_sum(size: int, random: np.random.Generator) -> Problem:
    """`size` additions and subtractions from left to right."""
    digits = int(random.integers(1, 4))
    total = _number(digits, random)
    expression, steps = str(total), []
    for _ in range(size):
        number, sign = _number(digits, random), str(random.choice(["+", "-"]))
        expression += f" {sign} {number}"
        step, total = _step(total, sign, number)
        steps.append(step)
    return Problem(f"What is {expression}?", tuple(steps), total)


def products(size: int, random: np.random.Generator) -> Problem:
    """A number of two digits times one of `size`, by the digits of the second."""
    a, b = _number(2, random), _number(size, random)
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(b))) if digit != "0"]
    steps, terms = [], []
    for part in reversed(parts):
        step, term = _step(a, "*", part)
        steps.append(step)
        terms.append(term)
    return Problem(f"What is {a} * {b}?", (*steps, *_sums(terms)), a * b)


def gcd(size: int, random: np.random.Generator) -> Problem:
    """The greatest common divisor of two numbers for which Euclid's algorithm divides `size`
    times: its divisions are made from the last to the first.
    """
    divisor = int(random.integers(1, 21))
    remainder, smaller, larger = 0, divisor, divisor * int(random.integers(2, 7))
    steps = [f"{larger} = {larger // smaller} * {smaller} + {remainder}"]
    for _ in range(size - 1):
        factor = int(random.integers(1, 4))
        remainder, smaller, larger = smaller, larger, factor * larger + smaller
        steps.insert(0, f"{larger} = {factor} * {smaller} + {remainder}")
    first, second = (larger, smaller) if random.random() < 0.5 else (smaller, larger)
    question = f"What is the greatest common divisor of {first} and {second}?"
    return Problem(question, tuple(steps), divisor)


def basic_arithmetic(size: int, random: np.random.Generator) -> Problem:
    """An expression with `size` operations."""
    expression, answer, steps = _expression(size, random)
    return Problem(f"What is {expression}?", tuple(steps), answer)


def leg_counting(size: int, random: np.random.Generator) -> Problem:
    """The legs of `size` kinds of animals."""
    herds, steps, terms = [], [], []
    for i in random.choice(len(ANIMALS), size, replace=False):
        count = int(random.integers(1, 16))
        singular, plural, legs = ANIMALS[i]
        herds.append(f"{count} {singular if count == 1 else plural}")
        step, term = _step(count, "*", legs)
        steps.append(step)
        terms.append(term)
    animals = " and ".join(filter(None, [", ".join(herds[:-1]), herds[-1]]))
    question = f"There are {animals} on a farm. How many legs do they have in total?"
    return Problem(question, (*steps, *_sums(terms)), sum(terms))


KINDS: Mapping[str, Callable[[int, np.random.Generator], Problem]] = MappingProxyType(
    {
        function.__name__: function
        for function in (chain_sum, products, gcd, basic_arithmetic, leg_counting)
    }
)


def _number(digits: int, random: np.random.Generator) -> int:
    """A number with exactly so many digits, from 1."""
    return int(random.integers(10 ** (digits - 1), 10**digits))


def _step(a: int, operation: str, b: int) -> tuple[str, int]:
    """The equation of one operation, and its result."""
    results = {"+": a + b, "-": a - b, "*": a * b, "/": a // (b or 1)}
    result = results[operation]
    operand = f"({b})" if b < 0 else str(b)
    return f"{a} {operation} {operand} = {result}", result


def _sums(terms: list[int]) -> list[str]:
    """The steps that add `terms` from left to right."""
    total, steps = terms[0], []
    for term in terms[1:]:
        step, total = _step(total, "+", term)
        steps.append(step)
    return steps


def _expression(size: int, random: np.random.Generator) -> tuple[str, int, list[str]]:
    """(text, value, steps) of an expression; one with operations of its own is in parentheses where
    it is a part of another.
    """
    if size == 0:
        number = int(random.integers(1, 100))
        return str(number), number, []
    if size == 1 and random.random() < 0.25:
        divisor, quotient = (int(x) for x in random.integers(2, 13, 2))
        step, answer = _step(divisor * quotient, "/", divisor)
        return step.rpartition(" = ")[0], answer, [step]
    operation = str(random.choice(["+", "-", "*"]))
    # One factor of a product is a number below 10, so that the numbers stay small.
    left_size = size - 1 if operation == "*" else int(random.integers(size))
    left_text, a, left_steps = _expression(left_size, random)
    if operation == "*":
        b = int(random.integers(2, 10))
        right_text, right_steps = str(b), list[str]()
    else:
        right_text, b, right_steps = _expression(size - 1 - left_size, random)
    step, answer = _step(a, operation, b)
    left_text = f"({left_text})" if left_steps else left_text
    right_text = f"({right_text})" if right_steps else right_text
    return f"{left_text} {operation} {right_text}", answer, [*left_steps, *right_steps, step]
