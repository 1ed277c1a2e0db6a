"""Writes the trained networks as two folders in the layout of the published 2.2 repositories."""

from __future__ import annotations

from pathlib import Path

from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline
from transformers import CLIPImageProcessor

from data import Emoji
from models import CLIP_IMAGE_SIZE
from train_clip import load_clip
from train_movq import load_refined_movq
from train_prior import load_prior
from train_prior import make_scheduler as make_prior_scheduler
from train_unet import load_unet
from train_unet import make_scheduler as make_decoder_scheduler
from training import Options


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
    """Saves both pipelines as float32 safetensors below `work`: `prior/` and `decoder/`."""
    prior, decoder = build_pipelines(emoji, options)
    prior.save_pretrained(options.work / "prior", safe_serialization=True)
    decoder.save_pretrained(options.work / "decoder", safe_serialization=True)
