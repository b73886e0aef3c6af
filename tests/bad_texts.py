"""Classes of text that have broken tokenizers, parsers, files and pages, by name."""

from typing import Final

TEXTS: Final[dict[str, str]] = {
    # nothing, or nearly nothing
    "empty": "", "space": " ", "tab": "\t", "newline": "\n", "carriage return": "\r", "crlf": "a\r\nb", "vertical tab": "\v",
    "form feed": "\f", "next line": "a\u0085b", "line separator": "a\u2028b", "paragraph separator": "a\u2029b",
    "no-break space": "\u00a0", "zero width space": "\u200b", "zero width joiner": "\u200d", "word joiner": "\u2060",
    "byte order mark": "\ufeffa", "soft hyphen": "\u00ad", "ideographic space": "\u3000", "hangul filler": "\u3164",
    # control and not characters
    "nul": "\x00", "nul inside": "a\x00b", "escape": "\x1b[31mred", "bell": "\a", "backspace": "a\b\b\b", "delete": "\x7f",
    "c1 control": "\x9b", "noncharacter": "\uffff", "last noncharacter": "\U0010ffff", "private use": "\ue000",
    "replacement": "\ufffd", "object replacement": "\ufffc", "interlinear": "\ufff9a\ufffab\ufffb", "tags": "\U000e0041",
    "lone high surrogate": "\ud800", "lone low surrogate": "a\udfffb", "reversed surrogates": "\udc00\ud800",
    # direction and form
    "bidi override": "\u202egnol", "bidi isolates": "\u2066\u2067a\u2069\u2069", "arabic": "مرحبا", "hebrew": "שלום",
    "combining": "e" + "\u0301" * 50, "zalgo": "".join(c + "\u0336\u0489\u035c" for c in "zalgo"), "decomposed": "e\u0301",
    "ligature that grows": "\ufdfa" * 100, "full width": "［ＳＥＰ］", "mathematical": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "emoji": "👍" * 30,
    "emoji family": "👨‍👩‍👧‍👦", "flag": "🇩🇪", "variation selector": "❤\ufe0f", "turkish i": "İıI", "sharp s": "ẞß", "cjk": "你好" * 40,
    "thai": "สวัสดี", "devanagari": "नमस्ते", "hangul jamo": "\u1112\u1161\u11ab",
    # text that looks like structure
    "cls and sep": "[CLS] a [SEP] b", "pad": "[PAD]" * 20, "mask": "[MASK]", "unknown": "[UNK]", "bos and eos": "<s></s>",
    "candidate markers": "<|source|><|candidate1|><|candidate2|>", "chat markers": "<|im_start|>user\n<|im_end|>",
    "end of text": "<|endoftext|>", "sentencepiece": "▁▁▁", "byte fallback": "<0x0A>", "wordpiece": "##ing ##s",
    # what other languages read in it
    "json": '{"a": [1, null]}', "deep json": "[" * 5000, "nan": "NaN", "quotes": "\"'`", "backslashes": "\\\\n\\u0000",
    "html": "<script>alert(1)</script>", "sql": "'; DROP TABLE x; --", "shell": "$(rm -rf /) `id`", "format": "%s%n {0} {x}",
    "jinja": "{{ 7 * 7 }}{% for %}", "path": "../../etc/passwd", "url": "http://[::1]:0/", "csv": '=1+1,"', "yaml": "&a [*a]",
    "regex": "(a+)+$" * 10, "number": "9" * 400, "minus": "-" * 300,
    # length
    "one word": "a" * 5000, "many words": "a " * 5000, "many spaces": " " * 5000, "many lines": "\n" * 5000,
    "one long unknown": "ﷺ" * 500, "alternating": "a\u200b" * 2000,
}  # fmt: skip
