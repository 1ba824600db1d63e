"""What is wrong with the prose of a teacher's answer, whatever its form: the prompt again, or another language."""

import re
import unicodedata
from collections import Counter

from stages.traces.teachers.asking import Question

REPEATED = 200  # characters of the prompt, one after the other, that no answer quotes
FOREIGN_LETTERS = 0.1  # of an answer's letters, in scripts that the prompt does not use
FUNCTION_WORDS = {
    "English": "the and of is to in it that this for with are was not because they user",
    "German": "der die das und ist nicht ein eine zu den von mit auf dem sich weil",
    "French": "le la les et est des un une dans que qui pour pas sur avec parce",
    "Spanish": "el los las es un una de en que por con para como porque pero",
    "Italian": "il lo gli di che un una per con non sono della perché anche ma",
    "Portuguese": "os um uma de em do da no na que por com para não porque mas",
}
FEWEST_WORDS = 8  # function words of a language other than English before it counts as one: short ones are words of many languages


def prose_fault(text: str, question: Question) -> str:
    """ "repeats_prompt" | "language" | "". The instruction is in English, so an answer in words is, too; titles may be in any language."""
    prompt = question.preface + question.prompt
    if _repeats(text, prompt):
        return "repeats_prompt"
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    foreign = sum(count for script, count in scripts.items() if script not in {_script(letter) for letter in prompt if letter.isalpha()})
    if foreign > FOREIGN_LETTERS * scripts.total():
        return "language"
    known = set(_words(prompt))
    counts = Counter(word for word in _words(text) if word not in known or word in FUNCTION_WORDS["English"].split())
    by_language = {language: sum(counts[word] for word in words.split()) for language, words in FUNCTION_WORDS.items()}
    most = max(by_language, key=lambda language: by_language[language])
    return "language" if most != "English" and by_language[most] >= FEWEST_WORDS else ""


def _repeats(text: str, prompt: str) -> bool:
    """Whether a piece of REPEATED characters of `prompt`, cut at every half of it, is in `text`."""
    step = REPEATED // 2
    return any(prompt[start : start + REPEATED] in text for start in range(0, len(prompt) - REPEATED + 1, step))


def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").partition(" ")[0]  # LATIN, CYRILLIC, CJK


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())  # single letters are candidates
