"""Pictures and labels: Fluent 3D emoji (Microsoft, MIT; npm @lobehub/fluent-emoji-3d) named by emojibase-data (MIT)."""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models import IMAGE_SIZE

PACKAGES = {"pictures": "@lobehub/fluent-emoji-3d@1.1.0", "labels": "emojibase-data@17.0.0"}
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}


@dataclass
class Concept:
    """One emoji that the model learns to draw: a name for reports, all names used in captions, its picture's index."""

    name: str
    names: list[str]
    tags: list[str]
    index: int


@dataclass
class Emoji:
    """All pictures as premultiplied RGBA in 0..1, `[n, 4, 128, 128]`, and the concepts among them."""

    pictures: torch.Tensor
    concepts: list[Concept]


def load_emoji(work: Path) -> Emoji:
    """Fetches both packages from the npm registry where they are missing, and decodes every picture that has a label."""
    folders = {name: _fetch(package, work / name) for name, package in PACKAGES.items()}
    files = {path.stem.lower(): path for path in folders["pictures"].glob("assets/*.webp")}
    entries = {}
    for entry in json.loads((folders["labels"] / "en/data.json").read_text(encoding="utf-8")):
        key = _picture_key(entry["hexcode"].lower(), files)
        if key and not SKIN_TONES & set(key.split("-")):
            entries[entry["label"]] = (key, entry.get("tags", []))
    labels = list(entries)
    concepts = []
    for label, names in read_concepts():
        if label not in entries:
            raise ValueError(f"Expected an emojibase label in concepts.txt but received {label!r}")
        concepts.append(Concept(names[0], names, entries[label][1], labels.index(label)))
    return Emoji(_decode_all([files[key] for key, _ in entries.values()], work / "pictures.pt"), concepts)


def read_concepts() -> list[tuple[str, list[str]]]:
    """The emojibase label and the names of every concept in concepts.txt."""
    lines = (Path(__file__).parent / "concepts.txt").read_text(encoding="utf-8").splitlines()
    concepts = []
    for line in lines:
        if line and not line.startswith("#"):
            label, _, names = line.partition(":")
            concepts.append((label, [name.strip() for name in names.split(",")] if names else [label.lower()]))
    return concepts


def composite(rgba: torch.Tensor, background: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Premultiplied RGBA `[n, 4, h, w]` over a background (in 0..1, broadcast to `[n, 3, h, w]`), as RGB in -1..1."""
    return (rgba[:, :3] + (1 - rgba[:, 3:]) * background) * 2 - 1


def place(rgba: torch.Tensor, size: int, generator: torch.Generator, zoom: tuple[float, float] = (0.9, 1.0),
          shift: float = 0.03, degrees: float = 0.0) -> torch.Tensor:
    """Scales, moves and turns every picture at random onto a `size` x `size` canvas; `shift` is a share of the width."""
    count = len(rgba)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle, scale = uniform(-degrees, degrees) * torch.pi / 180, 1 / uniform(*zoom)
    rows = [torch.stack([scale * angle.cos(), -scale * angle.sin(), 2 * uniform(-shift, shift)], 1),
            torch.stack([scale * angle.sin(), scale * angle.cos(), 2 * uniform(-shift, shift)], 1)]
    if size < rgba.shape[-1]:
        rgba = torch.nn.functional.interpolate(rgba, (size, size), mode="area")
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), (count, 4, size, size), align_corners=False)
    return torch.nn.functional.grid_sample(rgba, grid, mode="bilinear", align_corners=False)


def _picture_key(code: str, files: dict[str, Path]) -> str | None:
    # emojibase and the file names differ in where they write the variation selector FE0F.
    candidates = (code, f"{code}-fe0f", code.replace("-fe0f", ""), code.replace("-200d", "-fe0f-200d", 1))
    return next((key for key in candidates if key in files), None)


def _fetch(package: str, folder: Path) -> Path:
    if not (folder / "package").exists():
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True)
        with tarfile.open(folder / packed.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package"


def _decode_all(paths: list[Path], cache: Path) -> torch.Tensor:
    if not cache.exists():
        decoded = []
        for path in paths:
            # Resizing unpremultiplied colours would bleed the colour of transparent pixels into the edges.
            picture = Image.open(path).convert("RGBA").convert("RGBa").resize((IMAGE_SIZE, IMAGE_SIZE), Image.LANCZOS)
            decoded.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        torch.save(torch.stack(decoded), cache)
    return torch.load(cache).float() / 255
