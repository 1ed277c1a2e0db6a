"""A classifier that names pictures of the concepts. It never sees a generated picture and shares nothing with the model."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from data import Emoji, composite, place
from training import Options, Trainer, load_trained

SIZE = 64  # pixels
BATCH = 96
VARIANTS = 24  # of every picture in place and background, made once before training


class Judge(nn.Module):
    """A small residual network with batch normalisation, over RGB pictures in -1..1."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (32, 64, 128, 192)):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in zip((widths[0], *widths), widths))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = self.stem(functional.interpolate(pictures, (SIZE, SIZE), mode="area"))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.silu(self.first(x)))
        return functional.avg_pool2d(functional.silu(y + self.shortcut(x)), 2)


def train_judge(emoji: Emoji, options: Options, minutes: float) -> None:
    model = Judge(len(emoji.concepts))
    trainer = Trainer("judge", model, options, minutes, learning_rate=2e-3, weight_decay=0.05, muon=True)
    generator = torch.Generator().manual_seed(trainer.seed)
    rgba = emoji.pictures[[concept.index for concept in emoji.concepts]]

    placed = torch.stack([_placed(rgba, generator) for _ in range(VARIANTS)], 1)

    def loss() -> torch.Tensor:
        concepts = torch.randint(len(rgba), (BATCH,), generator=generator)
        variants = torch.randint(VARIANTS, (BATCH,), generator=generator)
        pictures = _distorted(placed[concepts, variants], generator).to(options.device)
        with options.autocast():
            scores = model(pictures)
        return functional.cross_entropy(scores.float(), concepts.to(options.device), label_smoothing=0.05)

    trainer.run(loss)


def load_judge(emoji: Emoji, options: Options) -> Judge:
    return load_trained("judge", Judge(len(emoji.concepts)), options)


def _placed(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Moved, turned and scaled versions on white or pale backgrounds."""
    background = 0.8 + 0.2 * torch.rand(len(rgba), 3, 1, 1, generator=generator)
    return composite(place(rgba, SIZE, generator, (0.75, 1.1), 0.06, 10), background)


def _distorted(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blurred, noisy and slightly recoloured versions."""
    count = len(pictures)

    def uniform(low: float, high: float, channels: int) -> torch.Tensor:
        return torch.rand(count, channels, 1, 1, generator=generator) * (high - low) + low

    blurred = functional.interpolate(functional.avg_pool2d(pictures, 2), (SIZE, SIZE), mode="bilinear")
    pictures = torch.lerp(pictures, blurred, uniform(0, 1, 1))
    pictures = pictures * uniform(0.85, 1.15, 3) + uniform(-0.08, 0.08, 1)
    return pictures + uniform(0, 0.15, 1) * torch.randn(pictures.shape, generator=generator)
