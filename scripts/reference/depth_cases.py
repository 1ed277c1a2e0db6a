"""Builds tiny random DPT checkpoints and records what transformers makes of them.

    pip install torch transformers safetensors pillow
    python depth_cases.py ../../test/fixtures

Writes to OUT/depth:

    dpt/, dpt-add/, dpt-ignore/    checkpoints in the Hugging Face layout, weights in float16, one per readout_type
    networks.safetensors           calls of the networks: "<case>/pixel_values", "<checkpoint>/<case>/predicted_depth",
                                   for the case odd-grid also "<checkpoint>/<case>/<module>"
    pipeline.safetensors           depth-estimation pipeline: "<picture>/<pixel_values | predicted_depth | depth>"
    bicubic.safetensors            torch's interpolate(mode='bicubic'): "<case>/<input | output>"
    sizes.json                     what the image processor resizes to

torchvision must not be installed: with it transformers takes another implementation of the image processor.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import DPTConfig, DPTForDepthEstimation, pipeline
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil, get_resize_output_image_size

SHARED = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
    "fusion_hidden_size": 16,
}
CHECKPOINTS = {
    # as Intel/dpt-large, but for the sizes
    "dpt": {
        "num_hidden_layers": 5,
        "backbone_out_indices": [0, 1, 3, 4],
        "neck_hidden_sizes": [8, 16, 24, 24],
        "reassemble_factors": [4, 2, 1, 0.5],
        "readout_type": "project",
    },
    # the levels do not double in size: what is skipped must be resized
    "dpt-add": {
        "num_hidden_layers": 3,
        "backbone_out_indices": [0, 1, 2],
        "neck_hidden_sizes": [8, 12, 16],
        "reassemble_factors": [3, 1, 0.5],
        "readout_type": "add",
        "use_bias_in_fusion_residual": False,
    },
    "dpt-ignore": {
        "num_hidden_layers": 2,
        "backbone_out_indices": [0, 1],
        "neck_hidden_sizes": [8, 12],
        "reassemble_factors": [2, 1],
        "readout_type": "ignore",
        "hidden_act": "silu",
    },
}
#: batch, height, width. The last grid is not square, which the reference's neck takes only when told the grid.
CASES = {"own-size": (2, 64, 64), "odd-grid": (1, 48, 48), "wide": (1, 64, 100)}
PICTURES = ("shapes_96x64", "gray_80x80", "tiny_40x30")
PROCESSOR = {
    "do_resize": True,
    "size": {"height": 64, "width": 64},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "keep_aspect_ratio": False,
    "ensure_multiple_of": 1,
}


def build(name, out):
    torch.manual_seed(sum(map(ord, name)))
    model = DPTForDepthEstimation(DPTConfig(**SHARED, **CHECKPOINTS[name])).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.dim() == 1:
                value.copy_(0.1 * torch.randn_like(value) + ("norm" in key and key.endswith("weight")))
            elif "embeddings" in key and "projection" not in key:
                value.copy_(0.5 * torch.randn_like(value))
            else:
                value.copy_(torch.randn_like(value) / value[0].numel() ** 0.5)
        model.head.head[4].bias.fill_(2)  # or else most of the depth is below zero, which the last ReLU cuts off
    model.half().save_pretrained(out / name)
    (out / name / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "DPTImageProcessor", **PROCESSOR}, indent=2) + "\n"
    )
    return model.float()


def is_recorded(name):
    return any(
        name.startswith(f"{stage}.layer") and name.removeprefix(f"{stage}.layer").lstrip("s.").isdigit()
        for stage in ("dpt.encoder", "neck.reassemble_stage", "neck.fusion_stage")
    )


def record(model, pixel_values, with_modules):
    tensors = {}
    hooks = [
        module.register_forward_hook(lambda _, inputs, output, name=name: tensors.update({name: output}))
        for name, module in model.named_modules()
        if with_modules and is_recorded(name)
    ]
    with torch.no_grad():
        states = model.dpt(pixel_values, output_hidden_states=True).hidden_states[1:]
        states = [states[index] for index in model.config.backbone_out_indices]
        grid = [side // model.config.patch_size for side in pixel_values.shape[2:]]
        tensors["predicted_depth"] = model.head(model.neck(states, *grid))
        if grid[0] == grid[1]:
            assert torch.equal(tensors["predicted_depth"], model(pixel_values).predicted_depth)
    for hook in hooks:
        hook.remove()
    return tensors


def record_networks(out):
    tensors = {}
    for name in CHECKPOINTS:
        model = build(name, out)
        for case, (batch, height, width) in CASES.items():
            torch.manual_seed(height + width)
            pixel_values = tensors[f"{case}/pixel_values"] = torch.randn(batch, 3, height, width)
            for key, value in record(model, pixel_values, case == "odd-grid").items():
                tensors[f"{name}/{case}/{key}"] = value.contiguous()
            depth = tensors[f"{name}/{case}/predicted_depth"]
            print(name, case, tuple(depth.shape), f"{depth.min():.3f} to {depth.max():.3f}", f"std {depth.std():.3f}")
    save_file(tensors, out / "networks.safetensors")


def record_pipeline(out, images):
    processor = DPTImageProcessorPil.from_pretrained(out / "dpt")
    estimate = pipeline(
        "depth-estimation", model=DPTForDepthEstimation.from_pretrained(out / "dpt"), image_processor=processor
    )
    estimate.model.float()
    tensors = {}
    for name in PICTURES:
        result = estimate(str(images / f"{name}.png"))
        picture = Image.open(images / f"{name}.png").convert("RGB")
        tensors[f"{name}/pixel_values"] = processor(picture, return_tensors="pt").pixel_values
        tensors[f"{name}/predicted_depth"] = result["predicted_depth"].contiguous()
        tensors[f"{name}/depth"] = torch.from_numpy(numpy.array(result["depth"]))
    save_file(tensors, out / "pipeline.safetensors")


def record_bicubic(out):
    torch.manual_seed(1)
    tensors = {}
    sizes = [((7, 5), (21, 10)), ((16, 16), (5, 11)), ((6, 9), (6, 9)), ((1, 3), (4, 7)), ((33, 20), (64, 150))]
    for before, after in sizes:
        name = "-".join("x".join(map(str, size)) for size in (before, after))
        tensors[f"{name}/input"] = torch.randn(1, 2, *before)
        tensors[f"{name}/output"] = torch.nn.functional.interpolate(
            tensors[f"{name}/input"], size=after, mode="bicubic", align_corners=False
        )
    save_file(tensors, out / "bicubic.safetensors")


def record_sizes(out):
    cases = []
    for height, width in ((64, 96), (480, 640), (1000, 333), (385, 385), (36, 100)):
        for keep, multiple in ((False, 1), (True, 1), (False, 32), (True, 32)):
            size = get_resize_output_image_size(numpy.zeros((3, height, width)), (384, 384), keep, multiple)
            config = {"size": {"height": 384, "width": 384}, "keep_aspect_ratio": keep, "ensure_multiple_of": multiple}
            cases.append({"height": height, "width": width, "config": config, "result": [size.height, size.width]})
    (out / "sizes.json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")


def main():
    fixtures = Path(sys.argv[1])
    out = fixtures / "depth"
    out.mkdir(exist_ok=True)
    record_networks(out)
    record_pipeline(out, fixtures / "images")
    record_bicubic(out)
    record_sizes(out)


if __name__ == "__main__":
    main()
