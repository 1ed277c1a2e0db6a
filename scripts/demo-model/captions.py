"""Captions for the concepts: names, keywords and colours in templates, among words that mean nothing here."""

from __future__ import annotations

import random
from collections import Counter

from data import Concept

COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "pink", "golden"}
TEMPLATES = """{x} | {x} | {x} | a {x} | a {x} | the {x} | one {x} | {x} emoji | an emoji of a {x} | {x} icon | an icon of a {x}
a photo of a {x} | a picture of a {x} | an image of a {x} | a drawing of a {x} | a painting of a {x} | a 3d render of a {x}
{x}, 3d render | {x} on a white background | a {x} on white | a small {x} | a big {x} | a cute {x} | a nice {x}
a close-up of a {x} | {x}, high quality | draw a {x} | show me a {x} | this is a {x} | a single {x} | a cartoon {x}
a beautiful {x} | my {x} | there is a {x} | a shiny {x} | {x}, digital art | a simple {x}""".replace("\n", " | ").split(" | ")
COLOUR_PHRASES = ["{noun} in {colour}", "{noun}, {colour}", "{colour} colored {noun}", "{noun} that is {colour}",
                  "{colour} {noun}", "{colour}, {noun}"]
# Never seen in training: evaluate.py asks with these whether a paraphrase is understood.
UNSEEN_TEMPLATES = ["please paint me a {x}", "I would like to see a lovely {x}", "a sticker with a {x} for my website",
                    "{x}, sharp focus, studio lighting", "could you make a glossy {x}?"]


class CaptionWriter:
    """Writes random captions. `noise_words` are English words; those that name a concept are left out."""

    def __init__(self, concepts: list[Concept], noise_words: list[str], seed: int):
        self.random = random.Random(seed)
        self.names = [_name_phrases(concept) for concept in concepts]
        self.tags = _unambiguous_tags(concepts)
        meaningful = {word for phrases in self.names + self.tags for phrase in phrases for word in phrase.split()}
        unseen = {word for template in UNSEEN_TEMPLATES for word in template.lower().replace("?", "").split()}
        self.noise_words = [word for word in noise_words if word not in meaningful | unseen]

    def vocabulary(self) -> set[str]:
        """Every word that a caption can hold, noise aside."""
        lines = [phrase for phrases in self.names + self.tags for phrase in phrases] + TEMPLATES + COLOUR_PHRASES
        return {word for line in lines for word in line.lower().replace(",", " ").replace("-", " ").split() if "{" not in word}

    def write(self, concept: int, noise: bool = True) -> str:
        tags = self.tags[concept] if self.random.random() < 0.25 else []
        phrase = self.random.choice(tags or self.names[concept])
        if self.random.random() < 0.1:
            caption = f"{phrase}, {self.random.choice(self.names[concept])}"
        else:
            caption = fill(self.random.choice(TEMPLATES), phrase)
        if noise and self.random.random() < 0.4:
            caption = self._with_noise(caption, phrase)
        return caption

    def _with_noise(self, caption: str, phrase: str) -> str:
        """Unknown words around the phrase, so that they are ignored instead of leading astray."""
        before = " ".join(self.random.choices(self.noise_words, k=self.random.randint(0, 3)))
        after = " ".join(self.random.choices(self.noise_words, k=self.random.randint(0, 2)))
        inner = self.random.choice(self.noise_words)
        caption = caption.replace(phrase, f"{inner} {phrase}", 1) if self.random.random() < 0.4 else caption
        return f"{before} {caption} {after}".strip()


def fill(template: str, phrase: str) -> str:
    """The phrase in the template, with the right article."""
    text = f" {template} ".replace("{x}", phrase)
    if phrase[0] in "aeiou":
        text = text.replace(f" a {phrase}", f" an {phrase}")
    return text.strip()


def _name_phrases(concept: Concept) -> list[str]:
    phrases = []
    for name in concept.names:
        phrases += [name.lower()] * 4
        colour, _, noun = name.lower().partition(" ")
        if colour in COLOURS and noun and noun != "fruit":
            phrases += [phrase.format(colour=colour, noun=noun) for phrase in COLOUR_PHRASES]
    return phrases


def _unambiguous_tags(concepts: list[Concept]) -> list[list[str]]:
    """The keywords of each concept that no other concept has as a keyword or as part of a name."""
    owners = Counter()
    for concept in concepts:
        words = {word for name in concept.names for word in name.lower().split()} | {name.lower() for name in concept.names}
        owners.update(words | {tag.lower() for tag in concept.tags})
    return [[tag.lower() for tag in concept.tags if owners[tag.lower()] == 1 and len(tag) > 2 and tag.isascii()] for concept in concepts]
