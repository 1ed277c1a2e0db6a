"""CLIP's byte-pair tokenizer, cut to the merges that the captions need: what it still knows, it splits as CLIP does."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import CLIPTokenizer

FULL = Path(__file__).parents[2] / "test/fixtures/tokenizers/clip-vit"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def english_words(count: int) -> list[str]:
    """Frequent words of CLIP's vocabulary, the most frequent first."""
    merged = ("".join(line.split()) for line in _full_merges())
    words = (token[:-4] for token in merged if token.endswith("</w>"))
    return [word for word in words if word.isascii() and word.isalpha() and len(word) > 2][:count]


def save_cut_tokenizer(words: set[str], folder: Path) -> CLIPTokenizer:
    """Writes the tokenizer files for a vocabulary of `words`; other words fall apart into pieces or letters.

    Keeping every merge that a word's full tokenization goes through, in the original order, keeps its tokens: the
    lowest-ranked pair of each step is the same in the cut list.
    """
    ranks = {tuple(line.split()): rank for rank, line in enumerate(_full_merges())}
    used = {pair for word in words for pair in _merges_of(word, ranks)}
    merges = [" ".join(pair) for pair in sorted(used, key=ranks.__getitem__)]
    full = json.loads((FULL / "vocab.json").read_text(encoding="utf-8"))
    letters = sorted(full, key=full.__getitem__)[:512]  # 256 bytes, then the same bytes as ends of words
    tokens = [*letters, *("".join(merge.split()) for merge in merges)]
    # The embedding table's rows need no multiple of anything, but special tokens come last, as in CLIP.
    vocabulary = {token: index for index, token in enumerate([*tokens, BOS, EOS])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (folder / name).write_bytes((FULL / name).read_bytes())
    return CLIPTokenizer.from_pretrained(folder)


def _full_merges() -> list[str]:
    return (FULL / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]


def _merges_of(word: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    pieces = [*word[:-1], word[-1] + "</w>"]
    used = []
    while len(pieces) > 1:
        pairs = list(zip(pieces, pieces[1:]))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        used.append(best)
        merged, position = [], 0
        while position < len(pieces):
            if tuple(pieces[position:position + 2]) == best:
                merged.append("".join(best))
                position += 2
            else:
                merged.append(pieces[position])
                position += 1
        pieces = merged
    return used
