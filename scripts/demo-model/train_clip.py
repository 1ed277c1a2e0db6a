"""CLIP: a text and an image encoder trained against each other on the concepts' captions and pictures."""

from __future__ import annotations

import torch
from torch import nn

from captions import CaptionWriter
from data import Emoji, composite, place
from models import CLIP_IMAGE_SIZE, EMBEDDING_DIM, build_image_encoder, build_text_encoder
from tokenizer import english_words, save_cut_tokenizer
from training import Options, Trainer, load_trained

BATCH = 96  # different concepts, so that every other pair of the batch is a true negative
VARIANTS = 24  # of every picture, made once before training
NOISE_WORDS = 8000
TRAINED_TOKENS = 28  # captions are cut here in training; later positions of the 77 copy the last trained one
PIXEL_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
PIXEL_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


class Clip(nn.Module):
    def __init__(self, vocabulary_size: int):
        super().__init__()
        self.text = build_text_encoder(vocabulary_size)
        self.image = build_image_encoder()
        self.log_scale = nn.Parameter(torch.tensor(2.7))


def prepare_captions(emoji: Emoji, options: Options, seed: int):
    """The caption writer, and the tokenizer cut to its vocabulary (written below `work`)."""
    writer = CaptionWriter(emoji.concepts, english_words(NOISE_WORDS), seed)
    return writer, save_cut_tokenizer(writer.vocabulary(), options.work / "tokenizer")


def tokenize(tokenizer, captions: list[str], device: str):
    return tokenizer(captions, padding="max_length", max_length=TRAINED_TOKENS, truncation=True,
                     return_tensors="pt").to(device)


def clip_pictures(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in -1..1 at the image encoder's size, normalised as its image processor does."""
    return ((pictures + 1) / 2 - PIXEL_MEAN.to(pictures.device)) / PIXEL_STD.to(pictures.device)


def augmented(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures as the image encoder may meet them: moved, turned, scaled, one in three on a coloured background."""
    count = len(rgba)
    background = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.3,
                             torch.rand(count, 3, 1, 1, generator=generator), torch.ones(1, 3, 1, 1))
    return composite(place(rgba, CLIP_IMAGE_SIZE, generator, (0.7, 1.05), 0.08, 12), background)


def augmented_for_decoder(rgba: torch.Tensor, generator: torch.Generator, size: int) -> torch.Tensor:
    """Pictures as the decoder shall draw them: on white, in nearly their own size and place."""
    return composite(place(rgba, size, generator, (0.96, 1.0), 0.008))


def train_clip(emoji: Emoji, options: Options, minutes: float) -> None:
    _, tokenizer = prepare_captions(emoji, options, seed=0)
    model = Clip(len(tokenizer))
    trainer = Trainer("clip", model, options, minutes, learning_rate=2e-3, weight_decay=0.05, muon=True)
    writer, _ = prepare_captions(emoji, options, trainer.seed)
    generator = torch.Generator().manual_seed(trainer.seed)
    rgba = emoji.pictures[[concept.index for concept in emoji.concepts]]
    prepared = torch.stack([augmented(rgba, generator) for _ in range(VARIANTS)], 1)
    targets = torch.arange(BATCH, device=options.device)

    def loss() -> torch.Tensor:
        chosen = torch.randperm(len(rgba), generator=generator)[:BATCH]
        pictures = prepared[chosen, torch.randint(VARIANTS, (BATCH,), generator=generator)].to(options.device)
        tokens = tokenize(tokenizer, [writer.write(int(concept)) for concept in chosen], options.device)
        with options.autocast():
            image = model.image(pixel_values=clip_pictures(pictures)).image_embeds.float()
            text = model.text(**tokens).text_embeds.float()
        scores = model.log_scale.exp().clamp(max=40) * nn.functional.normalize(text) @ nn.functional.normalize(image).T
        return (nn.functional.cross_entropy(scores, targets) + nn.functional.cross_entropy(scores.T, targets)) / 2

    trainer.run(loss, lambda: f"scale {float(model.log_scale.detach().exp()):.1f}")


def load_clip(emoji: Emoji, options: Options) -> tuple[Clip, object]:
    """The trained encoders and the tokenizer. Embeddings are scaled to unit deviation per element on average."""
    _, tokenizer = prepare_captions(emoji, options, seed=0)
    model = load_trained("clip", Clip(len(tokenizer)), options)
    pictures = composite(place(emoji.pictures[[concept.index for concept in emoji.concepts]], CLIP_IMAGE_SIZE,
                               torch.Generator().manual_seed(0)))
    tokens = tokenize(tokenizer, [concept.name for concept in emoji.concepts], options.device)
    with torch.no_grad():
        image = model.image(pixel_values=clip_pictures(pictures.to(options.device))).image_embeds
        text = model.text(**tokens).text_embeds
        model.image.visual_projection.weight.mul_(EMBEDDING_DIM ** 0.5 / image.norm(dim=1).mean())
        model.text.text_projection.weight.mul_(EMBEDDING_DIM ** 0.5 / text.norm(dim=1).mean())
        positions = model.text.text_model.embeddings.position_embedding.weight
        positions[TRAINED_TOKENS:] = positions[TRAINED_TOKENS - 1]
    return model, tokenizer
