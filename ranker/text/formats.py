"""How producers write a conversation as text where no chat template does: one function per format and one registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ranker.text.conversations import BOUNDARY, ChatText
from ranker.text.tokenizer import TextTokenizer

TURNS: Final = (
    "{%- for message in messages -%}"
    "{%- if not loop.first -%}{{ SEPARATOR if loop.last else '\\n\\n' }}{%- endif -%}"
    "{{- message.content -}}"
    "{%- endfor -%}"
)
"""The contents of all messages: a separator before the answer, blank lines between other turns."""


def _turns(separator: str) -> str:
    return TURNS.replace("SEPARATOR", repr(separator))


def plain(variables: Mapping[str, Any]) -> ChatText:
    """``[BOS] prompt, blank line, answer EOS``: what this package trains with where a tokenizer has no template."""
    return ChatText(
        template="{{ bos_token if bos_token else '' }}" + _turns("\n\n") + "{{ eos_token if eos_token else '' }}",
        variables=dict(variables),
    )


def trl(variables: Mapping[str, Any]) -> ChatText:
    """TRL's rows of plain text: the tokenizer's own BOS, prompt, answer, EOS.

    Source: ``RewardTrainer._prepare_dataset`` of TRL 1.16.
    """
    return ChatText(template=_turns("") + "{{ eos_token }}", variables=dict(variables), bos="tokenizer")


def openrlhf(variables: Mapping[str, Any]) -> ChatText:
    """OpenRLHF's rows without a template: prompt, answer, a space and EOS.

    Source: ``RewardDataset.__getitem__`` of OpenRLHF 0.11.
    """
    return ChatText(template=_turns(""), variables=dict(variables), end=str(variables.get("eos_token") or ""))


def trlx(variables: Mapping[str, Any]) -> ChatText:
    """Trlx's summaries: ``<|startoftext|>``, prompt, line break, answer, EOS.

    Source: ``examples/summarize_rlhf/reward_model`` of trlx.
    """
    return ChatText(
        template="<|startoftext|>" + _turns("\n") + "{{ eos_token }}", variables=dict(variables), bos="tokenizer"
    )


QWEN3_SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the "
    'answer can only be "yes" or "no".'
)
QWEN3_TASK: Final = "Given a web search query, retrieve relevant passages that answer the query"
MXBAI_TASK: Final = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:"
)
BGE_TASK: Final = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)
QUERY, DOCUMENT = "{{ messages[-2].content }}", "{{ messages[-1].content }}"


def _reranker(template: str, variables: Mapping[str, Any], instruction: str = "") -> ChatText:
    return ChatText(
        template=template, variables={**variables, "instruction": instruction}, pair_roles=("query", "document")
    )


def qwen3_reranker(variables: Mapping[str, Any]) -> ChatText:
    """Qwen3-Reranker's question; ``instruction`` of ``template_variables`` says what a document is sought for.

    Source: ``examples/qwen3_reranker_transformers.py`` of QwenLM/Qwen3-Embedding, and the model card's instruction.
    """
    text = (
        f"<|im_start|>system\n{QWEN3_SYSTEM}<|im_end|>\n<|im_start|>user\n<Instruct>: {{{{ instruction }}}}\n"
        f"<Query>: {QUERY}\n<Document>: {DOCUMENT}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>"
        "{{ '\\n\\n' }}"
    )
    return _reranker(text, variables, QWEN3_TASK)


def mxbai_rerank_v2(variables: Mapping[str, Any]) -> ChatText:
    """mxbai-rerank-v2's question, whose parts are encoded apart; ``instruction`` comes before the query.

    Source: ``mxbai_rerank/mxbai_rerank_v2.py`` of mixedbread-ai/mxbai-rerank.
    """
    text = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{BOUNDARY}"
        "{% if instruction %}instruction: {{ instruction }}{{ '\\n' }}{% endif %}"
        f"query: {QUERY}{BOUNDARY}\n{BOUNDARY}document: {DOCUMENT}{BOUNDARY}\n{BOUNDARY}{MXBAI_TASK}{BOUNDARY}"
        "<|im_end|>\n<|im_start|>assistant{{ '\\n' }}"
    )
    return _reranker(text, variables)


def bge_reranker_gemma(variables: Mapping[str, Any]) -> ChatText:
    """bge-reranker-v2-gemma's question, whose parts are encoded apart.

    Source: ``FlagEmbedding/inference/reranker/decoder_only/base.py`` of FlagOpen/FlagEmbedding.
    """
    text = (
        f"{{{{ bos_token if bos_token else '' }}}}{BOUNDARY}A: {QUERY}{BOUNDARY}\n{BOUNDARY}B: {DOCUMENT}{BOUNDARY}\n"
        f"{BOUNDARY}{{{{ instruction }}}}"
    )
    return _reranker(text, variables, BGE_TASK)


RERANKERS: Final[dict[str, tuple[str, ...]]] = {
    "qwen3-reranker": ("yes", "no"),
    "mxbai-rerank-v2": ("1", "0"),
    "bge-reranker-gemma": ("Yes",),
}
"""Rerankers that are language models, by the name of their text: the words whose logits are the score."""

TEXT_FORMATS: Final[dict[str, Callable[[Mapping[str, Any]], ChatText]]] = {
    "plain": plain,
    "trl": trl,
    "openrlhf": openrlhf,
    "trlx": trlx,
    "qwen3-reranker": qwen3_reranker,
    "mxbai-rerank-v2": mxbai_rerank_v2,
    "bge-reranker-gemma": bge_reranker_gemma,
}
"""By name: from the tokenizer's special tokens to the text. ``chat`` is the tokenizer's own template."""


def portable(chat: ChatText, tokenizer: TextTokenizer) -> str:
    """A chat template under which ``apply_chat_template`` alone gives this text's ids, for other libraries.

    Args:
        chat: the text, with its producer's own rules.
        tokenizer: the model's.
    """
    if chat.bos == "template" and not chat.end:
        return chat.template
    text = "rendered"
    if chat.end:
        text = "rendered.rstrip('\\n')"
        text = f"({text} if {text}.endswith({chat.end!r}) else {text} ~ {' ' + chat.end!r})"
    begin = str(chat.variables.get("bos_token") or "")
    if chat.bos == "tokenizer" and begin:
        text = f"{text}.removeprefix({begin!r})"
        (added,) = tokenizer.encode_rendered([""], add_special_tokens=True)
        if tokenizer.decode(added).startswith(begin):
            text = f"{begin!r} ~ {text}"
    # Jinja removes a line break after a tag and spaces before one, but none beside an expression.
    return f"{{% set rendered %}}{{{{ '' }}}}{chat.template}{{{{ '' }}}}{{% endset %}}{{{{ {text} }}}}"
