"""The training loop that all networks of the demo model share: a wall-clock budget, checkpoints, EMA, pausing."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import torch.distributed as dist
from torch import nn

from muon import Muon


@dataclass
class Options:
    """What a run needs beside its own settings. `work` holds data caches, checkpoints and the exported model."""

    work: Path
    device: str
    pause_file: Path | None = None
    checkpoint_seconds: float = 60

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16)


class Trainer:
    """Trains `model` for a number of minutes; the learning rate follows the share of the time that is used up.

    A budget of time instead of steps finishes on any machine, and a busy one only trains less. Time spent paused
    does not count. A killed run continues from its last checkpoint. In several processes (one per CPU core: they meet
    once per step, where threads would meet in every kernel and wait for each other on a busy machine) each draws its
    own batches, and gradients are averaged. Not compiled: torch 2.13 on a CPU gave zero gradients for MoVQ's encoder.
    """

    def __init__(self, name: str, model: nn.Module, options: Options, minutes: float, learning_rate: float,
                 weight_decay: float = 0.01, ema_decay: float = 0.998, warm_up_steps: int = 100,
                 decay_share: float = 0.5, muon: bool = False):
        self.name, self.model, self.options = name, model.to(options.device), options
        self.budget, self.learning_rate = minutes * 60, learning_rate
        self.ema_decay, self.warm_up_steps, self.decay_share = ema_decay, warm_up_steps, decay_share
        self.optimizers = _optimizers(model, learning_rate, weight_decay, muon)
        self.ema = {k: v.detach().clone().float() for k, v in model.state_dict().items()}
        self.step, self.elapsed = 0, 0.0
        self.path = options.work / f"{name}.pt"
        if self.path.exists():
            self._resume()
        if dist.is_initialized():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)
        self.seed = 1000 * self.step + rank()  # for the batches: another one in every process and after every resume
        torch.manual_seed(self.seed)

    @property
    def progress(self) -> float:
        return self.elapsed / self.budget

    def run(self, loss: Callable[[], torch.Tensor], report: Callable[[], str] | None = None) -> None:
        """Calls `loss` for one batch per step until the time is used up; the model ends with the averaged weights."""
        self.model.train()
        saved = reported = time.monotonic()
        losses: list[float] = []
        while self.progress < 1:
            self._wait_while_paused()
            started = time.monotonic()
            losses.append(self._one_step(loss))
            now = time.monotonic()
            self.elapsed = agreed(self.elapsed + min(now - started, 10))  # being suspended does not count
            if now - reported > 60 and rank() == 0:
                reported = now
                text = report() if report else ""
                print(f"{self.name} {self.elapsed / 60:.1f} min, step {self.step}: "
                      f"loss {sum(losses) / len(losses):.4f} {text}", flush=True)
                losses.clear()
            if now - saved > self.options.checkpoint_seconds and rank() == 0:
                saved = now
                self._save()
        if rank() == 0:
            self._save()
        self.model.load_state_dict(self.ema)
        self.model.eval()

    @contextlib.contextmanager
    def averaged(self):
        """The model with its averaged weights, for looking at results during training."""
        trained = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        self.model.eval()
        try:
            with torch.no_grad():
                yield self.model
        finally:
            self.model.load_state_dict(trained)
            self.model.train()

    def _one_step(self, loss: Callable[[], torch.Tensor]) -> float:
        warm = min(1.0, (self.step + 1) / self.warm_up_steps)
        left = min(1.0, (1 - self.progress) / self.decay_share)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.learning_rate * warm * (0.02 + 0.98 * math.sin(left * math.pi / 2) ** 2)
        value = loss()
        value.backward()
        if dist.is_initialized():
            self._average_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value_now in self.model.state_dict().items():
                if value_now.is_floating_point():
                    self.ema[key].lerp_(value_now.float(), 1 - decay)
        return float(value.detach())

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def _wait_while_paused(self) -> None:
        while self.options.pause_file and self.options.pause_file.exists():
            time.sleep(1)

    def _save(self) -> None:
        temporary = self.path.with_suffix(".partial")
        torch.save({"model": self.model.state_dict(), "ema": self.ema, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                    "step": self.step, "elapsed": self.elapsed}, temporary)
        os.replace(temporary, self.path)

    def _resume(self) -> None:
        state = torch.load(self.path, map_location=self.options.device)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.ema, self.step, self.elapsed = state["ema"], state["step"], state["elapsed"]


def _optimizers(model: nn.Module, learning_rate: float, weight_decay: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or with `muon` only for vectors, embeddings and the first and last convolution."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    vectors = [p for _, p in trained if p.ndim < 2]
    matrices = [(name, p) for name, p in trained if p.ndim >= 2]
    inner = [p for name, p in matrices if muon and not any(part in name for part in ("conv_in", "conv_out", "embed"))]
    others = [p for _, p in matrices if not any(p is q for q in inner)]
    adam = torch.optim.AdamW([{"params": others, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
                             lr=learning_rate, betas=(0.9, 0.98))
    return [adam, Muon(inner, learning_rate, weight_decay=weight_decay)] if muon else [adam]


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def agreed(number: float) -> float:
    """The number of process 0, so that all processes stop after the same step."""
    if not dist.is_initialized():
        return number
    shared = torch.tensor(number, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


def load_trained(name: str, model: nn.Module, options: Options) -> nn.Module:
    """Puts the averaged weights of a finished (or running) training into `model`, ready for inference."""
    state = torch.load(options.work / f"{name}.pt", map_location=options.device)
    model.load_state_dict(state["ema"])
    return model.to(options.device).eval().requires_grad_(False)
