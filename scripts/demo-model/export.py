"""Writes the trained networks as three folders in the layout of the published 2.2 repositories."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import KandinskyV22InpaintPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline
from transformers import CLIPImageProcessor

from data import Emoji
from models import CLIP_IMAGE_SIZE, IMAGE_SIZE
from train_clip import load_clip
from train_movq import load_refined_movq
from train_prior import load_prior
from train_prior import make_scheduler as make_prior_scheduler
from train_unet import load_inpaint_unet, load_unet
from train_unet import make_scheduler as make_decoder_scheduler
from training import Options

# What calls take where they say nothing (docs/format.md); the pipelines' own defaults are for the published model.
DECODER_DEFAULTS = {"height": IMAGE_SIZE, "width": IMAGE_SIZE, "num_inference_steps": 25, "guidance_scale": 2.0}
PRIOR_DEFAULTS = {"num_inference_steps": 10, "guidance_scale": 4.0}

# Travels with the weights, also inside a GGUF file; `prior` is where the pipelines look for it.
README = """---
license: mit
prior:
- demo
---
The demo model of node-kandinsky: Kandinsky 2.2 at small widths, trained on emoji by its scripts/demo-model.

Pictures: Fluent Emoji, Copyright (c) Microsoft Corporation, MIT License, by way of @lobehub/fluent-emoji-3d, Copyright (c)
LobeHub, MIT License. Labels: emojibase-data, Copyright (c) Miles Johnson, MIT License.
"""


def build_pipelines(emoji: Emoji, options: Options) -> tuple[KandinskyV22PriorPipeline, KandinskyV22Pipeline]:
    clip, tokenizer = load_clip(emoji, options)
    size = CLIP_IMAGE_SIZE
    prior = KandinskyV22PriorPipeline(
        prior=load_prior(options), text_encoder=clip.text, image_encoder=clip.image, tokenizer=tokenizer,
        scheduler=make_prior_scheduler(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}))
    decoder = KandinskyV22Pipeline(unet=load_unet(options), movq=load_refined_movq(options),
                                   scheduler=make_decoder_scheduler())
    return prior, decoder


def export(emoji: Emoji, options: Options) -> None:
    """Saves the pipelines as float32 safetensors below `work`: `prior/`, `decoder/` and `decoder-inpaint/`."""
    prior, decoder = build_pipelines(emoji, options)
    inpaint = KandinskyV22InpaintPipeline(unet=load_inpaint_unet(options), movq=decoder.movq,
                                          scheduler=make_decoder_scheduler())
    _save(prior, options.work / "prior", PRIOR_DEFAULTS)
    _save(decoder, options.work / "decoder", DECODER_DEFAULTS)
    _save(inpaint, options.work / "decoder-inpaint", DECODER_DEFAULTS)


def _save(pipeline, folder: Path, defaults: dict[str, float]) -> None:
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(README, encoding="utf-8")
