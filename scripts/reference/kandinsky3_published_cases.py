"""Runs of the pipelines that the authors of Kandinsky 3 publish outside diffusers: inpainting, Flash (four steps), and
text to image with their own sampler. Written to test/fixtures/extra/kandinsky3-published.{safetensors,json}.

    git clone https://github.com/ai-forever/Kandinsky-3    # at ec1e9a9 or near
    pip install einops scikit-image
    python kandinsky3_published_cases.py --code Kandinsky-3 --fixtures ../../test/fixtures

The checkpoints are tiny in layers and not stored: weight number i of a file is torch.randn of the generator with seed
`seed + i`, times a power of two, plus 1 for the scales of norms; the JSON has names, shapes and factors. The text encoder and
the tokenizer are those of fixtures/checkpoints/kandinsky-3.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import T5EncoderModel, T5Tokenizer  # before torchvision's stand-in is there  # noqa: F401

UNETS = {"": 4, "_flash": 4, "_inpainting": 9}
WIDTH = 64  # of the text encoder's states
CONTEXT = 48


def stub_modules() -> None:
    """What the published code imports and these calls do not need, or need in the plainest form."""

    class ToTensor:
        def __call__(self, picture):
            array = np.asarray(picture)
            if array.ndim == 2:
                array = array[:, :, None]
            tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
            return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor

    transforms = types.ModuleType("torchvision.transforms")
    transforms.ToTensor, transforms.ToPILImage = ToTensor, lambda: (lambda image: image)
    vision = types.ModuleType("torchvision")
    vision.transforms = transforms
    omegaconf = types.ModuleType("omegaconf")
    omegaconf.OmegaConf = object
    sys.modules |= {"torchvision": vision, "torchvision.transforms": transforms, "omegaconf": omegaconf}


def fill(state: dict[str, torch.Tensor], seed: int) -> list:
    """Fills the tensors in place. Returns what makes them again: [name, shape, factor, offset]."""
    described = []
    for i, (name, tensor) in enumerate(state.items()):
        is_scale = tensor.ndim == 1 and name.endswith("weight")
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 64
        factor = 2.0 ** -round(math.log2(max(fan_in, 1)) / 2 + (2 if "context_mlp" in name or "out_layer.2" in name else 0))
        offset = 1 if is_scale else 0
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed + i))
        tensor.copy_(noise * factor + offset)
        described.append([name, list(tensor.shape), factor, offset])
    return described


def make_unet(code, channels: int):
    return code.UNet(
        model_channels=64, num_channels=channels, init_channels=32, time_embed_dim=64, context_dim=CONTEXT, groups=32,
        head_dim=64, expansion_ratio=4, compression_ratio=2, dim_mult=(1, 1, 2), num_blocks=(2, 2, 2),
        add_cross_attention=(False, True, True), add_self_attention=(False, True, True),
    )


def make_movq(code):
    return code.MoVQ({
        "double_z": False, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [32], "dropout": 0.0,
    })


class Recorder:
    """Keeps what the sampler has after every step."""

    def __init__(self, diffusion):
        self.steps = []
        posterior, clean = diffusion.p_sample, diffusion.get_x_start
        self.is_flash = False

        def p_sample(this, *args, **options):
            result = posterior(this, *args, **options)
            self.steps.append(result.clone())
            return result

        def get_x_start(this, *args):
            result = clean(this, *args)
            if self.is_flash:
                self.steps.append(result.clone())
            return result

        diffusion.p_sample, diffusion.get_x_start = p_sample, get_x_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--fixtures", type=Path, required=True)
    arguments = parser.parse_args()
    stub_modules()
    sys.path.insert(0, str(arguments.code))
    import kandinsky3 as code
    from kandinsky3 import condition_encoders
    from kandinsky3.model import diffusion

    # It is called with options that transformers 5 no longer has.
    condition_encoders.T5EncoderModel = types.SimpleNamespace(
        from_pretrained=lambda path, **_: T5EncoderModel.from_pretrained(path, dtype=torch.float32)
    )

    recorder = Recorder(diffusion.BaseDiffusion)
    source = arguments.fixtures / "checkpoints" / "kandinsky-3"
    report: dict = {"files": {}, "cases": {}}
    tensors: dict[str, torch.Tensor] = {}

    def describe(name: str, state: dict, seed: int) -> dict:
        report["files"][name] = {"seed": seed, "tensors": fill(state, seed)}
        return state

    movq = make_movq(code).eval()
    describe("movq.pt", movq.state_dict(), 1000)
    folder = Path(tempfile.mkdtemp())
    for part in ("text_encoder", "tokenizer"):
        for file in (source / part).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    def load(suffix: str, seed: int):
        unet = make_unet(code, UNETS[suffix]).eval()
        describe(f"kandinsky3{suffix}.pt", unet.state_dict(), seed)
        null = torch.empty(CONTEXT)
        describe(f"null_embedding{suffix}", {"null_embedding": null}, seed + 5000)
        processor = code.T5TextConditionProcessor(128, str(folder))
        encoder = code.T5TextConditionEncoder(str(folder), CONTEXT, dtype=torch.float32, device="cpu").eval()
        describe(f"projection{suffix}.pt", encoder.projection.state_dict(), seed + 6000)
        return unet, null, processor, encoder

    places = {part: "cpu" for part in ("unet", "text_encoder", "movq")}
    types_ = {part: torch.float32 for part in places}

    def record(name: str, call, pipeline, **inputs):
        recorder.steps.clear()
        recorder.is_flash = "flash" in name
        decoded = []
        decode = movq.decode
        pipeline.movq = types.SimpleNamespace(encode=movq.encode, decode=lambda x: decoded.append(decode(x)) or decoded[-1])
        torch.manual_seed(7)
        with torch.no_grad():
            pipeline(**call)
        for i, step in enumerate(recorder.steps):
            tensors[f"{name}.step.{i}"] = step
        tensors[f"{name}.image"] = torch.cat(decoded).div(2).add(0.5).clamp(0, 1).permute(0, 2, 3, 1).contiguous()
        plain = {key: value for key, value in call.items() if isinstance(value, (str, int, float))}
        report["cases"][name] = {"call": plain, "seed": 7, "steps": len(recorder.steps), **inputs}

    unet, null, processor, encoder = load("", 10_000)
    pipeline = code.Kandinsky3T2IPipeline(places, types_, unet, null, processor, encoder, movq, False)
    record("t2i", {"text": "a red cat", "width": 64, "height": 128, "steps": 4, "guidance_scale": 3.0}, pipeline)
    record("t2i-uneven", {"text": "a house", "width": 64, "height": 64, "steps": 7, "guidance_scale": 2.0}, pipeline)

    unet, null, processor, encoder = load("_flash", 20_000)
    pipeline = code.Kandinsky3T2IPipeline(places, types_, unet, null, processor, encoder, movq, True)
    record("flash", {"text": "a blue bird in the sky", "width": 128, "height": 64}, pipeline)

    unet, null, processor, encoder = load("_inpainting", 30_000)
    pipeline = code.Kandinsky3InpaintingPipeline(places, types_, unet, null, processor, encoder, movq)
    image = Image.open(arguments.fixtures / "images" / "shapes_64x128.png").convert("RGB")
    mask = np.zeros((image.height, image.width), dtype=np.float32)
    mask[8:40, 20:60] = 1
    record("inpaint", {"text": "a green hat", "image": image, "mask": mask, "steps": 4}, pipeline, image="shapes_64x128.png", mask=[8, 40, 20, 60])
    # Of a size that is resized, with a mask that is neither black nor white at its border then.
    resized = image.resize((100, 150), Image.BICUBIC)
    mask = np.zeros((150, 100), dtype=np.float32)
    mask[30:77, 11:52] = 1
    record("inpaint-resized", {"text": "a tree", "image": resized, "mask": mask, "steps": 5}, pipeline, image="shapes_64x128.png", size=[100, 150], mask=[30, 77, 11, 52])

    target = arguments.fixtures / "extra" / "kandinsky3-published"
    save_file({key: value.contiguous() for key, value in tensors.items()}, target.with_suffix(".safetensors"))
    target.with_suffix(".json").write_text(json.dumps(report) + "\n")


main()
