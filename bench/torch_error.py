"""The other side of error.mjs: a random UNet of Kandinsky 2.2's size, its inputs, and torch's results as reference.

    python bench/torch_error.py FOLDER PIXELS

reads the UNet's configuration from FOLDER/config.json and writes a diffusers checkpoint with float16 weights,
inputs.json, and little-endian float32 files: sample, image_embeds, and the results in float32 and in bfloat16 with
channels-last.
"""

import json
import pathlib
import sys

import torch
from diffusers import UNet2DConditionModel

folder, pixels = pathlib.Path(sys.argv[1]), int(sys.argv[2])
latent = pixels // 8


def randomize(model):
    """As scripts/random-checkpoint.mjs: variance 1 / fan-in, gains near one, offsets near zero."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
        else:
            gain = "norm" in name and name.endswith("weight")
            parameter.normal_(1.0 if gain else 0.0, 0.1 if gain else 0.02)
        parameter.copy_(parameter.half())


def write(name, tensor):
    (folder / f"{name}.f32").write_bytes(tensor.float().contiguous().numpy().tobytes())


@torch.inference_mode()
def main():
    torch.manual_seed(0)
    model = UNet2DConditionModel.from_config(json.loads((folder / "config.json").read_text())).eval()
    randomize(model)
    sample, embeds = torch.randn(2, 4, latent, latent), torch.randn(2, 1280)

    def run(dtype):
        x = sample.to(dtype).contiguous(memory_format=torch.channels_last)
        return model(x, 500, None, added_cond_kwargs={"image_embeds": embeds.to(dtype)}).sample

    write("sample", sample)
    write("image_embeds", embeds)
    write("float32", run(torch.float32))
    model.to(torch.float16).save_pretrained(folder / "unet")
    model.to(torch.bfloat16).to(memory_format=torch.channels_last)
    write("bfloat16", run(torch.bfloat16))
    index = {"_class_name": "KandinskyV22Pipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "inputs.json").write_text(json.dumps({"latent": latent, "timestep": 500}))


main()
