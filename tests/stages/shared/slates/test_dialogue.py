"""One dialogue, in the words of whichever chat template the model has."""

from collections import Counter
from types import SimpleNamespace

import pytest

from stages.shared.core.errors import StageError
from stages.shared.lm.encoding import encode
from stages.shared.slates.layouts.budget import fitted
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.dialogue import end_of_turn, rendered_prompt, think_marks, thinks_by_itself
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import ASSISTANT, END, SYSTEM, THINK, THINK_END, USER
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog
from tests.stages.shared.slates.test_compact import CATALOG, DIGITS, SLATE
from tests.support.chat_models import chat_tokenizer
from tests.support.tiny_models import tiny_tokenizer

ASKED = f"{SYSTEM}Rule{USER}Question{ASSISTANT}{THINK}"


def with_template(template: str) -> SimpleNamespace:
    """A tokenizer of which only the template is asked."""
    real = chat_tokenizer()

    def apply(messages, **options):
        return real.apply_chat_template(messages, chat_template=template, **options)

    return SimpleNamespace(
        chat_template=template,
        apply_chat_template=apply,
        name_or_path="models/other",
        get_added_vocab=real.get_added_vocab,
        eos_token="</s>",
    )


def test_a_model_without_thoughts_of_its_own_gets_our_marks_and_no_empty_block():
    tokenizer = chat_tokenizer()
    turns = "<|im_start|>system\nRule<|im_end|>\n<|im_start|>user\nQuestion<|im_end|>\n<|im_start|>assistant\n"
    assert rendered_prompt(ASKED, tokenizer) == f"{turns}<think>\n"
    assert rendered_prompt(ASKED + THINK_END, tokenizer) == turns
    assert rendered_prompt(f"{ASKED}begun", tokenizer) == f"{turns}<think>\nbegun"
    assert end_of_turn(tokenizer) == "<|im_end|>" and not thinks_by_itself(tokenizer)


def test_a_thinking_model_keeps_its_own_way_of_not_thinking():
    tokenizer = chat_tokenizer(thinking=True)
    assert thinks_by_itself(tokenizer)
    assert rendered_prompt(ASKED, tokenizer).endswith("<|im_start|>assistant\n<think>\n")
    assert rendered_prompt(ASKED + THINK_END, tokenizer).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_that_always_opens_thoughts():
    always = with_template("{{ messages[-1]['content'] }}{% if add_generation_prompt %}[A]<think>\n{% endif %}{# </think> #}")
    assert rendered_prompt(ASKED, always) == "Question[A]<think>\n"
    assert rendered_prompt(ASKED + THINK_END, always) == "Question[A]<think>\n\n</think>\n\n"


def test_other_marks_and_a_template_without_a_system_turn():
    bracketed = with_template(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0]['content'] }}{# [THINK] [/THINK] #}</s>"
    )
    assert think_marks(bracketed) == ("[THINK]", "[/THINK]")
    assert rendered_prompt(ASKED, bracketed) == "Rule\n\nQuestion</s>[THINK]\n"


def test_no_template_is_an_error_that_names_the_folder():
    with pytest.raises(StageError, match=r"no chat template .* prompt\.layout: compact"):
        rendered_prompt(ASKED, tiny_tokenizer())
    with pytest.raises(StageError, match="models/other: no chat template"):
        rendered_prompt(ASKED, with_template(""))


@pytest.mark.parametrize("reasoning", [True, False])
def test_a_training_example_begins_with_the_prompt_that_decoding_asks(reasoning):
    layout = ChatLayout(CATALOG, PromptParams(layout="chat", history=3, titles=True, reasoning=reasoning))
    for tokenizer in (chat_tokenizer(), chat_tokenizer(thinking=True)):
        encoded = EncodedLayout(layout, tokenizer)
        answer = layout.answer(SLATE, [1, 0, 2])
        said = [(layout.trace(SLATE, DIGITS), 0.5), (THINK_END + answer, 1.0)] if reasoning else [(answer, 1.0)]
        [example] = encode([[(layout.prompt(SLATE), 0.0), *said]], tokenizer)
        [prompt], [names] = encoded.prompts([SLATE]), encoded.names([SLATE])
        assert example.ids[: len(prompt)] == prompt and set(example.weights[: len(prompt)]) == {0.0}
        assert encoded.reader.read(example.ids[len(prompt) :], names, reasoning).order == (1, 0, 2)
        assert example.ids[-1] == tokenizer.eos_token_id and END not in tokenizer.decode(example.ids)


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("first", [True, False])
def test_titles_are_cut_before_history_and_the_last_items_stay(first):
    catalog = CATALOG.__class__(CATALOG.sids, ["word " * 15] * 8, CATALOG.categories)
    layout = ChatLayout(catalog, PromptParams(layout="chat", history=4, titles=True, candidates_first=first))
    prompt, cuts = layout.prompt(SLATE), Counter()
    whole = words(prompt)
    assert fitted(prompt, words, 0, cuts) == fitted(prompt, words, whole, cuts) == prompt and not cuts
    titles = fitted(prompt, words, whole - 10, cuts)
    assert words(titles) <= whole - 10 and cuts == {"prompts": 1, "titles": 7}
    shown = [sid for sid in layout.shown_sids(SLATE) if sid in titles]
    assert shown == layout.shown_sids(SLATE)
    history = fitted(prompt, words, words(fitted(prompt, words, 1, Counter())), cuts)
    assert cuts == {"prompts": 2, "titles": 14, "history": 1, "too_long": 0}
    assert [sid in history for sid in layout.shown_sids(SLATE)] == [False] + [True] * 6
    assert history.count("\n") == prompt.count("\n") - 1
    fitted(prompt, words, 1, cuts)
    assert cuts["too_long"] == 1, "counted, and no error"


def test_titles_longer_than_any_prompt_shows_are_counted():
    titles = ["none of this prompt " * 500, "y" * 10_000, "x" * 160, "…", "ab " * 4_000, *CATALOG.titles[5:]]
    layout = ChatLayout(Catalog(CATALOG.sids, titles, CATALOG.categories), PromptParams(layout="chat", history=3, titles=True))
    prompt, cuts = layout.prompt(SLATE), Counter()
    assert fitted(prompt, len, 0, cuts) == prompt and "y" * 159 + "…" in prompt and "x" * 160 in prompt
    assert cuts == {"endless_titles": 2}, "the second and the fifth"
    assert layout.unfounded(layout.trace(SLATE, DIGITS), SLATE) == []


def test_prompts_are_cut_by_the_tokens_of_the_model_that_reads_them():
    options = PromptParams(layout="chat", history=3, titles=True)
    catalog = CATALOG.__class__(CATALOG.sids, ["Ein sehr langer Titel ohne Ende und ohne Sinn"] * 8, CATALOG.categories)
    whole = len(EncodedLayout(ChatLayout(catalog, options), chat_tokenizer()).prompts([SLATE])[0])
    encoded = EncodedLayout(ChatLayout(catalog, options.model_copy(update={"max_tokens": whole - 20})), chat_tokenizer())
    assert len(encoded.prompts([SLATE])[0]) <= whole - 20
    assert encoded.cuts["prompts"] == 1 and encoded.cuts["too_long"] == 0
