"""Records what Pillow makes of small images: test/fixtures/extra/image-cases.json.

Needs pillow and numpy. Resizing (every filter, up, down, one direction, with alpha, with reducing_gap, very tall) and
the conversion to gray. Images are stored as {mode, size: [width, height], data: base64}.

    python scripts/reference/image_cases.py
"""

import base64
import json
import pathlib

import numpy as np
import PIL
from PIL import Image

OUT = pathlib.Path(__file__).parents[2] / "test" / "fixtures" / "extra" / "image-cases.json"
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


def pack(image):
    return {"mode": image.mode, "size": image.size, "data": base64.b64encode(image.tobytes()).decode()}


def draw(rng, mode, width, height):
    """Noise with flat, dark and bright areas, so that clipping and rounding both happen."""
    array = rng.integers(0, 256, (height, width, CHANNELS[mode]), dtype=np.uint8)
    array[: height // 3, : width // 2] = 255
    array[height // 2 :, width // 2 :, 0] = 0
    return Image.fromarray(array.squeeze(-1) if mode == "L" else array, mode)


def main():
    rng = np.random.default_rng(22)
    inputs, cases = {}, []

    def add(name, sizes, filters, gaps=(None,)):
        for width, height in sizes:
            for resample in filters:
                for gap in gaps:
                    result = images[name].resize((width, height), Image.Resampling[resample.upper()], reducing_gap=gap)
                    cases.append({"input": name, "resample": resample, "reducingGap": gap, "output": pack(result)})

    images = {
        "rgb": draw(rng, "RGB", 37, 23),
        "gray": draw(rng, "L", 41, 30),
        "alpha": draw(rng, "RGBA", 24, 31),
        "tall": draw(rng, "L", 3, 400),
    }
    everything = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    add("rgb", [(16, 12), (50, 31), (37, 9), (11, 23)], everything)
    add("gray", [(13, 17), (64, 64), (1, 1)], everything)
    add("gray", [(13, 11), (6, 4), (10, 30), (3, 40)], ["bilinear", "bicubic", "lanczos"], [1.0, 2.0, 3.0])
    add("rgb", [(9, 7), (4, 30)], ["bicubic", "lanczos"], [1.0, 1.5])
    add("alpha", [(10, 10), (30, 40)], ["nearest", "bicubic", "lanczos"], [None, 1.0])
    add("tall", [(2, 37), (5, 500)], ["bicubic", "lanczos"], [None, 1.0])

    colours = Image.fromarray(rng.integers(0, 256, (16, 32, 3), dtype=np.uint8), "RGB")
    record = {
        "pillow": PIL.__version__,
        "inputs": {name: pack(image) for name, image in images.items()},
        "resize": cases,
        "gray": {"input": pack(colours), "output": pack(colours.convert("L"))},
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(record, separators=(",", ":")) + "\n")


main()
