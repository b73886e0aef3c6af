"""The vocabulary of the sample's tasks."""

from __future__ import annotations

from typing import Final

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
UNITS: Final = (
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("dozen", "pieces", 12),
)
CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "animals": ("horse", "cat", "eagle", "whale", "mouse", "tiger", "rabbit", "sheep", "spider", "duck"),
    "fruits": ("apple", "banana", "cherry", "lemon", "grape", "peach", "plum", "melon", "orange", "pear"),
    "tools": ("hammer", "saw", "drill", "wrench", "shovel", "axe", "pliers", "chisel", "rake", "file"),
    "instruments": ("violin", "piano", "flute", "drum", "trumpet", "guitar", "harp", "cello", "oboe", "organ"),
    "vehicles": ("truck", "bicycle", "train", "bus", "ship", "tractor", "tram", "scooter", "van", "ferry"),
    "clothes": ("shirt", "coat", "scarf", "glove", "sock", "hat", "skirt", "jacket", "belt", "shoe"),
}
COLOURS: Final = ("red", "blue", "green", "yellow", "black", "white", "brown", "purple")
NAMES: Final = (
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Grace",
    "Henry",
    "Irene",
    "Jonas",
    "Karen",
    "Louis",
    "Maria",
    "Nils",
    "Olga",
    "Peter",
)
THINGS: Final = (
    "lamp",
    "basket",
    "clock",
    "mirror",
    "bottle",
    "pillow",
    "camera",
    "wallet",
    "kettle",
    "candle",
    "notebook",
    "umbrella",
    "ladder",
    "radio",
    "blanket",
    "vase",
)
CITIES: Final = (
    "Paris",
    "Oslo",
    "Madrid",
    "Cairo",
    "Tokyo",
    "Lima",
    "Dublin",
    "Vienna",
    "Athens",
    "Boston",
    "Delhi",
    "Prague",
)
JOBS: Final = (
    "baker",
    "nurse",
    "pilot",
    "lawyer",
    "painter",
    "farmer",
    "teacher",
    "plumber",
    "chemist",
    "singer",
    "tailor",
    "waiter",
)
PLACES: Final = (
    "in the kitchen",
    "near the station",
    "at the market",
    "behind the school",
    "in the garden",
    "on the bridge",
    "under the table",
    "at the library",
)
EVENTS: Final = ("budget review", "dentist", "yoga", "interview", "lunch", "rehearsal", "workshop", "chess club")
OPPOSITES: Final = (
    ("hot", "cold"),
    ("big", "small"),
    ("early", "late"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("light", "dark"),
    ("wet", "dry"),
    ("open", "closed"),
    ("loud", "quiet"),
    ("fast", "slow"),
    ("full", "empty"),
    ("young", "old"),
    ("sharp", "blunt"),
    ("heavy", "weightless"),
    ("deep", "shallow"),
    ("rough", "smooth"),
)
COINED: Final = (
    "blorin",
    "tesk",
    "mivar",
    "dulop",
    "frann",
    "zorbe",
    "quilt",
    "navix",
    "porlo",
    "shemu",
    "kadri",
    "wimsel",
)
SETTINGS: Final = ("timeout", "language", "theme", "port", "volume", "region", "retries", "mode")
VALUES: Final = ("30", "french", "dark", "8080", "low", "north", "5", "safe", "90", "german", "plain", "high")
OPENERS: Final = (
    "Sure.",
    "Thanks for asking.",
    "Here is what I have.",
    "Good question.",
    "Happy to help with this one.",
    "Let me see.",
    "I looked at it step by step.",
    "This one is quick.",
    "All right, I went through the request.",
)
CLOSERS: Final = (
    "I hope this helps.",
    "Tell me if you need more.",
    "That should be all.",
    "Feel free to ask again.",
    "Have a nice day.",
    "I checked it twice.",
    "Please let me know if anything is unclear.",
)
