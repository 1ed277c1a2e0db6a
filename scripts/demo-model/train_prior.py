"""Prior: a diffusion transformer from caption to image embedding, predicting the clean embedding (UnCLIP)."""

from __future__ import annotations

import torch
from diffusers import PriorTransformer, UnCLIPScheduler

from data import Emoji, composite
from models import EMBEDDING_DIM, build_prior
from train_clip import TRAINED_TOKENS, augmented_for_decoder, clip_pictures, load_clip, prepare_captions, tokenize
from training import Options, Trainer, load_trained

BATCH = 128
VARIANTS = 16  # of every picture; their embeddings are what the prior learns to draw from
DROPPED_CAPTIONS = 0.1
# Guidance extrapolates from the mean of all pictures and overshoots by up to its scale (4 by default). Training on
# overshot inputs as well makes the last steps come back to a real embedding.
LARGEST_OVERSHOOT = 4.0


def make_scheduler() -> UnCLIPScheduler:
    return UnCLIPScheduler(variance_type="fixed_small_log", num_train_timesteps=1000, clip_sample=True,
                           clip_sample_range=10.0, prediction_type="sample")


def embed_variants(emoji: Emoji, clip, device: str) -> torch.Tensor:
    """Image embeddings of slightly different versions of the concepts' pictures, `[concepts, VARIANTS, dim]`."""
    generator = torch.Generator().manual_seed(5)
    rgba = emoji.pictures[[concept.index for concept in emoji.concepts]]
    variants = []
    for _ in range(VARIANTS):
        pictures = augmented_for_decoder(rgba, generator, size=64).to(device)
        with torch.no_grad():
            variants.append(clip.image(pixel_values=clip_pictures(pictures)).image_embeds)
    return torch.stack(variants, 1)


def train_prior(emoji: Emoji, options: Options, minutes: float) -> None:
    clip, tokenizer = load_clip(emoji, options)
    clip.requires_grad_(False)
    embeddings = embed_variants(emoji, clip, options.device)
    model = _build_for_training(embeddings)
    trainer = Trainer("prior", model, options, minutes, learning_rate=2e-3, muon=True)
    writer, _ = prepare_captions(emoji, options, trainer.seed)
    signal = make_scheduler().alphas_cumprod.to(options.device)

    def loss() -> torch.Tensor:
        concepts = torch.randint(len(embeddings), (BATCH,))
        captions = ["" if torch.rand(()) < DROPPED_CAPTIONS else writer.write(int(c)) for c in concepts]
        tokens = tokenize(tokenizer, captions, options.device)
        with torch.no_grad():
            text = clip.text(**tokens)
        clean = embeddings[concepts, torch.randint(VARIANTS, (BATCH,))]
        clean = (clean - model.clip_mean) / model.clip_std
        times = torch.randint(len(signal), (BATCH,), device=options.device)
        overshoot = 1 + (LARGEST_OVERSHOOT - 1) * torch.rand(BATCH, 1, device=options.device)
        overshoot = torch.where(torch.rand(BATCH, 1, device=options.device) < 0.5, overshoot, torch.ones(()))
        kept = signal[times, None]
        noisy = kept.sqrt() * overshoot * clean + (1 - kept).sqrt() * torch.randn_like(clean)
        with options.autocast():
            predicted = model(noisy, times, proj_embedding=text.text_embeds, encoder_hidden_states=text.last_hidden_state,
                              attention_mask=tokens.attention_mask.bool()).predicted_image_embedding
        return (predicted.float() - clean).square().mean()

    trainer.run(loss)


def load_prior(options: Options) -> PriorTransformer:
    """The trained prior with all 77 text positions; the untrained ones copy the last trained one."""
    short = load_trained("prior", _build_for_training(), options)
    model = build_prior().to(options.device).eval().requires_grad_(False)
    weights = short.state_dict()
    text, rest = weights["positional_embedding"].split([TRAINED_TOKENS, model.additional_embeddings], dim=1)
    filling = text[:, -1:].expand(-1, model.config.num_embeddings - TRAINED_TOKENS, -1)
    weights["positional_embedding"] = torch.cat([text, filling, rest], 1)
    model.load_state_dict(weights)
    return model


def _build_for_training(embeddings: torch.Tensor | None = None) -> PriorTransformer:
    """Only as many text positions as captions have tokens: padding is masked anyway, and costs most of the time."""
    model = build_prior(TRAINED_TOKENS)
    model.clip_mean.requires_grad_(False)
    model.clip_std.requires_grad_(False)
    if embeddings is not None:
        flat = embeddings.reshape(-1, EMBEDDING_DIM)
        model.clip_mean.copy_(flat.mean(0, keepdim=True))
        model.clip_std.copy_(flat.std(0, keepdim=True))
    return model
