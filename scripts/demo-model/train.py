"""Trains the demo model from nothing and exports it: `python train.py --work build/demo-model`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from data import load_emoji
from export import export
from judge import train_judge
from train_clip import train_clip
from train_movq import refine_movq, train_movq
from train_prior import train_prior
from train_unet import train_inpaint_unet, train_unet
from training import Options

# In the order of their dependencies, with minutes that suit two CPU cores; a GPU needs about a third.
STAGES = {"movq": (train_movq, 30), "clip": (train_clip, 10), "prior": (train_prior, 14), "unet": (train_unet, 45),
          "inpaint": (train_inpaint_unet, 9), "refine": (refine_movq, 7), "judge": (train_judge, 4)}


def main() -> None:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    load_emoji(arguments.work)  # fetched once, before several processes want it
    if arguments.processes > 1:
        torch.multiprocessing.spawn(run, (arguments,), nprocs=arguments.processes)
    else:
        run(0, arguments)


def run(rank: int, arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    if arguments.processes > 1:
        torch.set_num_threads(1)
        store = torch.distributed.TCPStore("127.0.0.1", arguments.port, arguments.processes, rank == 0)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=arguments.processes)
    options = Options(arguments.work, arguments.device, arguments.pause_file)
    emoji = load_emoji(arguments.work)
    for stage in arguments.stages:
        if stage != "export":
            train, _ = STAGES[stage]
            train(emoji, options, getattr(arguments, f"{stage}_minutes"))
        elif rank == 0:
            export(emoji, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, checkpoints and the result")
    parser.add_argument("--stages", nargs="+", default=[*STAGES, "export"], choices=[*STAGES, "export"])
    for stage, (_, minutes) in STAGES.items():
        parser.add_argument(f"--{stage}-minutes", type=float, default=minutes)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=1, help="on a CPU: one per core that training may use")
    parser.add_argument("--port", type=int, default=29555, help="for the processes to talk to each other")
    parser.add_argument("--pause-file", type=Path, help="training sleeps while this file exists")
    return parser.parse_args()


if __name__ == "__main__":
    main()
