"""Measures whether generated pictures show what the prompt names. Run after train.py, with the same --work:

    python evaluate.py --work W prompts                 writes W/prompts.json
    python evaluate.py --work W generate W/torch        pictures by diffusers; generate.mjs makes them with this package
    python evaluate.py --work W judge W/torch ...       a table: share of pictures that the judge names correctly
    python evaluate.py --work W sheet W/torch out.png   a contact sheet of the first picture of every concept
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captions import UNSEEN_TEMPLATES, CaptionWriter, fill
from data import composite, load_emoji
from judge import load_judge
from models import IMAGE_SIZE
from training import Options

KINDS = {"name": "the plain name", "trained": "captions as in training", "unseen": "paraphrases never trained"}


def write_prompts(arguments: argparse.Namespace, emoji, _: Options) -> None:
    """Three prompts for every concept, one of each kind."""
    writer = CaptionWriter(emoji.concepts, [], seed=4)
    prompts = []
    for index, concept in enumerate(emoji.concepts):
        name = concept.names[index % len(concept.names)].lower()
        texts = {"name": fill("a {x}", concept.name.lower()), "trained": writer.write(index, noise=False),
                 "unseen": fill(UNSEEN_TEMPLATES[index % len(UNSEEN_TEMPLATES)], name)}
        prompts += [{"prompt": text, "concept": index, "kind": kind} for kind, text in texts.items()]
    (arguments.work / "prompts.json").write_text(json.dumps(prompts, indent=1), encoding="utf-8")


@torch.no_grad()
def generate(arguments: argparse.Namespace, emoji, options: Options) -> None:
    """Pictures for all prompts and seeds by diffusers, through text encoder, prior and decoder."""
    from export import DECODER_DEFAULTS, PRIOR_DEFAULTS, build_pipelines

    prior, decoder = (pipeline.to(options.device) for pipeline in build_pipelines(emoji, options))
    for pipeline in (prior, decoder):
        pipeline.set_progress_bar_config(disable=True)
    prompts = read_prompts(arguments)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(prompts), 32):
        batch = prompts[start:start + 32]
        for seed in range(arguments.seeds):
            generator = torch.Generator().manual_seed(seed * 100_000 + start)
            embeds = prior([entry["prompt"] for entry in batch], **PRIOR_DEFAULTS, generator=generator)
            images = decoder(image_embeds=embeds.image_embeds, negative_image_embeds=embeds.negative_image_embeds,
                             **DECODER_DEFAULTS, generator=generator).images
            for entry, image in zip(batch, images):
                image.save(arguments.folder / f"{entry['number']:04}-{seed}.png")


@torch.no_grad()
def judge(arguments: argparse.Namespace, emoji, options: Options) -> None:
    """Prints top-1 (and top-5) shares for every folder and kind of prompt, and the prompts that fail most."""
    classifier = load_judge(emoji, options)
    originals = composite(emoji.pictures[[concept.index for concept in emoji.concepts]])
    known = classifier(originals).argmax(1) == torch.arange(len(originals))
    print(f"The judge names {known.float().mean():.1%} of the {len(known)} original pictures.")
    print("| pictures | " + " | ".join(KINDS.values()) + " | all, top-1 | top-5 | pictures judged |")
    print("|---" * (len(KINDS) + 4) + "|")
    for folder in arguments.folders:
        hits, top5, misses = {kind: [] for kind in KINDS}, [], []
        for entry in read_prompts(arguments):
            for path in sorted(folder.glob(f"{entry['number']:04}-*.png")):
                best = classifier(read_picture(path)[None])[0].topk(5).indices.tolist()
                hits[entry["kind"]].append(best[0] == entry["concept"])
                top5.append(entry["concept"] in best)
                if not hits[entry["kind"]][-1]:
                    misses.append(f"{entry['prompt']} -> {emoji.concepts[best[0]].name}")
        every = [hit for kind in hits.values() for hit in kind]
        shares = [np.mean(values) if values else float("nan") for values in (*hits.values(), every, top5)]
        print(f"| {folder.name} | " + " | ".join(f"{share:.1%}" for share in shares) + f" | {len(every)} |")
        if arguments.misses:
            print(*misses, sep="\n")


def sheet(arguments: argparse.Namespace, emoji, _: Options) -> None:
    """All concepts in rows of `columns`, drawn for their plain names with the first seed."""
    pictures = [Image.open(arguments.folder / f"{entry['number']:04}-0.png").convert("RGB")
                for entry in read_prompts(arguments) if entry["kind"] == "name"]
    rows = -(-len(pictures) // arguments.columns)
    canvas = Image.new("RGB", (arguments.columns * IMAGE_SIZE, rows * IMAGE_SIZE), "white")
    for position, picture in enumerate(pictures):
        canvas.paste(picture, (position % arguments.columns * IMAGE_SIZE, position // arguments.columns * IMAGE_SIZE))
    width = arguments.columns * arguments.cell
    canvas.resize((width, rows * arguments.cell), Image.LANCZOS).save(arguments.output, optimize=True)


def read_prompts(arguments: argparse.Namespace) -> list[dict]:
    prompts = json.loads((arguments.work / "prompts.json").read_text(encoding="utf-8"))
    for number, entry in enumerate(prompts):
        entry["number"] = number
    return [entry for entry in prompts if not arguments.kinds or entry["kind"] in arguments.kinds]


def read_picture(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder that train.py wrote")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), help="only prompts of these kinds")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prompts")
    command.set_defaults(run=write_prompts)
    command = commands.add_parser("generate")
    command.add_argument("folder", type=Path)
    command.add_argument("--seeds", type=int, default=2)
    command.set_defaults(run=generate)
    command = commands.add_parser("judge")
    command.add_argument("folders", type=Path, nargs="+")
    command.add_argument("--misses", action="store_true", help="list every prompt that the judge names differently")
    command.set_defaults(run=judge)
    command = commands.add_parser("sheet")
    command.add_argument("folder", type=Path)
    command.add_argument("output", type=Path)
    command.add_argument("--columns", type=int, default=18)
    command.add_argument("--cell", type=int, default=80, help="pixels per picture")
    command.set_defaults(run=sheet)
    arguments = parser.parse_args()
    arguments.run(arguments, load_emoji(arguments.work), Options(arguments.work, "cpu"))


if __name__ == "__main__":
    main()
