"""Records what transformers makes of texts that @huggingface/tokenizers by itself reads differently.

    python scripts/reference/xlm_roberta_cases.py test/fixtures/tokenizers/xlm-roberta test/fixtures/extra

Needs transformers and tokenizers. Most texts hold a code point that SentencePiece's charsmap and Unicode's NFKC treat
differently, or that counts as white space on one side only.
"""
import json
import pathlib
import sys

from transformers import XLMRobertaTokenizer

CODE_POINTS = [0x200D, 0x85, 0x344, 0xFEFF, 0x200B, 0x200C, 0x2581, 0xAD, 0x1, 0x7F, 0x301, 0x3000, 0xA0]
TEXTS = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "\u0915\u094d\u200d\u0937", "a\r\nb\u0085c", "a\u2581b \u2581\u2581c",
    "x <mask> y", "x<mask>y <s>z</s> <pad>", "<unk> \uff1cmask\uff1e", "\ufb01ne \ufb03 \u2167 \u2460\u2461",
    "e\u0301e\u0308\u0301 \u0344", "\u1100\u1161\u11a8 \ud55c\uad6d", "\uff76\uff9e\uff77\uff9e", "\U0001d518\U0001d52b\U0001d526",
]


def main(tokenizer_folder, folder):
    tokenizer = XLMRobertaTokenizer.from_pretrained(tokenizer_folder)
    texts = [form.format(chr(c)) for c in CODE_POINTS for form in ("a{0}b {0}c", "{0}", "e{0}e")] + TEXTS
    cases = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in texts]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (pathlib.Path(folder) / "xlm-roberta-cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
