"""Rows as data sets, trainers and people write them: what is read of each, or the refusal.

Names of data sets are those of the model hub; the columns are theirs, the texts are short.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from ranker.data.formats import parse_group, parse_preference
from ranker.data.read_row import UnusedColumns
from ranker.errors import DataError
from ranker.records import Turns

HI = {"role": "user", "content": "Hi"}
YES = {"role": "assistant", "content": "yes"}
NO = {"role": "assistant", "content": "no"}
KIND = {"role": "system", "content": "be kind"}
FROM_HI, FROM_YES, FROM_NO = (
    {"from": name, "value": text} for name, text in (("human", "Hi"), ("gpt", "yes"), ("gpt", "no"))
)
HH = "\n\nHuman: Hi\n\nAssistant: "
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}],
}
SKY = {"role": "tool", "content": "blue", "tool_call_id": "1"}
RATED = {
    name: {"Rating": "4", "Rationale": "fine"}
    for name in ("helpfulness", "honesty", "instruction_following", "truthfulness")
}
HELPSTEER = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0}


@dataclass
class Read:
    """What must come out: texts are ``role: content`` where they are messages.

    ``label`` is the probability that the first answer is better, or a list of the labels of single answers or lists;
    None for rows without labels. ``unused`` are the columns that the warning names.
    """

    row: dict[str, Any]
    prompt: Any
    answers: list[Any]
    label: Any = None
    unused: list[str] = field(default_factory=list)
    columns: dict[str, str] | None = None
    unlabelled_unused: list[str] | None = None


@dataclass
class Refused:
    """What must be said, and of which field."""

    row: dict[str, Any]
    where: str
    message: str
    columns: dict[str, str] | None = None


TEXTS = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}
USER = ["user: Hi"]

ROWS: dict[str, Read | Refused] = {
    # pairs
    "TRL explicit, text": Read(TEXTS, "Hi", ["yes", "no"], 1.0),
    "TRL explicit, conversational": Read({"prompt": [HI], "chosen": [YES], "rejected": [NO]}, USER, ["yes", "no"], 1.0),
    "TRL implicit, conversational": Read({"chosen": [HI, YES], "rejected": [HI, NO]}, USER, ["yes", "no"], 1.0),
    "TRL text prompt, conversational answers": Read(
        {"prompt": "Hi", "chosen": [YES], "rejected": [NO]}, USER, ["yes", "no"], 1.0
    ),
    "TRL margin": Read(TEXTS | {"margin": 0.5}, "Hi", ["yes", "no"], 1.0),
    "TRL tools": Read(
        {"prompt": [HI], "chosen": [YES], "rejected": [NO], "tools": [{"name": "look"}]},
        USER,
        ["yes", "no"],
        1.0,
        ["tools"],
    ),
    "a template's variables": Read(
        TEXTS | {"chat_template_kwargs": {"enable_thinking": True}}, "Hi", ["yes", "no"], 1.0, ["chat_template_kwargs"]
    ),
    "Skywork/Skywork-Reward-Preference-80K-v0.2": Read(
        {"chosen": [HI, YES], "rejected": [HI, NO], "source": "magpie"}, USER, ["yes", "no"], 1.0, [], None, ["source"]
    ),
    "Anthropic/hh-rlhf": Read({"chosen": HH + "yes", "rejected": HH + "no"}, USER, ["yes", "no"], 1.0),
    "Anthropic/hh-rlhf, several turns": Read(
        {"chosen": HH + "Hey\n\nHuman: So?\n\nAssistant: yes", "rejected": HH + "Hey\n\nHuman: So?\n\nAssistant: no"},
        ["user: Hi", "assistant: Hey", "user: So?"],
        ["yes", "no"],
        1.0,
    ),
    "Anthropic/hh-rlhf, an empty prompt column": Read(
        {"prompt": "", "chosen": HH + "yes", "rejected": HH + "no"}, USER, ["yes", "no"], 1.0
    ),
    "Dahoas/full-hh-rlhf": Read(
        {"prompt": HH, "response": "yes", "chosen": "yes", "rejected": "no"}, USER, ["yes", "no"], 1.0, ["response"]
    ),
    "Dahoas/static-hh": Read(
        {"prompt": HH, "chosen": HH + "yes", "rejected": HH + "no"}, USER, ["yes", "no"], 1.0
    ),
    "HuggingFaceH4/ultrafeedback_binarized": Read(
        {
            "prompt": "Hi",
            "prompt_id": "ab",
            "chosen": [HI, YES],
            "rejected": [HI, NO],
            "messages": [HI, YES],
            "score_chosen": 8.0,
            "score_rejected": 5.0,
        },
        USER,
        ["yes", "no"],
        1.0,
    ),
    "HuggingFaceH4/ultrafeedback_binarized, a tie": Read(
        {
            "prompt": "Hi",
            "prompt_id": "ab",
            "chosen": [HI, YES],
            "rejected": [HI, NO],
            "messages": [HI, YES],
            "score_chosen": 8.0,
            "score_rejected": 8.0,
        },
        USER,
        ["yes", "no"],
        0.5,
    ),
    "a pair with equal scores": Read(TEXTS | {"chosen_score": 2, "rejected_score": 2}, "Hi", ["yes", "no"], 0.5),
    "Intel/orca_dpo_pairs": Read(
        {"system": "be kind", "question": "Hi", "chosen": "yes", "rejected": "no"},
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        1.0,
    ),
    "Intel/orca_dpo_pairs, an empty system": Read(
        {"system": "", "question": "Hi", "chosen": "yes", "rejected": "no"}, "Hi", ["yes", "no"], 1.0
    ),
    "argilla/distilabel-intel-orca-dpo-pairs": Read(
        {
            "system": "be kind",
            "input": "Hi",
            "chosen": "yes",
            "rejected": "no",
            "order": ["chosen", "rejected"],
            "labelling_model": "gpt-4",
            "rating": [9.0, 8.0],
            "status": "tie",
        },
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        1.0,
        ["order", "labelling_model", "status"],
    ),
    "argilla/ultrafeedback-binarized-preferences-cleaned": Read(
        {
            "source": "evol",
            "prompt": "Hi",
            "chosen": [HI, YES],
            "chosen-rating": 5.0,
            "chosen-model": "gpt-4",
            "rejected": [HI, NO],
            "rejected-rating": 1.0,
            "rejected-model": "llama",
        },
        USER,
        ["yes", "no"],
        1.0,
        ["chosen-model", "rejected-model"],
        None,
        ["source", "chosen-model", "rejected-model"],
    ),
    "axolotl chat_template.default": Read(
        {"conversation": [KIND, HI], "chosen": YES, "rejected": NO},
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        1.0,
    ),
    "axolotl bradley_terry": Read(
        {"system": "be kind", "input": "Hi", "chosen": "yes", "rejected": "no"},
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        1.0,
    ),
    "OpenBMB UltraInteract_pair": Read(
        {"task": "Math", "dataset": "gsm", "trajectory": [FROM_HI], "chosen": "yes", "rejected": "no", "id": "1"},
        USER,
        ["yes", "no"],
        1.0,
        ["task", "dataset"],
    ),
    "LLaMA-Factory sharegpt ranking": Read(
        {"conversations": [FROM_HI], "chosen": FROM_YES, "rejected": FROM_NO}, USER, ["yes", "no"], 1.0
    ),
    "LLaMA-Factory sharegpt ranking, system": Read(
        {"conversations": [FROM_HI], "chosen": FROM_YES, "rejected": FROM_NO, "system": "be kind", "tools": ""},
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        1.0,
    ),
    "LLaMA-Factory alpaca ranking": Read(
        {"instruction": "Do", "input": "it", "chosen": "yes", "rejected": "no"}, "Do\nit", ["yes", "no"], 1.0
    ),
    "LLaMA-Factory alpaca ranking, system and history": Read(
        {
            "instruction": "Do",
            "input": "",
            "chosen": "yes",
            "rejected": "no",
            "system": "be kind",
            "history": [["Hi", "Hey"]],
        },
        ["system: be kind", "user: Hi", "assistant: Hey", "user: Do"],
        ["yes", "no"],
        1.0,
    ),
    "OpenAI preference fine-tuning": Read(
        {
            "input": {"messages": [HI], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [YES],
            "non_preferred_output": [NO],
        },
        USER,
        ["yes", "no"],
        1.0,
    ),
    "messages as objects": Read({"prompt": "Hi", "chosen": YES, "rejected": NO}, USER, ["yes", "no"], 1.0),
    "ms-swift": Read(
        {"messages": [KIND, HI, YES], "rejected_response": "no"},
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        1.0,
    ),
    "lvwerra/stack-exchange-paired": Read(
        {"qid": 1, "question": "Hi", "date": "2020", "metadata": ["x"], "response_j": "yes", "response_k": "no"},
        "Hi",
        ["yes", "no"],
        1.0,
        ["date", "metadata"],
    ),
    "allenai/reward-bench": Read(
        TEXTS | {"chosen_model": "a", "rejected_model": "b", "subset": "chat", "id": 1},
        "Hi",
        ["yes", "no"],
        1.0,
        ["chosen_model", "rejected_model"],
    ),
    "allenai/reward-bench-2": Read(
        {"id": "1", "prompt": "Hi", "chosen": ["yes"], "rejected": ["no", "never"], "num_correct": 1},
        "Hi",
        ["yes", "no", "never"],
        [1.0, 0.0, 0.0],
    ),
    "a pair whose turns differ early": Read(
        {
            "prompt": "Hi",
            "chosen": [YES, {"role": "user", "content": "So?"}, YES],
            "rejected": [NO, {"role": "user", "content": "Why?"}, NO],
        },
        USER,
        [["assistant: yes", "user: So?", "assistant: yes"], ["assistant: no", "user: Why?", "assistant: no"]],
        1.0,
    ),
    "a pair with an episode of tools": Read(
        {"prompt": [HI], "chosen": [CALL, SKY, YES], "rejected": [NO]},
        USER,
        [["assistant: CALL", "tool: blue", "assistant: yes"], "no"],
        1.0,
    ),
    "keys of messages that are not read": Read(
        {"chosen": [HI | {"lang": "en"}, YES], "rejected": [HI | {"lang": "en"}, NO]},
        USER,
        ["yes", "no"],
        1.0,
        ["chosen[].lang", "rejected[].lang"],
    ),
    "columns by path": Read(
        {"q": {"text": "Hi"}, "completions": [{"response": "yes", "model": "m"}, {"response": "no", "model": "n"}]},
        "Hi",
        ["yes", "no"],
        1.0,
        ["completions (in part)"],
        {"prompt": "q.text", "chosen": "completions.0.response", "rejected": "completions.1.response"},
    ),
    # lists
    "lists": Read({"prompt": "Hi", "candidates": ["yes", "no"], "scores": [2, 1]}, "Hi", ["yes", "no"], [2.0, 1.0]),
    "lists with a system": Read(
        {"system_prompt": "be kind", "prompt": "Hi", "responses": ["yes", "no"], "scores": [2, 1]},
        ["system: be kind", "user: Hi"],
        ["yes", "no"],
        [2.0, 1.0],
    ),
    "lists of transcripts": Read(
        {"candidates": [HH + "yes", HH + "no"], "scores": [2, 1]}, USER, ["yes", "no"], [2.0, 1.0]
    ),
    "lists of conversations": Read(
        {"candidates": [[HI, YES], [HI, NO]], "scores": [2, 1]}, USER, ["yes", "no"], [2.0, 1.0]
    ),
    "lists of answers of several turns": Read(
        {"prompt": "Hi", "completions": [[CALL, SKY, YES], [NO]], "scores": [2, 1]},
        "Hi",
        [["assistant: CALL", "tool: blue", "assistant: yes"], "no"],
        [2.0, 1.0],
    ),
    "llm-blender/mix-instruct": Read(
        {
            "id": "1",
            "instruction": "Do ",
            "input": "it",
            "output": "yes",
            "candidates": [
                {"text": "yes", "scores": {"bleu": 0.9}, "model": "a"},
                {"text": "no", "scores": {"bleu": 0.1}, "model": "b"},
            ],
        },
        "Do it",
        ["yes", "no"],
        [0.9, 0.1],
        ["candidates[].model", "output"],
    ),
    "openbmb/UltraFeedback": Read(
        {
            "source": "evol",
            "instruction": "Hi",
            "models": ["a", "b"],
            "completions": [
                {"response": "yes", "annotations": RATED, "model": "a"},
                {"response": "no", "annotations": RATED | {"honesty": {"Rating": "N/A"}}, "model": "b"},
            ],
            "correct_answers": ["None"],
            "incorrect_answers": ["None"],
        },
        "Hi",
        ["yes", "no"],
        None,
        ["models", "correct_answers", "incorrect_answers", "completions[].model"],
    ),
    "berkeley-nest/Nectar": Read(
        {
            "prompt": HH,
            "answers": [{"answer": "no", "model": "a", "rank": 2.0}, {"answer": "yes", "model": "b", "rank": 1.0}],
            "turns": 1,
            "num_responses": 2,
            "source": ["lmsys"],
            "good_natured": True,
        },
        USER,
        ["no", "yes"],
        [-2.0, -1.0],
        ["source"],
    ),
    "HuggingFaceH4/stack-exchange-preferences": Read(
        {
            "qid": 1,
            "question": "Hi",
            "answers": [{"text": "yes", "pm_score": 3, "author": "x"}, {"text": "no", "pm_score": 0, "author": "y"}],
        },
        "Hi",
        ["yes", "no"],
        [3.0, 0.0],
    ),
    # two answers and a verdict
    "nvidia/HelpSteer3": Read(
        {"domain": "code", "language": "python", "context": [HI], "response1": "no", "response2": "yes",
         "overall_preference": 2, "individual_preference": []},
        USER,
        ["no", "yes"],
        [0.0, 1.0],
        ["language"],
    ),
    "nvidia/HelpSteer3, a tie": Read(
        {"domain": "code", "context": [HI], "response1": "no", "response2": "yes", "overall_preference": 0},
        USER,
        ["no", "yes"],
        [0.5, 0.5],
    ),
    "stanfordnlp/SHP": Read(
        {"post_id": "x", "domain": "askhr", "history": "Hi", "human_ref_A": "no", "human_ref_B": "yes", "labels": 0},
        "Hi",
        ["no", "yes"],
        [0.0, 1.0],
        ["post_id"],
    ),
    "llm-blender/Unified-Feedback": Read(
        {"id": "1", "conv_A": [HI, NO], "conv_B": [HI, YES], "conv_A_rating": 0.0, "conv_B_rating": 1.0,
         "num_turns": 1, "source": "argilla"},
        USER,
        ["no", "yes"],
        [0.0, 1.0],
    ),
    "openai/webgpt_comparisons": Read(
        {"question": {"full_text": "Hi", "dataset": "eli5"}, "quotes_0": {"extract": ["q"]}, "answer_0": "yes",
         "tokens_0": {}, "score_0": 1.0, "quotes_1": {"extract": []}, "answer_1": "no", "score_1": -1.0},
        "Hi",
        ["yes", "no"],
        [1.0, -1.0],
        ["quotes_0"],
    ),
    "openai/summarize_from_feedback": Read(
        {"info": {"id": "1", "post": "Hi", "title": "T", "subreddit": "tifu"},
         "summaries": [{"text": " no", "policy": "a"}, {"text": " yes", "policy": "b"}], "choice": 1, "worker": "w"},
        "Summarize:\n\nT\n\nHi",
        ["no", "yes"],
        [0.0, 1.0],
        ["worker"],
    ),
    "PKU-Alignment/PKU-SafeRLHF": Read(
        {"prompt": "Hi", "response_0": "no", "response_1": "yes", "better_response_id": 1, "safer_response_id": 0,
         "prompt_source": "x"},
        "Hi",
        ["no", "yes"],
        [0.0, 1.0],
        ["prompt_source"],
    ),
    "lmsys/chatbot_arena_conversations": Read(
        {"question_id": "x", "model_a": "a", "model_b": "b", "winner": "model_b", "conversation_a": [HI, NO],
         "conversation_b": [HI, YES], "turn": 1},
        USER,
        ["no", "yes"],
        [0.0, 1.0],
        ["question_id", "model_a", "model_b"],
    ),
    "lmsys/chatbot_arena_conversations, both bad": Read(
        {"model_a": "a", "model_b": "b", "winner": "tie (bothbad)", "conversation_a": [HI, NO],
         "conversation_b": [HI, YES]},
        USER,
        ["no", "yes"],
        [0.5, 0.5],
        ["model_a", "model_b"],
    ),
    "lmsys/lmsys-arena-human-preference-55k, CSV": Read(
        {"id": "1", "model_a": "a", "model_b": "b", "prompt": '["Hi"]', "response_a": '["yes"]',
         "response_b": '["no"]', "winner_model_a": "1", "winner_model_b": "0", "winner_tie": "0"},
        USER,
        ["yes", "no"],
        [1.0, 0.0],
        ["model_a", "model_b"],
    ),
    "JudgeBench": Read(
        {"pair_id": "x", "source": "mmlu", "question": "Hi", "response_A": "no", "response_B": "yes", "label": "B>A"},
        "Hi",
        ["no", "yes"],
        [0.0, 1.0],
        ["pair_id", "source"],
    ),
    "prometheus-eval/Preference-Collection": Read(
        {"orig_instruction": "Hi", "orig_response_A": "yes", "orig_response_B": "no", "orig_preference": "A",
         "instruction": "Judge", "output": "A"},
        "Hi",
        ["yes", "no"],
        [1.0, 0.0],
        ["instruction", "output"],
    ),
    # single answers
    "trl-lib/kto-mix-14k": Read(
        {"prompt": [HI], "completion": [YES], "label": True}, USER, ["yes"], [1.0]
    ),
    "KTO, messages": Read({"messages": [HI, YES], "label": False}, USER, ["yes"], [0.0]),
    "LLaMA-Factory KTO": Read({"conversations": [FROM_HI, FROM_YES], "kto_tag": True}, USER, ["yes"], [1.0]),
    "nvidia/HelpSteer2": Read({"prompt": "Hi", "response": "yes", **HELPSTEER}, USER, ["yes"], None),
    "nvidia/HelpSteer2, several turns": Read(
        {"prompt": "Hi\n<extra_id_1>Assistant\nHey\n<extra_id_1>User\nSo?", "response": "yes", **HELPSTEER},
        ["user: Hi", "assistant: Hey", "user: So?"],
        ["yes"],
    ),
    "text and score": Read({"text": "yes", "score": 0.25}, "", ["yes"], [0.25]),
    "a text that is a transcript": Read({"text": HH + "yes", "score": 1}, USER, ["yes"], [1.0]),
    "a response that is a transcript": Read({"prompt": "", "response": HH + "yes"}, USER, ["yes"]),
    "cells of CSV": Read(
        {"prompt": "12", "chosen": "NA", "rejected": "null", "label": "0.5", "margin": ""}, "12", ["NA", "null"], 0.5
    ),
    "lists in cells of CSV": Read(
        {"prompt": "Hi", "candidates": '["yes", "no"]', "scores": "[2, 1]"}, "Hi", ["yes", "no"], [2.0, 1.0]
    ),
    "verdicts in cells of CSV": Read({"prompt": "Hi", "response": "yes", "accept": "True"}, "Hi", ["yes"], [1.0]),
    "PKU-Alignment/BeaverTails": Read(
        {"prompt": "Hi", "response": "yes", "category": {"x": False}, "is_safe": True},
        "Hi",
        ["yes"],
        [1.0],
        [],
        {"accept": "is_safe"},
    ),
    "Alpaca": Read({"instruction": "Do", "input": "it", "output": "yes"}, "Do\nit", ["yes"]),
    "Alpaca with history": Read(
        {"instruction": "Do", "input": "", "output": "yes", "history": [["Hi", "Hey"]], "system": "be kind"},
        ["system: be kind", "user: Hi", "assistant: Hey", "user: Do"],
        ["yes"],
    ),
    "gsm8k": Read({"question": "Hi", "answer": "yes"}, "Hi", ["yes"]),
    "OpenAI fine-tuning": Read({"messages": [KIND, HI, YES]}, ["system: be kind", "user: Hi"], ["yes"]),
    "ShareGPT": Read({"id": "x", "conversations": [FROM_HI, FROM_YES]}, USER, ["yes"]),
    "an episode of tools": Read(
        {"messages": [HI, CALL, SKY, YES]}, USER, [["assistant: CALL", "tool: blue", "assistant: yes"]]
    ),
    "messages with a system of their own": Read(
        {"messages": [HI, YES], "system": "be kind"}, ["system: be kind", "user: Hi"], ["yes"]
    ),
    "a passage beside the question": Read(
        {"question": "Hi", "context": "A passage.", "response": "yes"}, "Hi", ["yes"], None, ["context"]
    ),
    "verl": Read(
        {"data_source": "gsm", "prompt": [HI], "response": "yes", "reward_model": {"style": "rule"}},
        USER,
        ["yes"],
        None,
        ["data_source", "reward_model"],
    ),
    # rows that were found by looking for more of them
    "DIBT/aya_en_dpo": Read(
        {"chosen": [HI, YES], "rejected": [HI, NO], "tie": True, "winner": None}, USER, ["yes", "no"], 0.5
    ),
    "argilla/distilabel-capybara-dpo-7k-binarized": Read(
        TEXTS | {"rating_chosen": 5, "rating_rejected": 5}, "Hi", ["yes", "no"], 0.5
    ),
    "argilla/dpo-mix-7k": Read(TEXTS | {"chosen_rating": 5.0, "rejected_rating": 5.0}, "Hi", ["yes", "no"], 0.5),
    "argilla/ultrafeedback-binarized-preferences": Read(
        TEXTS | {"chosen-rating": 4.5, "rejected-rating": 4.5}, "Hi", ["yes", "no"], 0.5
    ),
    "lmsys/mt_bench_human_judgments": Read(
        {
            "turn": 1,
            "winner": "model_a",
            "conversation_a": [HI, YES, {"role": "user", "content": "So?"}, NO],
            "conversation_b": [HI, NO, {"role": "user", "content": "So?"}, YES],
        },
        USER,
        ["yes", "no"],
        [1.0, 0.0],
    ),
    "the first label is null": Read(
        {"prompt": "Hi", "response": "yes", "score": None, "label": True}, "Hi", ["yes"], [1.0]
    ),
    "LLaMA-Factory KTO beside a null label": Read(
        {"messages": [HI, YES], "label": None, "kto_tag": False}, USER, ["yes"], [0.0]
    ),
    "answers in another shape are empty": Read(
        {"prompt": "Hi", "completion": "yes", "label": True, "chosen": None, "rejected": None}, "Hi", ["yes"], [1.0]
    ),
    "candidates are null beside a response": Read(
        {"prompt": "Hi", "candidates": None, "response": "yes", "score": 1}, "Hi", ["yes"], [1.0]
    ),
    "ShareGPT with calls of tools": Read(
        {
            "conversations": [FROM_HI],
            "chosen": {"from": "gpt", "value": "", "tool_calls": CALL["tool_calls"]},
            "rejected": FROM_NO,
        },
        USER,
        [["assistant: CALL"], "no"],
        1.0,
    ),
    "ms-swift with a call of a tool": Read(
        {"messages": [HI, CALL], "rejected_response": "no", "channel": "x"},
        USER,
        [["assistant: CALL"], "no"],
        1.0,
        ["channel"],
    ),
    "an empty list of calls": Read(
        {"prompt": [HI], "chosen": [YES | {"tool_calls": []}], "rejected": [NO | {"tool_calls": None}]},
        USER,
        ["yes", "no"],
        1.0,
    ),
    "LangChain": Read(
        {"messages": [["system", "be kind"], ["human", "Hi"], ["ai", "yes"]], "score": 1},
        ["system: be kind", "user: Hi"],
        ["yes"],
        [1.0],
    ),
    "openbmb/RLAIF-V": Read(
        {"image": {"bytes": b"\x89PNG", "path": None}, "question": "Hi", "chosen": "yes", "rejected": "no"},
        "Hi",
        ["yes", "no"],
        1.0,
        ["image"],
    ),
    "a system prompt within a known data set": Read(
        {
            "instruction": "Hi",
            "completions": [{"response": "yes", "annotations": RATED, "custom_system_prompt": "be kind"}],
        },
        "Hi",
        ["yes"],
        None,
        ["completions[].custom_system_prompt"],
    ),
    "an answer of text and calls": Read(
        {"prompt": "Hi", "candidates": [{"text": "yes", "tool_calls": "look"}]},
        "Hi",
        ["yes"],
        None,
        ["candidates[].tool_calls"],
    ),
    "wentingzhao/lmsys-arena-pairs": Read(
        {
            "prompt": ["Hi"],
            "response_a": ["yes"],
            "response_b": ["no"],
            "winner_model_a": 0,
            "winner_model_b": 1,
            "winner_tie": 0,
        },
        USER,
        ["yes", "no"],
        [0.0, 1.0],
    ),
    "NeMo-RL": Read(
        {"context": [HI], "completions": [{"rank": 1, "completion": [NO]}, {"rank": 0, "completion": [YES]}]},
        USER,
        ["no", "yes"],
        [-1.0, 0.0],
    ),
    "a prompt that the turns have as parts": Read(
        {
            "prompt": "Hi",
            "chosen": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, YES],
            "rejected": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, NO],
        },
        USER,
        ["yes", "no"],
        1.0,
    ),
    "verdicts of a list": Read(
        {"prompt": "Hi", "candidates": ["yes", "no"], "scores": [True, False]}, "Hi", ["yes", "no"], [1.0, 0.0]
    ),
    "texts as objects with scores apart": Read(
        {"prompt": "Hi", "candidates": [{"text": "yes"}, {"text": "no"}], "scores": [2, 1]},
        "Hi",
        ["yes", "no"],
        [2.0, 1.0],
    ),
    "passages as objects": Read(
        {"query": "Hi", "positive": [{"docid": "1", "text": "yes"}], "negative": [{"docid": "2", "text": "no"}]},
        "Hi",
        ["yes", "no"],
        1.0,
        ["chosen[].docid", "rejected[].docid"],
        {"chosen": "positive", "rejected": "negative"},
    ),
    "NeMo's system prompt in a row of HelpSteer": Read(
        {"prompt": "<extra_id_0>System\nbe kind\n<extra_id_1>User\nHi", "response": "yes", **HELPSTEER},
        ["system: be kind", "user: Hi"],
        ["yes"],
    ),
    "a tie as a number": Read(TEXTS | {"tie": 1}, "Hi", ["yes", "no"], 0.5),
    "MT-Bench from a frame": Read(
        {
            "turn": 1.0,
            "winner": "model_a",
            "conversation_a": [HI, YES, HI, NO],
            "conversation_b": [HI, NO, HI, YES],
        },
        USER,
        ["yes", "no"],
        [1.0, 0.0],
    ),
    "ColossalChat": Read(
        {
            "context": [{"from": "human", "content": "Hi"}],
            "chosen": [{"from": "assistant", "content": "yes"}],
            "rejected": [{"from": "assistant", "content": "no"}],
        },
        USER,
        ["yes", "no"],
        1.0,
    ),
    "an answer that is JSON": Read(
        TEXTS | {"chosen": '{"value": 42}', "rejected": '{"from": "EUR", "to": "USD"}'},
        "Hi",
        ['{"value": 42}', '{"from": "EUR", "to": "USD"}'],
        1.0,
    ),
    "a passage as the source": Read(
        {"prompt": "Summarize", "source": "A passage of many words. " * 4, "response": "yes", "score": 1},
        "Summarize",
        ["yes"],
        [1.0],
        ["source"],
    ),
    "a message in both spellings": Read(
        {"messages": [HI, YES | {"from": "gpt-4", "value": "other"}], "score": 1},
        USER,
        ["yes"],
        [1.0],
        ["messages[].from", "messages[].value"],
    ),
    # refusals
    "a log of an evaluation": Refused(
        {"question": "Hi", "answer": "gold", "prediction": "model", "score": 0},
        "answer",
        "expected one answer with a label, got answer, prediction",
    ),
    "a text beside a response": Refused(
        {"text": "Hi", "response": "yes", "score": 1}, "prompt", "found no prompt in the columns text"
    ),
    "Prodigy": Refused(
        {"prompt": "Hi", "text": "yes", "label": 1, "answer": "reject"}, "answer", "expected an answer, got a verdict"
    ),
    "messages spelled in a response": Refused(
        {"prompt": "Hi", "response": '[{"role": "assistant", "content": "yes"}]', "score": 1},
        "response",
        "got messages spelled as a text",
    ),
    "names with spaces": Refused({" chosen": "yes", "rejected ": "no"}, "columns", "got ' chosen', 'rejected '"),
    "a label that swaps the pair": Refused(TEXTS | {"label": 0}, "label", "got 0; swap the answers"),
    "process rewards as numbers": Refused(
        {"prompt": "Hi", "completions": ["one", "two", "three"], "labels": [1, -1]}, "labels", "steps of one answer"
    ),
    "RLHFlow/Mistral-PRM-Data": Refused(
        {"conversations": [HI, {"role": "assistant", "content": "+"}, HI, {"role": "assistant", "content": "-"}],
         "label": 1},
        "conversations",
        "steps of one answer",
    ),
    "messages spelled as text": Refused(
        TEXTS | {"chosen": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yes"}]'},
        "chosen",
        "got messages spelled as a text",
    ),
    "messages as numpy prints them": Refused(
        TEXTS | {"prompt": "[{'content': 'Hi', 'role': 'user'}\n {'content': 'x', 'role': 'assistant'}]"},
        "prompt",
        "got messages spelled as a text",
    ),
    "two answers as a list": Refused(
        {"instruction": "Hi", "output": ["yes", "no"], "score": 1},
        "output[0]",
        "answers are the columns chosen and rejected, or a list",
    ),
    "a code out of range": Refused(
        {"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": -1},
        "prompt",
        "expected a number below 2, got -1",
    ),
    "a number as a part of the prompt": Refused(
        {"instruction": "Add one", "input": 41, "chosen": "42", "rejected": "43"}, "input", "expected text, got int"
    ),
    "a file without a line of names": Refused(
        {"Hi\nthere": "yes", "x" * 500: "no"}, "columns", "got Hi there, xxxx"
    ),
    "a column of another name": Refused(
        {"question": "Hi", "good": 3, "bad": "no"}, "chosen", "(column 'good')", {"chosen": "good", "rejected": "bad"}
    ),
    "process rewards": Refused(
        {"prompt": "Hi", "completions": ["one", "two"], "labels": [True, False]}, "labels", "steps of one answer"
    ),
    "OpenAssistant/oasst2, a message": Refused(
        {"message_id": "a", "parent_id": None, "text": "Hi", "role": "prompter", "rank": None, "lang": "en"},
        "message_id",
        "one message of a tree; read the whole file as oasst2=FILE",
    ),
    "OpenAssistant ready trees": Refused(
        {"message_tree_id": "a", "tree_state": "ready", "prompt": {"text": "Hi", "replies": []}},
        "columns",
        "got message_tree_id, tree_state, prompt",
    ),
    "token ids": Refused({"input_ids_chosen": [1], "input_ids_rejected": [2]}, "input_ids_chosen", "expected texts"),
    "an answer that is null": Refused(TEXTS | {"rejected": None}, "rejected", "got null"),
    "a prompt that is null": Refused(
        {"prompt": None, "candidates": ["yes"], "scores": [1]}, "prompt", 'got null; if there is no prompt, give'
    ),
    "a prompt under an unknown name": Refused(
        {"situation": "Hi", "chosen": "yes", "rejected": "no"}, "prompt", "found no prompt in the columns situation"
    ),
    "an integer of 400 digits": Refused(TEXTS | {"margin": 10**400}, "margin", "an integer of more than 60 digits"),
    "scores with an integer of 400 digits": Refused(
        {"prompt": "Hi", "candidates": ["yes"], "scores": [10**400]}, "scores[0]", "an integer of more than 60 digits"
    ),
    "two system messages": Refused(
        {"system": "be rude", "messages": [KIND, HI, YES], "score": 1}, "system", "which have another one"
    ),
    "a conversation beside an answer": Refused(
        {"chosen": [HI, YES], "rejected": [NO]}, "rejected", "a conversation with its prompt, as in 'chosen'"
    ),
    "a conversation with another prompt": Refused(
        {"prompt": "Bye", "response": [HI, YES], "score": 1}, "prompt", "expected the turns of 'prompt' to be part"
    ),
    "a role that nobody has": Refused(
        {"messages": [{"role": "robot", "content": "Hi"}, YES], "score": 1}, "messages[0]", "a message with role"
    ),
    "an image": Refused(
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, YES], "score": 1},
        "messages[0].content[0]",
        "only text is read here",
    ),
    "JudgeBench with another label": Refused(
        {"question": "Hi", "response_A": "a", "response_B": "b", "label": "C"}, "question", "as JudgeBench has them"
    ),
    "a path to nothing": Refused(
        {"completions": [{"response": "a"}]}, "completions.1.response", "got list in 'completions'",
        {"prompt": "completions.0.response", "response": "completions.1.response"},
    ),
}  # fmt: off


def plain(text):
    """A prompt or answer as the table has it."""
    turns = text.messages if isinstance(text, Turns) else text
    if isinstance(turns, str):
        return turns
    return [f"{turn.role}: {'CALL' if turn.source and 'tool_calls' in turn.source else turn.content}" for turn in turns]


READ = {name: case for name, case in ROWS.items() if isinstance(case, Read)}
REFUSED = {name: case for name, case in ROWS.items() if isinstance(case, Refused)}


def test_the_table_has_enough_rows():
    assert len(ROWS) >= 90
    assert len(REFUSED) >= 15


@pytest.mark.parametrize("name", READ)
def test_a_row_is_read(name, caplog):
    case = READ[name]
    unused = UnusedColumns()
    group = parse_group(case.row, "rows.jsonl:1", case.columns, unused)
    unused.say()
    assert plain(group.prompt) == case.prompt
    assert [plain(answer) for answer in group.candidates] == case.answers
    named = case.unused if case.unlabelled_unused is None else case.unlabelled_unused
    assert sorted(named_columns(caplog)) == sorted(named)


@pytest.mark.parametrize("name", [name for name, case in READ.items() if case.label is not None])
def test_a_row_is_learned_from(name, caplog):
    case = READ[name]
    unused = UnusedColumns()
    preference = parse_preference(case.row, "rows.jsonl:1", case.columns, unused)
    unused.say()
    assert plain(preference.prompt) == case.prompt
    assert [plain(answer) for answer in preference.candidates] == case.answers
    if isinstance(case.label, list):
        assert [scores[0] for scores in preference.scores] == case.label
        assert preference.label is None
    else:
        assert preference.label == case.label
    assert sorted(named_columns(caplog)) == sorted(case.unused)


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_is_refused(name):
    case = REFUSED[name]
    with pytest.raises(DataError) as caught:
        parse_preference(case.row, "rows.jsonl:1", case.columns)
    assert caught.value.where == "rows.jsonl:1"
    assert caught.value.field == case.where
    assert case.message in str(caught.value)
    assert "\n" not in str(caught.value)


def named_columns(caplog):
    """The columns of the line "columns not used"."""
    lines = [message for message in caplog.messages if "columns not used" in message]
    assert len(lines) <= 1
    return lines[0].partition("columns not used: ")[2].split(", ") if lines else []
