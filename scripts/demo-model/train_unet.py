"""UNet: the decoder's noise prediction on MoVQ latents, conditioned on the image embedding of the picture to draw.

A second one for inpainting starts from the first.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from diffusers import DDIMScheduler
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from data import Emoji
from models import CLIP_IMAGE_SIZE, IMAGE_SIZE, build_unet
from train_clip import augmented_for_decoder, clip_pictures, load_clip
from train_movq import load_movq
from training import Options, Trainer, load_trained, rank

BATCH = 32  # per process
VARIANTS = 4  # of every picture, encoded once before training
DROPPED_EMBEDDINGS = 0.1
EMBEDDING_NOISE = 0.15  # deviations: the prior's embeddings are not exactly those of pictures
SNR_LIMIT = 5.0  # min-SNR weights (arXiv:2303.09556): all noise levels learn at a similar pace


def make_scheduler() -> DDIMScheduler:
    """DDIM needs few steps and ignores the variance channels; the betas are those of the published 2.x decoders."""
    return DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear", beta_start=0.00085, beta_end=0.012,
                         clip_sample=False, set_alpha_to_one=True, steps_offset=0, timestep_spacing="trailing",
                         prediction_type="epsilon", thresholding=False)


@torch.no_grad()
def encode_variants(emoji: Emoji, options: Options) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents and image embeddings of variants of the concepts' pictures, `[concepts, VARIANTS, ...]`, and the null
    embedding: that of a zero image, as the pipelines take it where there is no negative prompt."""
    movq, (clip, _) = load_movq(emoji, options), load_clip(emoji, options)
    generator = torch.Generator().manual_seed(7)
    rgba = emoji.pictures[[concept.index for concept in emoji.concepts]]
    latents, embeddings = [], []
    for _ in range(VARIANTS):
        pictures = augmented_for_decoder(rgba, generator, IMAGE_SIZE).to(options.device)
        latents.append(torch.cat([movq.encode(p).latents for p in pictures.split(16)]))
        small = nn.functional.interpolate(pictures, (CLIP_IMAGE_SIZE, CLIP_IMAGE_SIZE), mode="area")
        embeddings.append(clip.image(pixel_values=clip_pictures(small)).image_embeds)
    zero_image = torch.zeros(1, 3, CLIP_IMAGE_SIZE, CLIP_IMAGE_SIZE, device=options.device)
    return torch.stack(latents, 1), torch.stack(embeddings, 1), clip.image(pixel_values=zero_image).image_embeds


def train_unet(emoji: Emoji, options: Options, minutes: float) -> None:
    _train("unet", build_unet(), emoji, options, minutes)


def train_inpaint_unet(emoji: Emoji, options: Options, minutes: float) -> None:
    """Goes on from the finished UNet with five more input channels: what is kept of the picture, and where."""
    model = build_unet(in_channels=9)
    if not (options.work / "unet-inpaint.pt").exists():
        weights = load_unet(options).state_dict()
        narrow = weights["conv_in.weight"]
        weights["conv_in.weight"] = torch.cat([narrow, torch.zeros(len(narrow), 5, 3, 3, device=narrow.device)], 1)
        model.load_state_dict(weights)
    _train("unet-inpaint", model, emoji, options, minutes)


def _train(name: str, model: nn.Module, emoji: Emoji, options: Options, minutes: float) -> None:
    cache = options.work / "latents.pt"
    if rank() == 0:
        torch.save(encode_variants(emoji, options), cache)
    if dist.is_initialized():
        dist.barrier()
    latents, embeddings, null = torch.load(cache, map_location=options.device)
    trainer = Trainer(name, model, options, minutes, learning_rate=2e-3, ema_decay=0.998, muon=True)
    signal = make_scheduler().alphas_cumprod.to(options.device)
    weights = (signal / (1 - signal)).reciprocal().mul(SNR_LIMIT).clamp(max=1)
    deck: list[int] = []  # every concept equally often

    def predict(noisy: torch.Tensor, times: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        # Attention over at most 64 + 32 tokens: on a CPU the plain form is faster than the fused one.
        with options.autocast(), sdpa_kernel(SDPBackend.MATH):
            return model(noisy, times, None, added_cond_kwargs={"image_embeds": conditions}, return_dict=False)[0].float()

    def loss() -> torch.Tensor:
        while len(deck) < BATCH:
            deck.extend(torch.randperm(len(latents)).tolist())
        concepts = torch.tensor([deck.pop() for _ in range(BATCH)])
        variants = torch.randint(VARIANTS, (BATCH,))
        clean, conditions = latents[concepts, variants], embeddings[concepts, variants]
        conditions = conditions + EMBEDDING_NOISE * torch.randn_like(conditions)
        dropped = torch.rand(BATCH, 1, device=options.device) < DROPPED_EMBEDDINGS
        conditions = torch.where(dropped, null, conditions)
        times = torch.randint(len(signal), (BATCH,), device=options.device)
        kept = signal[times, None, None, None]
        noise = torch.randn_like(clean)
        inputs = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        if model.config.in_channels == 9:
            mask = random_masks(clean)
            inputs = torch.cat([inputs, clean * mask, mask], 1)  # the order of KandinskyV22InpaintPipeline
        predicted = predict(inputs, times, conditions)
        errors = (predicted[:, :4] - noise).square().mean((1, 2, 3))
        return (errors * weights[times]).mean()

    trainer.run(loss)


def random_masks(latents: torch.Tensor) -> torch.Tensor:
    """1 where the picture is kept, 0 in a random rectangle, for a quarter of the pictures everywhere: `[n, 1, h, w]`."""
    count, _, height, width = latents.shape

    def inside(size: int) -> torch.Tensor:
        length = torch.randint(size // 4, size + 1, (count, 1), device=latents.device)
        start = (torch.rand(count, 1, device=latents.device) * (size + 1 - length)).long()
        position = torch.arange(size, device=latents.device)
        return (position >= start) & (position < start + length)

    repainted = inside(height)[:, :, None] & inside(width)[:, None, :]
    repainted |= torch.rand(count, 1, 1, device=latents.device) < 0.25
    return (~repainted)[:, None].float()


def load_unet(options: Options):
    return load_trained("unet", build_unet(), options)


def load_inpaint_unet(options: Options):
    return load_trained("unet-inpaint", build_unet(in_channels=9), options)
