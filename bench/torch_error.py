"""The other side of error.mjs: a random full-size UNet, its inputs, and torch's results as reference.

    python bench/torch_error.py FOLDER PIXELS

reads the UNet's class and configuration from FOLDER/config.json and writes a diffusers checkpoint with float16 weights,
inputs.json (name and shape of every input), and little-endian float32 files: the inputs, and the results in float32 and
in bfloat16 with channels-last.
"""

import json
import pathlib
import sys

import diffusers
import torch

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


def inputs_of(config):
    """A guided step's inputs: the unconditional half first."""
    inputs = {"sample": torch.randn(2, 4, latent, latent), "timestep": torch.tensor([500.0])}
    if config["_class_name"] == "Kandinsky3UNet":
        tokens = 32
        inputs["encoder_hidden_states"] = torch.randn(2, tokens, config["encoder_hid_dim"])
        # without a negative prompt, Kandinsky 3's unconditional half has zeros, all masked
        inputs["encoder_hidden_states"][0] = 0
        inputs["encoder_attention_mask"] = torch.tensor([[0.0], [1.0]]).expand(2, tokens)
    else:
        inputs["image_embeds"] = torch.randn(2, 1280)
    return inputs


def run(model, inputs, dtype):
    sample = inputs["sample"].to(dtype).contiguous(memory_format=torch.channels_last)
    timestep = inputs["timestep"][0]
    if "image_embeds" in inputs:
        condition = {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": inputs["image_embeds"].to(dtype)}}
    else:
        condition = {
            "encoder_hidden_states": inputs["encoder_hidden_states"].to(dtype),
            "encoder_attention_mask": inputs["encoder_attention_mask"].to(dtype),
        }
    return model(sample, timestep, **condition).sample


@torch.inference_mode()
def main():
    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text())
    model = getattr(diffusers, config["_class_name"]).from_config(config).eval()
    randomize(model)
    inputs = inputs_of(config)
    for name, tensor in inputs.items():
        write(name, tensor)
    write("float32", run(model, inputs, torch.float32))
    model.to(torch.float16).save_pretrained(folder / "unet")
    model.to(torch.bfloat16).to(memory_format=torch.channels_last)
    write("bfloat16", run(model, inputs, torch.bfloat16))
    index = {"unet": ["diffusers", config["_class_name"]]}
    index["_class_name"] = "Kandinsky3Pipeline" if config["_class_name"] == "Kandinsky3UNet" else "KandinskyV22Pipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "inputs.json").write_text(json.dumps({name: list(tensor.shape) for name, tensor in inputs.items()}))


main()
