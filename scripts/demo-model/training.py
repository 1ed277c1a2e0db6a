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
from torch import nn


@dataclass
class Options:
    """What a run needs beside its own settings. `work` holds data caches, checkpoints and the exported model."""

    work: Path
    device: str
    compile: bool = True
    pause_file: Path | None = None
    checkpoint_seconds: float = 60

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16)


class Trainer:
    """Trains `model` for a number of minutes; the learning rate follows the share of the time that is used up.

    A budget of time instead of steps finishes on any machine, and a busy one only trains less. Time spent paused
    does not count. A killed run continues from its last checkpoint.
    """

    def __init__(self, name: str, model: nn.Module, options: Options, minutes: float, learning_rate: float,
                 weight_decay: float = 0.01, ema_decay: float = 0.998, warm_up_steps: int = 100,
                 decay_share: float = 0.5):
        self.name, self.model, self.options = name, model.to(options.device), options
        self.budget, self.learning_rate = minutes * 60, learning_rate
        self.ema_decay, self.warm_up_steps, self.decay_share = ema_decay, warm_up_steps, decay_share
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=learning_rate, betas=(0.9, 0.98))
        self.ema = {k: v.detach().clone().float() for k, v in model.state_dict().items()}
        self.step, self.elapsed = 0, 0.0
        self.path = options.work / f"{name}.pt"
        if self.path.exists():
            self._resume()

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
            self.elapsed += min(now - started, 10)  # compiling at the start does not count
            if now - reported > 30:
                reported = now
                text = report() if report else ""
                print(f"{self.name} {self.elapsed / 60:.1f} min, step {self.step}: "
                      f"loss {sum(losses) / len(losses):.4f} {text}", flush=True)
                losses.clear()
            if now - saved > self.options.checkpoint_seconds:
                saved = now
                self._save()
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
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warm * (0.02 + 0.98 * math.sin(left * math.pi / 2) ** 2)
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value_now in self.model.state_dict().items():
                if value_now.is_floating_point():
                    self.ema[key].lerp_(value_now.float(), 1 - decay)
        return float(value.detach())

    def _wait_while_paused(self) -> None:
        while self.options.pause_file and self.options.pause_file.exists():
            time.sleep(1)

    def _save(self) -> None:
        temporary = self.path.with_suffix(".partial")
        torch.save({"model": self.model.state_dict(), "ema": self.ema, "optimizer": self.optimizer.state_dict(),
                    "step": self.step, "elapsed": self.elapsed}, temporary)
        os.replace(temporary, self.path)

    def _resume(self) -> None:
        state = torch.load(self.path, map_location=self.options.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema, self.step, self.elapsed = state["ema"], state["step"], state["elapsed"]


def load_trained(name: str, model: nn.Module, options: Options) -> nn.Module:
    """Puts the averaged weights of a finished (or running) training into `model`, ready for inference."""
    state = torch.load(options.work / f"{name}.pt", map_location=options.device)
    model.load_state_dict(state["ema"])
    return model.to(options.device).eval().requires_grad_(False)
