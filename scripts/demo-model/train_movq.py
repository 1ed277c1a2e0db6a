"""MoVQ: a plain autoencoder, because the Kandinsky pipelines decode without the codebook.

Its latents are trained towards zero mean and unit deviation, and the rest is folded into the weights afterwards:
the pipelines apply no scaling factor.
"""

from __future__ import annotations

import torch
from torch import nn

from data import Emoji, composite, place
from models import IMAGE_SIZE, build_movq
from training import Options, Trainer, load_trained

# Luma and the two colour differences. Errors of colour cost little in RGB and would be learnt last.
YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
CHROMA_WEIGHT = 2.0
PATCH_SHARE = 0.6  # of the time on patches of half the size, which show more different pictures; then whole pictures


def train_movq(emoji: Emoji, options: Options, minutes: float) -> None:
    model = build_movq()
    trainer = Trainer("movq", model, options, minutes, learning_rate=1.5e-3, weight_decay=0.001)
    generator = torch.Generator().manual_seed(trainer.seed)
    favourites = torch.tensor([concept.index for concept in emoji.concepts])

    def reconstruct(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with options.autocast():
            latents = model.quant_conv(model.encoder(pictures))
            noisy = latents + 0.1 * torch.randn_like(latents)
            return model.decoder(model.post_quant_conv(noisy), noisy).float(), latents.float()

    def loss() -> torch.Tensor:
        pictures = _batch(emoji, favourites, generator, trainer.progress < PATCH_SHARE).to(options.device)
        output, latents = reconstruct(pictures)
        variance, mean = torch.var_mean(latents, dim=(0, 2, 3))
        moments = mean.square().mean() + (variance - 1).square().mean()
        return _difference(output, pictures, sharpen=min(1.0, trainer.progress / 0.25)) + 0.02 * moments

    def report() -> str:
        with trainer.averaged():
            mean, worst = reconstruction_quality(model, emoji, range(0, len(favourites), 16), options)
        return f"PSNR {mean:.1f} dB, worst {worst:.1f} dB"

    trainer.run(loss, report)


def refine_movq(emoji: Emoji, options: Options, minutes: float) -> None:
    """Trains the decoder alone on, for fixed latents: the UNet may already learn them."""
    model = load_movq(emoji, options)
    trained = [model.decoder, model.post_quant_conv]
    for module in trained:
        module.requires_grad_(True)
    trainer = Trainer("movq-refined", model, options, minutes, learning_rate=1e-3, weight_decay=0.001, muon=True)
    generator = torch.Generator().manual_seed(trainer.seed)
    rgba = emoji.pictures[[concept.index for concept in emoji.concepts]]

    def loss() -> torch.Tensor:
        chosen = torch.randint(len(rgba), (2,), generator=generator)
        pictures = composite(place(rgba[chosen], IMAGE_SIZE, generator, (0.93, 1.02), 0.02)).to(options.device)
        with options.autocast():
            latents = model.encode(pictures).latents.detach()
            noisy = latents + 0.15 * torch.randn_like(latents)  # the UNet's latents are not exact
            output = model.decoder(model.post_quant_conv(noisy), noisy).float()
        return _difference(output, pictures)

    def report() -> str:
        with trainer.averaged():
            mean, worst = reconstruction_quality(model, emoji, range(0, len(rgba), 16), options)
        return f"PSNR {mean:.1f} dB, worst {worst:.1f} dB"

    trainer.run(loss, report)


def load_refined_movq(options: Options):
    return load_trained("movq-refined", build_movq(), options)


@torch.no_grad()
def reconstruction_quality(model, emoji: Emoji, concepts, options: Options) -> tuple[float, float]:
    """Mean and worst PSNR of whole pictures on white, in decibels."""
    pictures = composite(emoji.pictures[[emoji.concepts[i].index for i in concepts]]).to(options.device)
    output = torch.cat([model.decode(model.encode(p).latents, force_not_quantize=True).sample for p in pictures.split(8)])
    errors = (output.clamp(-1, 1) - pictures).div(2).square().mean((1, 2, 3))
    decibels = -10 * errors.log10()
    return float(decibels.mean()), float(decibels.min())


def load_movq(emoji: Emoji, options: Options):
    """The trained model, with latents of exactly zero mean and unit deviation over the concepts' pictures."""
    model = load_trained("movq", build_movq(), options)
    pictures = composite(emoji.pictures[[concept.index for concept in emoji.concepts]]).to(options.device)
    with torch.no_grad():
        latents = torch.cat([model.encode(p).latents for p in pictures.split(16)])
        variance, mean = torch.var_mean(latents, dim=(0, 2, 3))
        _fold_normalisation(model, mean, variance.sqrt())
    return model


def _fold_normalisation(model, mean: torch.Tensor, deviation: torch.Tensor) -> None:
    """Makes latents `(z - mean) / deviation`; all that produces or reads them are 1x1 convolutions, so this is exact."""
    model.quant_conv.weight.div_(deviation[:, None, None, None])
    model.quant_conv.bias.sub_(mean).div_(deviation)
    readers = [model.post_quant_conv]
    for module in model.decoder.modules():  # the spatial norms see the latents too
        readers += [module.conv_y, module.conv_b] if hasattr(module, "conv_y") else []
    for reader in readers:
        reader.bias.add_(reader.weight[:, :, 0, 0] @ mean)
        reader.weight.mul_(deviation[None, :, None, None])


def _difference(output: torch.Tensor, pictures: torch.Tensor, sharpen: float = 1.0) -> torch.Tensor:
    """Squared and, with weight `sharpen`, absolute errors of colours and edges.

    Absolute errors make sharp pictures, but from the start they would hold the decoder at one flat colour.
    """
    error = torch.einsum("ck,nkhw->nchw", YCBCR.to(output.device), output - pictures)
    error = torch.cat([error[:, :1], error[:, 1:] * CHROMA_WEIGHT], 1)
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return 2 * error.square().mean() + sharpen * (error.abs().mean() + 0.5 * edges)


def _batch(emoji: Emoji, favourites: torch.Tensor, generator: torch.Generator, patches: bool) -> torch.Tensor:
    """Pictures of the concepts mostly; others on the side for variety, some on coloured backgrounds."""
    count = 8 if patches else 2
    favourite = favourites[torch.randint(len(favourites), (count,), generator=generator)]
    anything = torch.randint(len(emoji.pictures), (count,), generator=generator)
    chosen = torch.where(torch.rand(count, generator=generator) < 0.7, favourite, anything)
    background = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.2,
                             torch.rand(count, 3, 1, 1, generator=generator), torch.ones(1, 3, 1, 1))
    pictures = composite(place(emoji.pictures[chosen], IMAGE_SIZE, generator, (0.85, 1.1), 0.05, 5), background)
    if not patches:
        return pictures
    half = IMAGE_SIZE // 2
    corners = torch.randint(half + 1, (count, 2), generator=generator).tolist()
    return torch.stack([p[:, y:y + half, x:x + half] for p, (y, x) in zip(pictures, corners)])
