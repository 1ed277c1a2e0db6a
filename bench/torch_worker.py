"""The other side of bench.mjs: diffusers on torch, bfloat16 with channels-last on a CPU, float16 on a GPU."""

import json
import resource
import sys
import time

import torch
from diffusers import PriorTransformer, UNet2DConditionModel, VQModel

name, threads = sys.argv[1], int(sys.argv[2])
if threads:
    torch.set_num_threads(threads)
component, _, pixels = name.partition("-")
latent = int(pixels or 0) // 8
dtype = torch.bfloat16
torch.manual_seed(0)

BUILD = {
    "prior": lambda: PriorTransformer(num_attention_heads=32, attention_head_dim=64, num_layers=20, embedding_dim=1280),
    "unet": lambda: UNet2DConditionModel(
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
        encoder_hid_dim=1280,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
    ),
    "movq": lambda: VQModel(
        block_out_channels=(128, 256, 256, 512),
        layers_per_block=2,
        latent_channels=4,
        num_vq_embeddings=16384,
        norm_type="spatial",
        vq_embed_dim=4,
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
    ),
}


def build():
    """Parameters are created in bfloat16 straight away: the peak is what a user of bfloat16 sees."""
    torch.set_default_dtype(dtype)
    model = BUILD[component]().eval().to(memory_format=torch.channels_last)
    torch.set_default_dtype(torch.float32)
    return model


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float32).to(dtype)


def answer(value):
    print(json.dumps(value), flush=True)


@torch.inference_mode()
def main():
    started = time.perf_counter()
    model = build()
    answer({"load_ms": round(1000 * (time.perf_counter() - started))})
    if component == "prior":
        args = (noise(2, 1280), 500, noise(2, 1280), noise(2, 77, 1280), torch.ones(2, 77, dtype=torch.bool))
        step = lambda: model(*args)
    elif component == "unet":
        sample = noise(2, 4, latent, latent).to(memory_format=torch.channels_last)
        conditions = {"image_embeds": noise(2, 1280)}
        step = lambda: model(sample, 500, None, added_cond_kwargs=conditions)
    else:
        latents = noise(1, 4, latent, latent).to(memory_format=torch.channels_last)
        step = lambda: model.decode(latents, force_not_quantize=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        begin = time.perf_counter()
        step()
        answer({"ms": 1000 * (time.perf_counter() - begin)})
    answer({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024})


main()
