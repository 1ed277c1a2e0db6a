"""Records single steps of diffusers' DDPM, DDIM and UnCLIP schedulers for many combinations of settings.

    pip install diffusers torch numpy safetensors
    python scheduler_cases.py ../../test/fixtures/extra

Writes scheduler-cases.json (settings) and scheduler-cases.safetensors (values). All cases share the inputs `sample`,
`model_output`, `learned_variance` and `noise`; a case steps from the first, the middle and the last timestep of its
run, each time from the same `sample`. Row i of `prev_samples` and `pred_original_samples` belongs to case i.

fixed_large_log is missing: diffusers takes the square root of a logarithm there and returns NaN.
"""

import itertools
import json
import sys
from pathlib import Path

import diffusers
import numpy
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm, scheduling_unclip
from safetensors.torch import save_file

SHAPE = (2, 2, 1, 3)
LIMITS = {
    "none": {"clip_sample": False},
    "clip": {"clip_sample": True, "clip_sample_range": 1.2},
    "threshold": {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5},
}
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
SPACINGS = ("leading", "linspace", "trailing")
TRAINED_BETAS = [0.05, 0.1, 0.2, 0.3, 0.5]
STEP_COUNTS = (1, 2, 3, 7, 10, 25, 33, 61, 99, 100, 333, 640, 999, 1000)


def ddpm_cases():
    schedules = itertools.cycle(("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"))
    offsets = itertools.cycle((0, 1, 3))
    variance_types = ("fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range")
    for variance, prediction, spacing, limit in itertools.product(
        variance_types, PREDICTION_TYPES, SPACINGS, LIMITS
    ):
        config = {
            "beta_schedule": next(schedules),
            "variance_type": variance,
            "prediction_type": prediction,
            "timestep_spacing": spacing,
            "steps_offset": next(offsets),
            **LIMITS[limit],
        }
        yield {"config": config, "num_inference_steps": 7}
    yield {"config": {}, "timesteps": [900, 500, 499, 3]}
    yield {"config": {"trained_betas": TRAINED_BETAS, "num_train_timesteps": 5}, "num_inference_steps": 5}
    for prediction in ("sample", "v_prediction"):
        zero_snr = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": prediction}
        yield {"config": zero_snr, "num_inference_steps": 4}


def ddim_cases():
    schedules = itertools.cycle(("linear", "scaled_linear", "squaredcos_cap_v2"))
    alpha_to_one = itertools.cycle((True, False))
    offsets = itertools.cycle((0, 1, 3))
    for prediction, spacing, limit, eta, clipped in itertools.product(
        PREDICTION_TYPES, SPACINGS, LIMITS, (0.0, 0.6, 1.0), (False, True)
    ):
        config = {
            "beta_schedule": next(schedules),
            "set_alpha_to_one": next(alpha_to_one),
            "prediction_type": prediction,
            "timestep_spacing": spacing,
            "steps_offset": next(offsets),
            **LIMITS[limit],
        }
        yield {"config": config, "num_inference_steps": 7, "eta": eta, "use_clipped_model_output": clipped}
    trained = {"trained_betas": TRAINED_BETAS, "num_train_timesteps": 5}
    yield {"config": trained, "num_inference_steps": 2, "eta": 0.6, "use_clipped_model_output": False}
    zero_snr = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    yield {"config": zero_snr, "num_inference_steps": 4, "eta": 0.0, "use_clipped_model_output": False}


def unclip_cases():
    for variance, prediction, limit in itertools.product(
        ("fixed_small_log", "learned_range"), ("epsilon", "sample"), ("none", "clip")
    ):
        config = {"variance_type": variance, "prediction_type": prediction, **LIMITS[limit]}
        yield {"config": config, "num_inference_steps": 7}
        yield {"config": config, "num_inference_steps": 1000}


def run_case(name, case, inputs):
    """Three steps of one case: stacked prev_sample and pred_original_sample."""
    scheduler = getattr(diffusers, name)(**case["config"])
    if "timesteps" in case:
        scheduler.set_timesteps(timesteps=case["timesteps"])
    else:
        scheduler.set_timesteps(case["num_inference_steps"])
    timesteps = scheduler.timesteps.tolist()
    model_output = inputs["model_output"]
    if case["config"].get("variance_type") in ("learned", "learned_range"):
        model_output = torch.cat([model_output, inputs["learned_variance"]], dim=1)
    results = []
    for index in (0, len(timesteps) // 2, len(timesteps) - 1):
        arguments = {key: case[key] for key in ("eta", "use_clipped_model_output") if key in case}
        if name == "UnCLIPScheduler" and index + 1 < len(timesteps):
            arguments["prev_timestep"] = timesteps[index + 1]
        results.append(scheduler.step(model_output, timesteps[index], inputs["sample"], **arguments))
    case["class"] = name
    case["steps"] = [timesteps[0], timesteps[len(timesteps) // 2], timesteps[-1]]
    return (
        torch.stack([result.prev_sample for result in results]),
        torch.stack([result.pred_original_sample for result in results]),
    )


def beta_tables():
    for schedule, rescaled in itertools.product(
        ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"), (False, True)
    ):
        scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, rescale_betas_zero_snr=rescaled)
        yield f"alphas_cumprod.{schedule}{'.zero_snr' if rescaled else ''}", scheduler.alphas_cumprod


def timestep_table(spacing):
    scheduler = diffusers.DDPMScheduler(timestep_spacing=spacing)
    table = {}
    for count in STEP_COUNTS:
        scheduler.set_timesteps(count)
        table[count] = scheduler.timesteps.tolist()
    return table


def main(folder):
    generator = torch.Generator("cpu").manual_seed(7)
    inputs = {
        "sample": torch.randn(SHAPE, generator=generator) * 1.5,
        "model_output": torch.randn(SHAPE, generator=generator) * 1.5,
        # positive, so that it is a variance for "learned", too
        "learned_variance": torch.rand(SHAPE, generator=generator),
        "noise": torch.randn(SHAPE, generator=generator),
    }
    for module in (scheduling_ddpm, scheduling_ddim, scheduling_unclip):
        module.randn_tensor = lambda *_, **__: inputs["noise"]
    cases, results = [], []
    for name, source in (
        ("DDPMScheduler", ddpm_cases),
        ("DDIMScheduler", ddim_cases),
        ("UnCLIPScheduler", unclip_cases),
    ):
        for case in source():
            results.append(run_case(name, case, inputs))
            cases.append(case)
    prev_samples, pred_original_samples = (torch.stack(part) for part in zip(*results))
    for case, values in zip(cases, prev_samples):
        assert values.isfinite().all(), case
    tensors = {"prev_samples": prev_samples, "pred_original_samples": pred_original_samples}
    save_file({**inputs, **tensors, **dict(beta_tables())}, folder / "scheduler-cases.safetensors")
    description = {
        "versions": {module.__name__: module.__version__ for module in (diffusers, torch, numpy)},
        "timesteps": {spacing: timestep_table(spacing) for spacing in SPACINGS},
        "cases": cases,
    }
    (folder / "scheduler-cases.json").write_text(json.dumps(description, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    main(target)
