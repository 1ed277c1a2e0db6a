"""The other side of text-to-image.mjs: Kandinsky 2.2's prior and decoder by diffusers, bfloat16 with channels-last on a CPU.

    python bench/torch_text_to_image.py eager|compiled SIZE

answers each line {"scheduler", "steps"} on its standard input with the seconds of a picture's parts. What would only cost
this side time is left out: the image encoder, which diffusers asks for one constant in every call, gives zeros at once.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
import torch._inductor.config
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    UnCLIPScheduler,
)
from torch_models import BUILD
from transformers import CLIPTokenizer

way, size = sys.argv[1], int(sys.argv[2])
TOKENIZER = Path(__file__).parent.parent / "test/fixtures/tokenizers/clip-vit"
BETAS = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS = {"ddpm": DDPMScheduler, "dpm++": DPMSolverMultistepScheduler}


def build(name):
    torch.set_default_dtype(torch.bfloat16)
    model = BUILD[name]().eval().to(memory_format=torch.channels_last)
    torch.set_default_dtype(torch.float32)
    return model


def build_pipelines():
    prior = KandinskyV22PriorPipeline(
        prior=build("prior"),
        image_encoder=None,
        text_encoder=build("text"),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=10.0),
        image_processor=None,
    )
    zeros = torch.zeros(1, 1280, dtype=torch.bfloat16)
    prior.get_zero_embed = lambda batch_size=1, device=None: zeros.repeat(batch_size, 1)
    decoder = KandinskyV22Pipeline(unet=build("unet"), scheduler=DDPMScheduler(**BETAS), movq=build("movq"))
    for pipe in (prior, decoder):
        pipe.set_progress_bar_config(disable=True)
    if way == "compiled":
        torch._inductor.config.freezing = True
        prior.prior.compile()
        decoder.unet.compile()
        decoder.movq.decode = torch.compile(decoder.movq.decode)
    return prior, decoder


def picture(prior, decoder, scheduler, steps):
    """Seconds of the parts: everything up to the embedding, a step of the decoder, everything after the last."""
    decoder.scheduler = SCHEDULERS[scheduler](**BETAS)
    marks = [time.perf_counter()]
    embeds = prior("red cat, 4k photo")
    marks.append(time.perf_counter())
    ends = []

    def note(_pipe, _step, _timestep, tensors):
        ends.append(time.perf_counter())
        return tensors

    decoder(**embeds, height=size, width=size, num_inference_steps=steps, callback_on_step_end=note)
    marks.append(time.perf_counter())
    return {"prior": marks[1] - marks[0], "step": (ends[-1] - marks[1]) / steps, "decode": marks[2] - ends[-1]}


def answer(value):
    print(json.dumps(value), flush=True)


@torch.no_grad()
def main():
    prior, decoder = build_pipelines()
    begin = time.perf_counter()
    picture(prior, decoder, "ddpm", 2)  # warms up, and compiles
    answer({"first": time.perf_counter() - begin})
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        answer(picture(prior, decoder, **json.loads(line)))
    answer({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10})


main()
