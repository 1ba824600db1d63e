"""Dialogues: text that becomes a model's own turns through its chat template.

The layout `chat` writes, whatever the model,

    <|system|>INSTRUCTION<|user|>SLATE<|assistant|><think>TRACE</think>ANSWER<|end|>

and here it takes the form that one tokenizer knows: the turns of its template, its own think marks where it has them, its own end of turn.
So traces are written once, and read by models of any family. Text from outside cannot spell these marks (outside_text.py).
"""

from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from stages.shared.core.errors import StageError
from stages.shared.slates.layouts.marks import ASSISTANT, END, SYSTEM, THINK, THINK_END, USER

# What thinking models of several families open and close their thoughts with; the first is ours too.
THINK_MARKS = [(THINK, THINK_END), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")]


def is_dialogue(text: str) -> bool:
    return text.startswith(SYSTEM)


def think_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """The marks around this model's thoughts: those that its template names, else ours."""
    template = chat_template(tokenizer)
    return next((pair for pair in THINK_MARKS if all(mark in template for mark in pair)), THINK_MARKS[0])


def thinks_by_itself(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model was trained to think: its template names the marks."""
    return think_marks(tokenizer)[0] in chat_template(tokenizer)


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """StageError naming the folder of a tokenizer that has none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if not template:
        raise StageError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json), through which prompt.layout: chat speaks; choose an instruction-tuned model, or prompt.layout: compact"
        )
    return template


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token with which the template ends an assistant's turn; the tokenizer's end token where the template shows none."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "reply"}]
    after = str(_apply(tokenizer, turns, False, True)).rpartition("reply")[2]
    special = {token for token in tokenizer.get_added_vocab() if after.lstrip().startswith(token)}
    return max(special, key=len) if special else str(tokenizer.eos_token)


def rendered_prompt(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A dialogue up to the assistant's turn, perhaps with the beginning of its thoughts, as this model reads it.

    Thinking is opened where the template does not do so by itself. A dialogue that closes its think block at once asks for an answer
    without thoughts: the template says so in its own way, and a model that knows no thoughts gets no empty block.
    """
    system, _, rest = text.removeprefix(SYSTEM).partition(USER)
    user, _, begun = rest.partition(ASSISTANT)
    reasoning = not begun.endswith(THINK_END)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    prompt = _turns(tokenizer, messages, reasoning)
    opened, closed = think_marks(tokenizer)
    if not reasoning:
        # Qwen3's template writes an empty block when thinking is off; one that only opens a block is closed here.
        tail = prompt.rstrip()
        return f"{tail}\n\n{closed}\n\n" if tail.endswith(opened) else prompt
    if not prompt.rstrip().endswith(opened):
        prompt += f"{opened}\n"
    return prompt + begun.removeprefix(THINK)


def rendered(segments: Sequence[tuple[str, float]], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, float]]:
    """A document whose first segment is a dialogue, as this model reads and writes it. Segments: text and loss weight."""
    (prompt, weight), *rest = segments
    return [(rendered_prompt(prompt, tokenizer), weight), *((rendered_turn(text, tokenizer), loss_weight) for text, loss_weight in rest)]


def rendered_turn(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the assistant says: thoughts, answer, and the end of its turn."""
    closed = think_marks(tokenizer)[1]
    return text.replace(THINK_END, f"\n{closed}\n\n").replace(END, str(tokenizer.eos_token))


def _turns(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], reasoning: bool) -> str:
    try:
        return _apply(tokenizer, messages, True, reasoning)
    except TemplateError:
        # Gemma's template refuses a system turn: what it would say then opens the user's.
        merged = "\n\n".join(message["content"] for message in messages)
        return _apply(tokenizer, [{"role": "user", "content": merged}], True, reasoning)


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], generation: bool, reasoning: bool) -> str:
    chat_template(tokenizer)
    # Templates that know no `enable_thinking` ignore it.
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation, enable_thinking=reasoning))
