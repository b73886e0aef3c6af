"""Task families whose answer stands in the prompt, or in the language."""

from __future__ import annotations

from random import Random

from ranker.data.sample import words
from ranker.data.sample.task import Task


def filtering(rng: Random) -> Task:
    """Pick the members of one category from a mixed list."""
    wanted, other = rng.sample(sorted(words.CATEGORIES), 2)
    right = rng.sample(words.CATEGORIES[wanted], rng.randint(2, 3))
    wrong = rng.sample(words.CATEGORIES[other], len(right))
    mixed = rng.sample(right + wrong, len(right) * 2)
    ask = rng.choice(
        [
            f"Which of these are {wanted}: {', '.join(mixed)}?",
            f"From the list {', '.join(mixed)}, keep only the {wanted}.",
            f"Remove everything that does not belong to {wanted}: {', '.join(mixed)}.",
            f"Someone mixed up {', '.join(mixed)}. Pick out the {wanted}.",
        ]
    )
    kept = [w for w in mixed if w in right]
    return Task(ask, tuple(kept), tuple(w for w in mixed if w in wrong))


def editing(rng: Random) -> Task:
    """Replace one word in each of two short sentences."""
    (a, b), name = rng.sample(words.COLOURS, 2), rng.choice(words.NAMES)
    things = rng.sample(words.THINGS, 2)
    before = [f"{name} has a {a} {things[0]}", f"the {things[1]} is {a}"]
    after = [s.replace(a, b) for s in before]
    ask = rng.choice(
        [
            f"Replace the word {a} by {b} in both sentences: {before[0]}; {before[1]}.",
            f"Rewrite these with {b} instead of {a}: {before[0]}; {before[1]}.",
            f"In the text '{before[0]}; {before[1]}' every {a} should read {b}. Give the new text.",
        ]
    )
    other = rng.choice([c for c in words.COLOURS if c not in (a, b)])
    wrong = tuple(rng.choice([old, old.replace(a, other)]) for old in before)
    return Task(ask, tuple(after), wrong, "; ")


def table(rng: Random) -> Task:
    """Look up two cells of one row in a small table."""
    people = rng.sample(words.NAMES, 3)
    cities, jobs = rng.sample(words.CITIES, 3), rng.sample(words.JOBS, 3)
    rows = " / ".join(f"{p} | {c} | {j}" for p, c, j in zip(people, cities, jobs, strict=True))
    pick = rng.randrange(3)
    ask = rng.choice(
        [
            f"Table (name | city | job): {rows}. Give the city and the job of {people[pick]}.",
            f"Look at the rows: {rows}. Where does {people[pick]} live and what is the job?",
            f"name | city | job: {rows}. Read off city and job for {people[pick]}.",
        ]
    )
    return Task(ask, (cities[pick], jobs[pick]), _other_pair(rng, pick, cities, jobs, words.CITIES, words.JOBS))


def reading(rng: Random) -> Task:
    """Answer two questions on a passage of three sentences."""
    people, things, places = rng.sample(words.NAMES, 3), rng.sample(words.THINGS, 3), rng.sample(words.PLACES, 3)
    verb = rng.choice(["left", "found", "bought", "saw"])
    passage = " ".join(f"{p} {verb} a {t} {w}." for p, t, w in zip(people, things, places, strict=True))
    pick = rng.randrange(3)
    base = {"left": "leave", "found": "find", "bought": "buy", "saw": "see"}[verb]
    ask = rng.choice(
        [
            f"{passage} What did {people[pick]} {base}, and where?",
            f"Read this: {passage} Name the thing that {people[pick]} {verb} and the place.",
            f"Passage: {passage} Question: which object and which place belong to {people[pick]}?",
        ]
    )
    wrong = _other_pair(rng, pick, things, places, words.THINGS, words.PLACES)
    return Task(ask, (things[pick], places[pick]), wrong)


def opposites(rng: Random) -> Task:
    """The opposites of two or three adjectives."""
    pairs = [p if rng.random() < 0.5 else p[::-1] for p in rng.sample(words.OPPOSITES, rng.randint(2, 3))]
    listed = " and ".join(a for a, _ in pairs)
    ask = rng.choice(
        [
            f"Give the opposites of {listed}.",
            f"What is the opposite of {listed}, in this order?",
            f"For a word game, name the antonyms of {listed}.",
            f"Turn {listed} into the words of contrary meaning.",
        ]
    )
    used = {w for p in pairs for w in p}
    unrelated = [w for p in words.OPPOSITES for w in p if w not in used]
    return Task(ask, tuple(b for _, b in pairs), tuple(rng.sample(unrelated, len(pairs))))


