"""Task families whose answer must be worked out: numbers, dates, order."""

from __future__ import annotations

from random import Random

from ranker.data.sample import words
from ranker.data.sample.task import Task


def arithmetic(rng: Random) -> Task:
    """Sum and difference, or sum and product, of two small numbers."""
    a, b = rng.randint(11, 89), rng.randint(2, 11)
    name, second = rng.choice([("difference", a - b), ("product", a * b)])
    ask = rng.choice(
        [
            f"Work out the sum and the {name} of {a} and {b}.",
            f"What are {a} + {b} and {a} {'-' if name == 'difference' else 'times'} {b}?",
            f"Take the numbers {a} and {b}. Report their sum, then their {name}.",
            f"A clerk needs two results for {a} and {b}: first the sum, then the {name}.",
        ]
    )
    right = (a + b, second)
    wrong = tuple(str(value + rng.choice([-11, -10, -3, -2, 2, 3, 10, 11])) for value in right)
    return Task(ask, tuple(map(str, right)), wrong)


def units(rng: Random) -> Task:
    """Convert two lengths, weights or times."""
    big, small, factor = rng.choice(words.UNITS)
    a, b = rng.sample(range(2, 30), 2)
    ask = rng.choice(
        [
            f"Convert {a} {big} and {b} {big} to {small}.",
            f"How many {small} are {a} {big}, and how many are {b} {big}?",
            f"Express both {a} {big} and {b} {big} in {small}.",
            f"A form accepts only {small}. What should be entered for {a} {big} and for {b} {big}?",
        ]
    )
    right = tuple(f"{n * factor} {small}" for n in (a, b))
    wrong = tuple(
        rng.choice([f"{n * factor * 10} {small}", f"{n} {small}", f"{n * factor} {big}", f"{(n + 1) * factor} {small}"])
        for n in (a, b)
    )
    return Task(ask, right, wrong)


def dates(rng: Random) -> Task:
    """The weekday and the month some steps later."""
    day, month = rng.randrange(7), rng.randrange(12)
    steps, months = rng.randint(1, 4), rng.randint(1, 4)
    start, begin = words.DAYS[day], words.MONTHS[month]
    ask = rng.choice(
        [
            f"Which weekday comes {steps} days after {start}, and which month {months} months after {begin}?",
            f"Today is a {start} in {begin}. Name the weekday in {steps} days and the month in {months} months.",
            f"Count on {steps} days from {start} and {months} months from {begin}.",
        ]
    )
    right = (words.DAYS[(day + steps) % 7], words.MONTHS[(month + months) % 12])
    wrong = (
        words.DAYS[(day + steps + rng.randint(1, 5)) % 7],
        words.MONTHS[(month + months + rng.randint(1, 9)) % 12],
    )
    return Task(ask, right, wrong)


def sorting(rng: Random) -> Task:
    """Sort three or four words or numbers."""
    count = rng.randint(3, 4)
    if rng.random() < 0.5:
        items = rng.sample([w for group in words.CATEGORIES.values() for w in group], count)
        order = sorted(items)
        how = rng.choice(["in alphabetical order", "from a to z", "alphabetically"])
    else:
        numbers = rng.sample(range(10, 99), count)
        items, order = [str(n) for n in numbers], [str(n) for n in sorted(numbers)]
        how = rng.choice(["in ascending order", "from smallest to largest"])
    if rng.random() < 0.3:
        order, how = order[::-1], "in reverse order (last or largest first)"
    ask = rng.choice(
        [
            f"Put these {how}: {', '.join(items)}.",
            f"Sort the list {', '.join(items)} {how}.",
            f"Here is a list: {', '.join(items)}. Arrange it {how}.",
        ]
    )
    return Task(ask, tuple(order), tuple(order[1:] + order[:1]))


def code(rng: Random) -> Task:
    """The two numbers that a tiny program prints."""
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    x, y = rng.sample(["x", "y", "n", "total", "width", "size"], 2)
    ask = rng.choice(
        [
            f"What does this print? {x} = {a}; {y} = {x} + {b}; print({x}, {y})",
            f"Run in your head: {x} = {a}; {y} = {x} + {b}; print({x}, {y}). Report the output.",
            f"Program: {x} = {a}; {y} = {x} + {b}; print({x}, {y}). Output?",
        ]
    )
    return Task(ask, (str(a), str(a + b)), (str(a + rng.randint(1, 3)), str(a + b + rng.choice([-2, -1, 1, 2]))), " ")


def counting(rng: Random) -> Task:
    """How many words of two categories a list holds."""
    kinds = rng.sample(sorted(words.CATEGORIES), 2)
    counts = [rng.randint(1, 4), rng.randint(1, 4)]
    listed = [w for kind, n in zip(kinds, counts, strict=True) for w in rng.sample(words.CATEGORIES[kind], n)]
    rng.shuffle(listed)
    ask = rng.choice(
        [
            f"How many {kinds[0]} and how many {kinds[1]} are in this list: {', '.join(listed)}?",
            f"Count the {kinds[0]} and the {kinds[1]}: {', '.join(listed)}.",
        ]
    )
    right = tuple(f"{n} {kind}" for n, kind in zip(counts, kinds, strict=True))
    wrong = tuple(f"{n + rng.choice([-1, 1, 2]) or 5} {kind}" for n, kind in zip(counts, kinds, strict=True))
    return Task(ask, right, wrong)


def comparing(rng: Random) -> Task:
    """The largest and the smallest of three measured things."""
    things = rng.sample(words.THINGS, 3)
    sizes = rng.sample(range(2, 60), 3)
    listed = ", ".join(f"the {t} weighs {s} kg" for t, s in zip(things, sizes, strict=True))
    order = [t for _, t in sorted(zip(sizes, things, strict=True))]
    ask = rng.choice(
        [
            f"Given that {listed}: which is the heaviest and which the lightest?",
            f"{listed[0].upper()}{listed[1:]}. Name the heaviest thing, then the lightest.",
        ]
    )
    unmentioned = [t for t in words.THINGS if t not in things]
    wrong = (order[0], order[-1]) if rng.random() < 0.5 else tuple(rng.sample(unmentioned, 2))
    return Task(ask, (order[-1], order[0]), wrong)
