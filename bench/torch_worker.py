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
from diffusers import Kandinsky3UNet, PriorTransformer, UNet2DConditionModel, VQModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import T5Config, T5EncoderModel

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


def prior(width):
    return PriorTransformer(num_attention_heads=32, attention_head_dim=64, num_layers=20, embedding_dim=width)


def unet(**conditioning):
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
        block_out_channels=(384, 768, 1152, 1536),
        layers_per_block=3,
        cross_attention_dim=768,
        attention_head_dim=64,
        resnet_time_scale_shift="scale_shift",
        **conditioning,
    )


def multilingual_clip():
    return MultilingualCLIP(
        MCLIPConfig(
            vocab_size=250002,
            hidden_size=1024,
            intermediate_size=4096,
            num_attention_heads=16,
            num_hidden_layers=24,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
    )


def movq(channels):
    return VQModel(
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=4,
        num_vq_embeddings=16384,
        norm_type="spatial",
        vq_embed_dim=4,
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
    )


BUILD = {
    "prior": lambda: prior(1280),
    "prior21": lambda: prior(768),
    "unet": lambda: unet(encoder_hid_dim=1280, encoder_hid_dim_type="image_proj", addition_embed_type="image"),
    "unet21": lambda: unet(
        encoder_hid_dim=1024, encoder_hid_dim_type="text_image_proj", addition_embed_type="text_image"
    ),
    "text21": multilingual_clip,
    "movq": lambda: movq((128, 256, 256, 512)),
    "unet3": lambda: Kandinsky3UNet(
        time_embedding_dim=1536,
        layers_per_block=3,
        block_out_channels=(384, 768, 1536, 3072),
        cross_attention_dim=4096,
        encoder_hid_dim=4096,
    ),
    "movq3": lambda: movq((256, 512, 512, 1024)),
    "t5": lambda: T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=256,
            d_ff=16384,
            num_heads=16,
            num_layers=4,
            feed_forward_proj="gated-silu",
        )
    ),
}


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
