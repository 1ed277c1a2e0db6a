"""The other side of bench.mjs and scripts/test-gpu.sh: diffusers on torch with channels-last, bfloat16 on a CPU.

KANDINSKY_TORCH_DEVICE=cuda: float16 there. KANDINSKY_TORCH_COMPILE=1: by torch.compile, with weights that are packed once
(inductor's freezing); the first step compiles.
"""

import json
import os
import resource
import sys
import time

import torch
import torch._inductor.config
from torch_models import BUILD

name, threads = sys.argv[1], int(sys.argv[2])
rows = 2 * int(sys.argv[3]) if len(sys.argv) > 3 else 2  # of a guided step: two for every picture
if threads:
    torch.set_num_threads(threads)
network, _, size = name.partition("-")
latent = int(size or 0) // 8
device = os.environ.get("KANDINSKY_TORCH_DEVICE", "cpu")
dtype = torch.bfloat16 if device == "cpu" else torch.float16
torch.set_default_device(device)
torch.manual_seed(0)


def build():
    """Parameters are created in the small type straight away: the peak is what its user sees."""
    torch.set_default_dtype(dtype)
    model = BUILD[network]().eval().to(memory_format=torch.channels_last)
    torch.set_default_dtype(torch.float32)
    return model


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float32).to(dtype)


def answer(value):
    print(json.dumps(value), flush=True)


@torch.no_grad()  # which freezing needs
def main():
    started = time.perf_counter()
    model = build()
    answer({"load_ms": round(1000 * (time.perf_counter() - started))})
    width = 768 if network.endswith("21") else 1280
    if network.startswith("prior"):
        args = (noise(rows, width), 500, noise(rows, width), noise(rows, 77, width), torch.ones(rows, 77, dtype=torch.bool))
        step = lambda: model(*args)
    elif network == "unet3":
        sample = noise(rows, 4, latent, latent).to(memory_format=torch.channels_last)
        states, mask = noise(rows, 128, 4096), torch.stack([torch.zeros(128), torch.ones(128)]).repeat_interleave(rows // 2, 0)
        step = lambda: model(sample, 500, states, mask)
    elif network.startswith("unet"):
        sample = noise(rows, 4, latent, latent).to(memory_format=torch.channels_last)
        conditions = {"image_embeds": noise(rows, width)}
        states = None
        if network == "unet21":
            conditions["text_embeds"] = noise(rows, width)
            states = noise(rows, 77, 1024)
        step = lambda: model(sample, 500, states, added_cond_kwargs=conditions)
    elif network == "transformer5":
        side = latent // 2
        positions = [torch.arange(1), torch.arange(side), torch.arange(side)]
        args = (noise(1, 1, latent, latent, 16), noise(1, 130, 3584), torch.tensor([500.0]), noise(1, 768))
        call = lambda: model(*args, visual_rope_pos=positions, text_rope_pos=torch.arange(130), scale_factor=(1.0, 1.0, 1.0))
        step = lambda: [call() for _ in range(rows)]  # as the pipeline: one row a call
    elif network == "t5":
        ids, mask = torch.full((1, 128), 100), torch.zeros(1, 128, dtype=torch.int64)
        mask[:, : int(size)] = 1
        step = lambda: model(ids, mask)
    elif network == "text21":
        ids, mask = torch.full((2, 77), 100), torch.ones(2, 77, dtype=torch.int64)
        step = lambda: model(ids, mask)
    else:
        latents = noise(1, 4, latent, latent).to(memory_format=torch.channels_last)
        step = lambda: model.decode(latents, force_not_quantize=True)
    if os.environ.get("KANDINSKY_TORCH_COMPILE") == "1":
        torch._inductor.config.freezing = True
        step = torch.compile(step)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        begin = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        answer({"ms": 1000 * (time.perf_counter() - begin)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if device == "cpu" else torch.cuda.max_memory_allocated()
    answer({"peak_mb": peak >> 20})


main()
