"""Records runs of the diffusers schedulers that people swap in, for many combinations of settings.

    pip install diffusers torch numpy safetensors
    python swap_scheduler_cases.py ../../test/fixtures/extra

Writes swap-scheduler-cases.json (settings, timesteps) and swap-scheduler-cases.safetensors (samples). A run begins at
`start` (default 0) from `sample` times init_noise_sigma, calls scale_model_input, and takes as the network's output at
call i

    0.8 * scaled + 0.6 * patterns[i % 8]

so that a wrong scale or a wrong order of calls changes everything after it. Noise at call i is noises[i % 8]. The runs'
prev_samples follow each other in one tensor. `schedules` has timesteps and sigmas of long runs, `converted` what
from_config makes of another class's config, `add_noise` the forward process at each timestep of a run.
"""

import itertools
import json
import sys
import warnings
from pathlib import Path

import diffusers
import numpy
import torch
from diffusers.schedulers import (
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
    scheduling_lcm,
)
from safetensors.torch import save_file

SHAPE = (2, 2, 1, 2)
SPACINGS = ("linspace", "leading", "trailing")
SPACED = ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True})
FINALS = ("zero", "sigma_min")
KANDINSKY = {"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
#: Kandinsky 3's. Predicted noise at its last timesteps says nothing of the clean sample: the reference divides by a
#: signal of 5e-5, and solvers that extrapolate noise lose all but four digits there, so few cases begin at the end.
COSINE = {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading", "steps_offset": 1}
TRAINED = {"trained_betas": [0.05, 0.1, 0.2, 0.3, 0.5], "num_train_timesteps": 5}
#: as published for Kandinsky 2.2 and 2.1, without the keys that say the defaults of their time
STORED = {
    "DDPMScheduler": {**KANDINSKY, "clip_sample": True, "prediction_type": "epsilon", "variance_type": "fixed_small"},
    "DDIMScheduler": {**KANDINSKY, "clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading"},
}


def euler_cases():
    schedules = itertools.cycle(("linear", "scaled_linear", "squaredcos_cap_v2"))
    for prediction, spacing, spaced, final in itertools.product(
        ("epsilon", "sample", "v_prediction"), SPACINGS, SPACED, FINALS
    ):
        config = {"prediction_type": prediction, "timestep_spacing": spacing, "final_sigmas_type": final, **spaced}
        yield {"config": {**config, "beta_schedule": next(schedules)}, "steps": 5}
    yield {"config": {"interpolation_type": "log_linear", **KANDINSKY}, "steps": 5}
    yield {"config": {"interpolation_type": "log_linear", "use_karras_sigmas": True}, "steps": 5}
    yield {"config": {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0}, "steps": 5}
    yield {"config": {"use_exponential_sigmas": True, "sigma_min": 0.1, "sigma_max": 900.0}, "steps": 5}
    continuous = {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True}
    yield {"config": continuous, "steps": 5}
    yield {"config": {"timestep_type": "continuous"}, "steps": 3}
    for prediction in ("epsilon", "v_prediction"):
        yield {"config": {**ZERO_SNR, "prediction_type": prediction}, "steps": 4}
    for churn in (
        {"s_churn": 2.0},
        {"s_churn": 30.0, "s_tmin": 0.5, "s_tmax": 9.0, "s_noise": 1.003},
    ):
        for prediction in ("epsilon", "sample", "v_prediction"):
            yield {"config": {**KANDINSKY, "prediction_type": prediction}, "steps": 6, "options": churn}
    yield {"config": TRAINED, "steps": 3}
    yield {"config": KANDINSKY, "steps": 30}
    yield {"config": KANDINSKY, "steps": 10, "start": 4}
    yield {"config": KANDINSKY, "steps": 1}


def euler_ancestral_cases():
    schedules = itertools.cycle(("linear", "scaled_linear", "squaredcos_cap_v2"))
    for prediction, spacing in itertools.product(("epsilon", "v_prediction"), SPACINGS):
        config = {"prediction_type": prediction, "timestep_spacing": spacing, "beta_schedule": next(schedules)}
        yield {"config": {**config, "steps_offset": 1}, "steps": 6}
    for prediction in ("epsilon", "v_prediction"):
        yield {"config": {**ZERO_SNR, "prediction_type": prediction}, "steps": 4}
    yield {"config": TRAINED, "steps": 3}
    yield {"config": KANDINSKY, "steps": 30}
    yield {"config": KANDINSKY, "steps": 10, "start": 4}
    yield {"config": KANDINSKY, "steps": 1}


def heun_cases():
    schedules = itertools.cycle(("linear", "scaled_linear", "squaredcos_cap_v2", "exp"))
    limits = itertools.cycle(({}, {"clip_sample": True, "clip_sample_range": 1.2}))
    for prediction, spacing, spaced in itertools.product(("epsilon", "sample", "v_prediction"), SPACINGS, SPACED):
        config = {"prediction_type": prediction, "timestep_spacing": spacing, **spaced, **next(limits)}
        yield {"config": {**config, "beta_schedule": next(schedules)}, "steps": 5}
    yield {"config": TRAINED, "steps": 3}
    yield {"config": KANDINSKY, "steps": 20}
    yield {"config": KANDINSKY, "steps": 10, "start": 8}
    yield {"config": KANDINSKY, "steps": 1}


def dpmsolver_cases():
    schedules = itertools.cycle(("linear", "scaled_linear"))
    spacings = itertools.cycle(SPACINGS)
    predictions = itertools.cycle(("epsilon", "sample", "v_prediction", "epsilon"))
    limits = itertools.cycle(({}, {}, THRESHOLD))
    algorithms = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")
    for algorithm, order, solver, final in itertools.product(algorithms, (1, 2, 3), ("midpoint", "heun"), FINALS):
        if (not algorithm.endswith("++") and final == "zero") or (algorithm == "sde-dpmsolver" and order == 3):
            continue
        config = {
            "algorithm_type": algorithm,
            "solver_order": order,
            "solver_type": solver,
            "final_sigmas_type": final,
            "prediction_type": next(predictions),
            "timestep_spacing": next(spacings),
            "beta_schedule": next(schedules),
            **next(limits),
        }
        yield {"config": config, "steps": 6}
    for spaced, final, algorithm in itertools.product(SPACED[1:], FINALS, ("dpmsolver++", "sde-dpmsolver++")):
        config = {"final_sigmas_type": final, "algorithm_type": algorithm, **spaced, **KANDINSKY}
        yield {"config": {**config, "beta_schedule": next(schedules)}, "steps": 6}
    yield {"config": {"use_lu_lambdas": True, **KANDINSKY}, "steps": 6}
    for spaced in (*SPACED, {"use_lu_lambdas": True}):
        yield {"config": {**COSINE, "timestep_spacing": "trailing", "prediction_type": "sample", **spaced}, "steps": 6}
    yield {"config": COSINE, "steps": 6}
    for lower, euler, steps in itertools.product((True, False), (True, False), (6, 16)):
        config = {"lower_order_final": lower, "euler_at_final": euler, "final_sigmas_type": "sigma_min"}
        yield {"config": {**KANDINSKY, **config, "solver_order": 3}, "steps": steps}
    for prediction in ("epsilon", "v_prediction"):
        yield {"config": {**ZERO_SNR, "prediction_type": prediction}, "steps": 4}
    for spacing in SPACINGS:
        clipped = {"lambda_min_clipped": -3.0, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": spacing}
        yield {"config": clipped, "steps": 6}
    yield {"config": TRAINED, "steps": 3}
    yield {"config": KANDINSKY, "steps": 30}
    yield {"config": {**KANDINSKY, "use_karras_sigmas": True}, "steps": 30}
    yield {"config": KANDINSKY, "steps": 10, "start": 4}
    yield {"config": KANDINSKY, "steps": 1}


def unipc_cases():
    schedules = itertools.cycle(("linear", "scaled_linear"))
    spacings = itertools.cycle(SPACINGS)
    predictions = itertools.cycle(("epsilon", "sample", "v_prediction", "epsilon"))
    limits = itertools.cycle(({}, {}, THRESHOLD))
    for x0, order, solver, final in itertools.product((True, False), (1, 2, 3), ("bh1", "bh2"), FINALS):
        if final == "zero" and (solver == "bh1" or not x0):
            continue  # the reference multiplies infinity with 0 in the last step
        config = {
            "predict_x0": x0,
            "solver_order": order,
            "solver_type": solver,
            "final_sigmas_type": final,
            "prediction_type": next(predictions),
            "timestep_spacing": next(spacings),
            "beta_schedule": next(schedules),
            **next(limits),
        }
        yield {"config": config, "steps": 6}
    for spaced in SPACED[1:]:  # with sigma_min they end with a step of no length, where the reference returns NaN
        yield {"config": {**spaced, **KANDINSKY, "beta_schedule": next(schedules)}, "steps": 6}
    yield {"config": {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0}, "steps": 6}
    yield {"config": {"lower_order_final": False, "final_sigmas_type": "sigma_min", "solver_order": 3}, "steps": 6}
    yield {"config": {"disable_corrector": [0, 2]}, "steps": 6}
    for spaced in SPACED:
        yield {"config": {**COSINE, "timestep_spacing": "trailing", "prediction_type": "sample", **spaced}, "steps": 6}
    yield {"config": COSINE, "steps": 6}
    for prediction in ("epsilon", "v_prediction"):
        yield {"config": {**ZERO_SNR, "prediction_type": prediction}, "steps": 4}
    yield {"config": TRAINED, "steps": 3}
    yield {"config": KANDINSKY, "steps": 30}
    yield {"config": KANDINSKY, "steps": 10, "start": 4}
    yield {"config": KANDINSKY, "steps": 1}


def pndm_cases():
    schedules = itertools.cycle(("linear", "scaled_linear"))
    for skip, one, prediction, spacing in itertools.product(
        (True, False), (True, False), ("epsilon", "v_prediction"), SPACINGS
    ):
        config = {"skip_prk_steps": skip, "set_alpha_to_one": one, "prediction_type": prediction}
        config |= {"timestep_spacing": spacing, "beta_schedule": next(schedules), "steps_offset": 1}
        yield {"config": config, "steps": 7}
    for skip in (True, False):
        yield {"config": {**COSINE, "skip_prk_steps": skip}, "steps": 7}
    yield {"config": {**TRAINED, "skip_prk_steps": True}, "steps": 2}
    yield {"config": TRAINED, "steps": 4}
    yield {"config": {**KANDINSKY, "skip_prk_steps": True}, "steps": 20}
    yield {"config": {**KANDINSKY, "skip_prk_steps": True}, "steps": 1}


def lcm_cases():
    schedules = itertools.cycle(("linear", "scaled_linear", "squaredcos_cap_v2"))
    limits = itertools.cycle(({}, {"clip_sample": True, "clip_sample_range": 1.2}, THRESHOLD))
    for prediction, original in itertools.product(("epsilon", "sample", "v_prediction"), (50, 100, 17)):
        config = {"prediction_type": prediction, "original_inference_steps": original, **next(limits)}
        yield {"config": {**config, "beta_schedule": next(schedules)}, "steps": 4}
    zero_snr = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_scaling": 3.0}
    yield {"config": zero_snr, "steps": 4}
    yield {"config": {**TRAINED, "original_inference_steps": 4, "timestep_scaling": 0.5}, "steps": 3}
    yield {"config": KANDINSKY, "steps": 1}
    yield {"config": KANDINSKY, "steps": 8, "start": 3}


CASES = {
    "EulerDiscreteScheduler": euler_cases,
    "EulerAncestralDiscreteScheduler": euler_ancestral_cases,
    "HeunDiscreteScheduler": heun_cases,
    "DPMSolverMultistepScheduler": dpmsolver_cases,
    "UniPCMultistepScheduler": unipc_cases,
    "PNDMScheduler": pndm_cases,
    "LCMScheduler": lcm_cases,
}


class Noises:
    """Stands in for randn_tensor: the noise belongs to the call, not to the number of draws."""

    def __init__(self, noises):
        self.noises = noises
        self.call = 0

    def __call__(self, *_, **__):
        return self.noises[self.call % 8]


def run_case(name, case, inputs, noises):
    scheduler = getattr(diffusers, name)(**case["config"])
    scheduler.set_timesteps(case["steps"])
    start = case.get("start", 0)
    if hasattr(scheduler, "set_begin_index"):
        # else a run whose first timestep repeats would begin at the second one and leave the table of sigmas
        scheduler.set_begin_index(start)
    sample = inputs["sample"] * scheduler.init_noise_sigma
    samples = []
    for call, timestep in enumerate(scheduler.timesteps[start:]):
        noises.call = call
        scaled = scheduler.scale_model_input(sample, timestep)
        output = 0.8 * scaled + 0.6 * inputs["patterns"][call % 8]
        sample = scheduler.step(output, timestep, sample, **case.get("options", {})).prev_sample
        samples.append(sample)
    samples = torch.stack(samples)
    assert samples.isfinite().all(), (name, case)
    case |= {"class": name, "timesteps": scheduler.timesteps.tolist()}
    case["init_noise_sigma"] = float(scheduler.init_noise_sigma)
    return samples


def schedule_cases():
    for spaced, steps in itertools.product(SPACED, (2, 25, 100)):
        for spacing in SPACINGS if not spaced else ("leading",):
            config = {**KANDINSKY, "timestep_spacing": spacing, **spaced}
            for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
                yield {"class": name, "config": config, "steps": steps}
            yield {"class": "HeunDiscreteScheduler", "config": config, "steps": steps}


def schedules(tensors):
    cases = list(schedule_cases())
    for index, case in enumerate(cases):
        scheduler = getattr(diffusers, case["class"])(**case["config"])
        scheduler.set_timesteps(case["steps"])
        tensors[f"schedule.{index}.timesteps"] = scheduler.timesteps.float()
        tensors[f"schedule.{index}.sigmas"] = scheduler.sigmas
    return cases


def converted():
    """The config that each class makes of a stored one, also by way of UniPC."""
    results = []
    for (source, stored), target in itertools.product(STORED.items(), CASES):
        for chain in ([target], ["UniPCMultistepScheduler", target]):
            scheduler = getattr(diffusers, source).from_config(stored)
            for name in chain:
                scheduler = getattr(diffusers, name).from_config(scheduler.config)
            config = {k: v for k, v in scheduler.config.items() if not k.startswith("_")}
            config.pop("lambda_min_clipped", None)  # -Infinity is not JSON
            results.append({"source": source, "stored": stored, "chain": chain, "config": config})
    return results


def add_noise(inputs, tensors):
    cases = []
    for name in CASES:
        configs = [KANDINSKY]
        if name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
            configs.append({**KANDINSKY, "use_karras_sigmas": True})
        for config in configs:
            scheduler = getattr(diffusers, name)(**config)
            scheduler.set_timesteps(6)
            rows = [
                scheduler.add_noise(inputs["sample"], inputs["noises"][0], timestep[None])
                for timestep in scheduler.timesteps
            ]
            tensors[f"add_noise.{len(cases)}"] = torch.stack(rows)
            cases.append({"class": name, "config": config, "steps": 6})
    return cases


def main(folder):
    warnings.simplefilter("ignore")
    generator = torch.Generator("cpu").manual_seed(11)
    inputs = {
        "sample": torch.randn(SHAPE, generator=generator),
        "patterns": torch.randn((8, *SHAPE), generator=generator),
        "noises": torch.randn((8, *SHAPE), generator=generator),
    }
    noises = Noises(inputs["noises"])
    for module in (
        scheduling_euler_discrete,
        scheduling_euler_ancestral_discrete,
        scheduling_dpmsolver_multistep,
        scheduling_lcm,
    ):
        module.randn_tensor = noises
    cases, results, tensors = [], [], {}
    for name, source in CASES.items():
        for case in source():
            results.append(run_case(name, case, inputs, noises))
            cases.append(case)
    description = {
        "versions": {module.__name__: module.__version__ for module in (diffusers, torch, numpy)},
        "cases": cases,
        "schedules": schedules(tensors),
        "add_noise": add_noise(inputs, tensors),
        "converted": converted(),
    }
    save_file({**inputs, **tensors, "prev_samples": torch.cat(results)}, folder / "swap-scheduler-cases.safetensors")
    (folder / "swap-scheduler-cases.json").write_text(json.dumps(description, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    main(target)
