"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), scaled as in Moonlight (arXiv:2502.16982, section 2.2).

Momentum with every matrix update made orthogonal. In short trainings it needs far fewer steps than AdamW.
"""

from __future__ import annotations

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the published quintic iteration; five rounds suffice
ADAM_RMS = 0.2  # typical root mean square of an AdamW update: learning rates carry over


class Muon(torch.optim.Optimizer):
    """For weights with two or more axes; convolution kernels count as matrices `[out, in * kh * kw]`."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = torch.lerp(parameter.grad, average, group["momentum"]).flatten(1)
                update = orthogonal(update).view_as(parameter) * ADAM_RMS * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix with all singular values 1 (they end between 0.7 and 1.2), by Newton-Schulz steps."""
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)