def glossary(rng: Random) -> Task:
    """Translate two made-up words by a given glossary."""
    coined = rng.sample(words.COINED, 4)
    meanings = rng.sample(words.THINGS, 4)
    entries = "; ".join(f"{c} means {m}" for c, m in zip(coined, meanings, strict=True))
    first, second = rng.sample(range(4), 2)
    ask = rng.choice(
        [
            f"Glossary: {entries}. What do {coined[first]} and {coined[second]} mean?",
            f"In an invented language {entries}. Translate {coined[first]} and {coined[second]}.",
            f"Use this key ({entries}) to explain {coined[first]} and {coined[second]}.",
        ]
    )
    rest = [meanings[i] for i in range(4) if i not in (first, second)]
    wrong = rest if rng.random() < 0.5 else rng.sample([t for t in words.THINGS if t not in meanings], 2)
    return Task(ask, (meanings[first], meanings[second]), tuple(wrong))


def schedule(rng: Random) -> Task:
    """Who is free and what happens at a given hour of a plan."""
    hours = rng.sample(range(8, 18), 3)
    people, events = rng.sample(words.NAMES, 3), rng.sample(words.EVENTS, 3)
    plan = "; ".join(f"{h}:00 {e} with {p}" for h, e, p in zip(hours, events, people, strict=True))
    pick = rng.randrange(3)
    ask = rng.choice(
        [
            f"Calendar: {plan}. What is planned at {hours[pick]}:00, and with whom?",
            f"My day looks like this: {plan}. Name the event at {hours[pick]}:00 and the person.",
        ]
    )
    return Task(ask, (events[pick], people[pick]), _other_pair(rng, pick, events, people, words.EVENTS, words.NAMES))


def extraction(rng: Random) -> Task:
    """Pull the code and the room out of a message."""
    name, city = rng.choice(words.NAMES), rng.choice(words.CITIES)
    parcel, room = f"{rng.choice('bdfgkmnprt').upper()}{rng.randint(100, 999)}", f"room {rng.randint(2, 60)}"
    phone = f"{rng.randint(200, 999)}-{rng.randint(1000, 9999)}"
    ask = rng.choice(
        [
            f"Message: hello, this is {name} from {city}, parcel {parcel} waits in {room}, call {phone}. "
            "Extract the parcel code and the room.",
            f"From the note '{name} ({city}) put parcel {parcel} into {room}, phone {phone}' "
            "take the parcel code and the room.",
        ]
    )
    wrong = (
        rng.choice([phone, f"{parcel[0]}{rng.randint(100, 999)}"]),
        rng.choice([city, f"room {rng.randint(61, 99)}"]),
    )
    return Task(ask, (parcel, room), wrong)


def settings(rng: Random) -> Task:
    """Read two values from a configuration."""
    keys = rng.sample(words.SETTINGS, 4)
    values = rng.sample(words.VALUES, 4)
    listed = ", ".join(f"{k}={v}" for k, v in zip(keys, values, strict=True))
    first, second = rng.sample(range(4), 2)
    ask = rng.choice(
        [
            f"Configuration: {listed}. What are {keys[first]} and {keys[second]} set to?",
            f"Read the settings {listed} and give the values of {keys[first]} and {keys[second]}.",
        ]
    )
    rest = [values[i] for i in range(4) if i not in (first, second)]
    wrong = rest if rng.random() < 0.5 else rng.sample([v for v in words.VALUES if v not in values], 2)
    return Task(ask, (values[first], values[second]), tuple(wrong))


def _other_pair(
    rng: Random, pick: int, first: list[str], second: list[str], all_first: tuple[str, ...], all_second: tuple[str, ...]
) -> tuple[str, str]:
    """A wrong pair: half the time from another row of the context, half the time from outside it."""
    if rng.random() < 0.5:
        other = rng.choice([i for i in range(len(first)) if i != pick])
        return first[other], second[other]
    return (
        rng.choice([w for w in all_first if w not in first]),
        rng.choice([w for w in all_second if w not in second]),
    )
