"""The optimization recipe: optimizers, weight decay, learning rate by step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.optim.muon import Muon
from torch import nn
from torch.optim import Optimizer

from tokenizers_vq.errors import ConfigError, unknown_name

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": Muon,
}
MUON_OTHERS = 1 / 3  # learning rate of AdamW beside Muon's, for all that is no matrix
OVERRIDES = ("lr", "betas", "weight_decay")
# names of parameters that are tables looked up by position or code, which decay would only shrink,
# and of decay rates of state spaces
TABLES = ("codebook", "embedding", "latent_tokens", "mask_token", "A_log", "A_b_log")


@dataclass(frozen=True)
class Recipe:
    """How the weights move; the same rule at every optimizer step of both sides.

    The learning rate rises linearly over ``warmup_steps``, then follows half a cosine down to
    ``floor * lr`` at the last step; ``floor=1`` keeps it constant. ``drops`` multiply on top.

    Attributes:
        optimizer: ``adamw``, ``adam`` or ``muon``: equally long steps in all directions of a matrix
            (Liu et al., Muon is Scalable for LLM Training, 2025, https://arxiv.org/abs/2502.16982),
            and AdamW at a third of ``lr`` for tables, norms and biases.
        lr: highest learning rate.
        betas: decay of the moving averages of gradient and squared gradient.
        weight_decay: for tensors of two or more axes whose names have no word of ``no_decay``.
        warmup_steps: optimizer steps until ``lr`` is reached.
        warmup_from: first learning rate divided by ``lr``; 0 for one step's share.
        floor: last learning rate divided by ``lr``.
        drops: optimizer step to the factor that applies from there on.
        discriminator: other ``lr``, ``betas`` or ``weight_decay`` for the discriminator.
        accumulate: batches per optimizer step.
        clip: largest norm of the gradient of each side; null for no limit.
        no_decay: words in the names of tensors that do not decay; default ``TABLES``, the tables of
            codes and positions.

    Raises:
        ConfigError: a name does not exist, or a number is outside its range.
    """

    optimizer: str = "adamw"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    warmup_from: float = 0.0
    floor: float = 0.1
    drops: Mapping[int, float] = field(default_factory=dict)
    discriminator: Mapping[str, Any] = field(default_factory=dict)
    accumulate: int = 1
    clip: float | None = 1.0
    no_decay: tuple[str, ...] = TABLES

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        for name in self.discriminator:
            if name not in OVERRIDES:
                raise unknown_name("discriminator's optimizer option", name, OVERRIDES)
        good = self.lr > 0 and 0 <= self.floor <= 1 and self.warmup_steps >= 0
        if not 0 <= self.warmup_from <= 1:
            raise ConfigError(
                f"optim: expected warmup_from from 0 to 1; got {self.warmup_from}. It is a share "
                "of lr."
            )
        if not good or self.accumulate < 1 or (self.clip is not None and self.clip <= 0):
            raise ConfigError(
                "optim: expected lr and clip above 0, floor from 0 to 1, warmup_steps from 0 and "
                f"accumulate from 1; got lr {self.lr}, clip {self.clip}, floor {self.floor}, "
                f"warmup_steps {self.warmup_steps}, accumulate {self.accumulate}. Correct optim."
            )

    def build(self, module: nn.Module, *, discriminator: bool = False) -> Optimizer:
        """Return an optimizer of the trainable parameters of ``module``.

        Args:
            module: the tokenizer or the discriminator.
            discriminator: apply the overrides of the discriminator.

        Raises:
            ConfigError: ``module`` has nothing to train.
        """
        options: dict[str, Any] = {
            "lr": self.lr,
            "betas": self.betas,
            "weight_decay": self.weight_decay,
        }
        options |= dict(self.discriminator) if discriminator else {}
        betas, decay = tuple(options["betas"]), float(options["weight_decay"])
        groups: list[dict[str, Any]] = [
            {"params": list(trainable(module, self.no_decay, decays=True)), "weight_decay": decay},
            {"params": list(trainable(module, self.no_decay, decays=False)), "weight_decay": 0.0},
        ]
        if self.optimizer == "muon":
            groups[1]["use_fallback"] = True
            groups[1]["fallback_lr_scale"] = MUON_OTHERS
        groups = [group for group in groups if group["params"]]
        if not groups:
            raise ConfigError(
                f"optim: expected trainable parameters; got none in {type(module).__name__}. "
                "Unfreeze a part of it."
            )
        cls: Any = OPTIMIZERS[self.optimizer]
        optimizer: Optimizer = cls(groups, lr=options["lr"], betas=betas)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def factor(self, step: int, total: int | None) -> float:
        """Return the learning rate at ``step`` divided by the highest one.

        Args:
            step: optimizer steps taken so far.
            total: optimizer steps of the whole run; None when it has no end.

        Raises:
            ConfigError: the learning rate should fall, but the run has no end.
        """
        factor = math.prod(drop for start, drop in self.drops.items() if step >= int(start))
        if step < self.warmup_steps:
            done = (step + 1) / (self.warmup_steps + 1)
            return float(factor * (self.warmup_from + (1 - self.warmup_from) * done))
        if self.floor == 1:
            return float(factor)
        if total is None:
            raise ConfigError(
                f"optim: expected trainer.max_steps for floor {self.floor}; got a run without end. "
                "Set trainer.max_steps, or optim.floor=1."
            )
        done = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return float(factor * (self.floor + (1 - self.floor) * cosine))

    def set_lr(self, optimizer: Optimizer, step: int, total: int | None) -> float:
        """Give ``optimizer`` the learning rate of ``step``, and return that of its first group."""
        factor = self.factor(step, total)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        return float(optimizer.param_groups[0]["lr"])


def trainable(module: nn.Module, spared: Sequence[str], *, decays: bool) -> Iterator[nn.Parameter]:
    """Yield the trainable parameters that weight decay applies to, or those that it spares.

    Args:
        module: what is trained.
        spared: words in the last part of the names of tensors that it spares.
        decays: which of the two.
    """
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            table = any(word in name.rpartition(".")[2] for word in spared)
            if (parameter.ndim >= 2 and not table) == decays:
                yield parameter
