"""How a teacher is asked: an engine of token ids through its tokenizer, or a server in text."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from stages.shared.generation.base import ChatEngine, Completion, Engine, Message, Reply, Sampling
from stages.shared.generation.invocations import Invocation, Invocations
from stages.shared.slates.layouts.dialogue import rendered_prompt
from stages.shared.slates.layouts.marks import ASSISTANT, END, SYSTEM, THINK, USER


@dataclass(frozen=True)
class Question:
    """preface: what to do; prompt: the slate, with the marks of the layout. dialogue: both are one of the layout `chat`, whose marks turn
    into the teacher's own template whether it thinks or not. begun: the beginning of the reply, from which the teacher goes on; only an
    asker of token ids can have it do so."""

    slate: int
    preface: str
    prompt: str
    dialogue: bool = False
    begun: str = ""

    def messages(self) -> list[Message]:
        """Without the layout's marks of who speaks: those of the teacher's own template take their place."""
        content = self.prompt.removeprefix(USER).partition(ASSISTANT + THINK)[0]
        return [{"role": "system", "content": self.preface}, {"role": "user", "content": content}]


class Asker(Protocol):
    def ask(self, questions: Sequence[Question], sampling: Sampling, attempt: int) -> list[Reply]:
        """One reply a question; its text keeps the marks, and `finish` is "stop" where the teacher ended by itself."""
        ...


class TokenAsker:
    """name: of the engine, in the record of what was asked."""

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, record: Invocations, name: str):
        self.engine, self.tokenizer, self.record, self.name = engine, tokenizer, record, name

    def ask(self, questions: Sequence[Question], sampling: Sampling, attempt: int) -> list[Reply]:
        texts = [self.text(question) for question in questions]
        prompts = [list(self.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        begin = time.monotonic()
        # By the slate: so it draws the same whichever others are asked beside it.
        completions = self.engine.generate(prompts, sampling, places=[question.slate for question in questions])
        share = (time.monotonic() - begin) / max(1, len(prompts))
        replies = [self.reply(completion, len(prompt), share) for prompt, (completion,) in zip(prompts, completions, strict=True)]
        self.record.add([invocation(*row, attempt, self.name) for row in zip(questions, texts, replies, strict=True)])
        return replies

    def text(self, question: Question) -> str:
        """Through the chat template where the tokenizer has one; a dialogue needs one."""
        if question.dialogue:
            text = rendered_prompt(SYSTEM + question.preface + question.prompt, self.tokenizer)
        elif not self.tokenizer.chat_template:
            text = question.preface + question.prompt
        else:
            text = str(self.tokenizer.apply_chat_template(question.messages(), add_generation_prompt=True, tokenize=False))
        return text + question.begun

    def reply(self, completion: Completion, prompt_tokens: int, share: float) -> Reply:
        """share: seconds, where the engine does not know those of one request."""
        ids = completion.token_ids
        ended = bool(ids) and ids[-1] == self.tokenizer.eos_token_id
        text = str(self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False))
        finish, seconds = "stop" if ended else "length", completion.seconds or share
        return Reply(text, prompt_tokens, len(ids), tuple(completion.logprobs), completion.fault, finish, seconds)


class ChatAsker:
    def __init__(self, engine: ChatEngine, record: Invocations):
        self.engine, self.record = engine, record

    def ask(self, questions: Sequence[Question], sampling: Sampling, attempt: int) -> list[Reply]:
        conversations = [question.messages() for question in questions]
        # The layout's end is a text to a server, and it says no more that it saw it: finish is "stop" either way.
        replies = [reply for (reply,) in self.engine.chat(conversations, sampling, stop=[END])]
        texts = ["\n\n".join(f"{one['role']}: {one['content']}" for one in messages) for messages in conversations]
        self.record.add([invocation(*row, attempt, "endpoint, chat") for row in zip(questions, texts, replies, strict=True)])
        return replies


def invocation(question: Question, text: str, reply: Reply, attempt: int, engine: str) -> Invocation:
    finish = reply.fault or reply.finish
    counts = (reply.prompt_tokens, reply.completion_tokens, reply.seconds)
    return Invocation(question.slate, "teacher", f"attempt {attempt + 1}", 0, engine, text, reply.text, *counts, finish)
