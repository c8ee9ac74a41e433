"""The training step: tokenizer and discriminator in one Lightning module.

Optimization is manual. Lightning counts every step of an optimizer that it wraps, so only the
tokenizer's is wrapped and the discriminator's is used raw: one optimizer step is one
``global_step`` with a discriminator too, and both optimizers are in the checkpoint.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.distributed import sum_over_ranks
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.codebook import CodebookUse
from tokenizers_vq.training.optim import Recipe
from tokenizers_vq.training.passes import TrainingPass, own_pass
from tokenizers_vq.training.sync import average_gradients, local_gradients
from tokenizers_vq.training.trainable import freeze_except, rest
from tokenizers_vq.types import Reconstruction


class TokenizerModule(lightning.LightningModule):
    """Trains a tokenizer, and a discriminator where the objective has one.

    Args:
        tokenizer: what is trained.
        objective: terms and their weights.
        recipe: optimizers, accumulation, clipping, learning rate.
        log_every: optimizer steps between two rows of numbers.
        training_pass: what to run in training; default the one of the decoder or the encoder, or
            else the plain forward. Validation always runs the plain forward.
        trainable: names of the tokenizer's parts that train, see ``freeze_except``; empty for all.

    Shapes:
        batch ``(B, C, *S)`` float32 in the signal's range
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        objective: Objective,
        recipe: Recipe,
        log_every: int = 50,
        *,
        training_pass: TrainingPass | None = None,
        trainable: Sequence[str] = (),
    ):
        super().__init__()
        self.automatic_optimization = False
        self.tokenizer, self.objective, self.recipe = tokenizer, objective, recipe
        self._critic_first = objective.adversarial.order == "discriminator_first"
        if self._critic_first and recipe.accumulate > 1:
            raise ConfigError(
                "training: expected optim.accumulate 1 for the order discriminator_first, in which "
                f"each batch meets a discriminator that knows it; got {recipe.accumulate}. Use "
                "larger batches, or generator_first."
            )
        self.log_every, self.trainable = log_every, tuple(trainable)
        freeze_except(tokenizer, self.trainable)
        self.training_pass = training_pass or own_pass(tokenizer)
        self.train_use = CodebookUse(tokenizer.quantizer.codebook_sizes)
        self.val_use = CodebookUse(tokenizer.quantizer.codebook_sizes)
        self.latest: dict[str, float] = {}  # the last value of everything that was logged
        self._tokens: list[tuple[Tensor, Tensor]] = []  # of the batches since the last step
        self._sums: dict[str, float] = {}
        self.validated_at = -1  # optimizer steps taken at the last validation

    @property
    def between_steps(self) -> bool:
        """Whether no batch has been accumulated since the last optimizer step."""
        return not self._tokens

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run, None when it has no end."""
        if self.trainer.max_steps > 0:
            return int(self.trainer.max_steps)
        batches = self.trainer.estimated_stepping_batches
        return None if batches == float("inf") else int(batches) // self.recipe.accumulate

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the tokenizer's optimizer, then the discriminator's where there is one."""
        optimizers = [self.recipe.build(self._generator_side())]
        if self.objective.discriminator is not None:
            optimizers.append(self.recipe.build(self.objective.discriminator, discriminator=True))
        return optimizers

    def train(self, mode: bool = True) -> Self:
        """Switch to training, in which frozen parts stay in eval mode, or to evaluation."""
        super().train(mode)
        rest(self.tokenizer, self.trainable)
        return self

    def _generator_side(self) -> nn.Module:
        """Return all that the tokenizer's optimizer trains."""
        extra: list[nn.Module] = list(self.objective.heads.values())
        if isinstance(self.training_pass, nn.Module):
            extra.append(self.training_pass)
        return nn.ModuleList([self.tokenizer, *extra]) if extra else self.tokenizer

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Accumulate one batch ``(B, C, *S)``; at the last of several, step and log."""
        critic = self.objective.discriminator
        if isinstance(critic, Discriminator):
            critic.check_signal(batch)
        step, share = self.global_step, 1 / self.recipe.accumulate
        last = len(self._tokens) + 1 == self.recipe.accumulate
        reconstruction = self.training_pass(self.tokenizer, batch, step)
        batch = batch if reconstruction.target is None else reconstruction.target
        numbers: dict[str, float | Tensor] = {}
        if self._critic_first:
            numbers |= self._judge(batch, reconstruction.x_hat, share)
            numbers |= self._step_critic(step) if numbers else {}
        terms = self.objective.generator_terms(batch, reconstruction, step)
        last_layer = self.tokenizer.decoder.last_layer
        total = self.objective.total(terms, step, last_layer, reconstruction.x_hat)
        if not total.requires_grad:
            raise _nothing_to_learn(self.objective, reconstruction)
        with local_gradients(self.trainer.strategy.model):
            self.manual_backward(total * share)
        if not self._critic_first:
            numbers |= self._judge(batch, reconstruction.x_hat, share)
            numbers |= self._step_critic(step) if numbers and last else {}
        z, indices = reconstruction.z.detach(), reconstruction.quantized.indices
        if not self.tokenizer.quantizer.on_grid:
            # positions of all batches together: their grids may differ
            z, indices = z.flatten(0, -2), indices.flatten(0, -2)
        self._tokens.append((z, indices))
        if last:
            numbers |= self._step()
            if self.global_step % self.log_every == 0:
                self._log_train({"loss": total, **terms, **numbers})

    def _judge(self, x: Tensor, x_hat: Tensor, share: float) -> dict[str, float | Tensor]:
        """Let the discriminator learn from one batch; return its terms, none when it rests."""
        step = self.global_step
        terms = self.objective.discriminator_terms(x, x_hat, step)
        if terms:
            with local_gradients(self.trainer.strategy.model):
                self.manual_backward(self.objective.total(terms, step) * share)
        return dict(terms)

    def _step_critic(self, step: int) -> dict[str, float | Tensor]:
        """Step the discriminator's optimizer, and return the norm of its gradient."""
        raw = _listed(self.optimizers(use_pl_optimizer=False))[1]
        self.recipe.set_lr(raw, step, self.total_steps)
        norm = self._clip(raw)
        raw.step()
        raw.zero_grad()
        return {"adv/grad_norm": norm}

    def _step(self) -> dict[str, float | Tensor]:
        """Step the tokenizer's optimizer, let the codebook follow; return lr and gradient norm."""
        step, total = self.global_step, self.total_steps
        wrapped, raw = _listed(self.optimizers()), _listed(self.optimizers(use_pl_optimizer=False))
        numbers: dict[str, float | Tensor] = {"lr": self.recipe.set_lr(raw[0], step, total)}
        numbers["grad_norm"] = self._clip(raw[0])
        wrapped[0].step()
        wrapped[0].zero_grad()
        z, indices = _joined(self._tokens)
        self._tokens.clear()
        self.tokenizer.quantizer.update(z, indices)
        self.train_use.add(indices)
        return numbers

    def _clip(self, optimizer: Optimizer) -> Tensor:
        """Average gradients over processes, scale them down; return their norm before that."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        average_gradients(self.trainer.strategy.model, parameters)
        limit = self.recipe.clip if self.recipe.clip is not None else float("inf")
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, limit)
        return norm

    def validation_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Add one batch to the sums, and return its reconstruction ``(B, C, *S)``, clamped."""
        reconstruction = self.tokenizer(batch)
        x_hat = reconstruction.x_hat.float()
        low, high = self.tokenizer.signal.value_range
        clamped: Tensor = x_hat.clamp(low, high)
        error = (clamped - batch).square().flatten(1).mean(1).clamp(min=1e-10)
        values = {"psnr": (10 * torch.log10((high - low) ** 2 / error)).mean()}
        values |= {name: loss(batch, x_hat) for name, loss in self._val_losses().items()}
        self._sums["items"] = self._sums.get("items", 0.0) + len(batch)
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + len(batch) * float(value)
        self.val_use.add(reconstruction.quantized.indices)
        return clamped

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation items of all processes."""
        names = ("items", "psnr", *self._val_losses())
        sums = torch.tensor([self._sums.get(name, 0.0) for name in names], device=self.device)
        items, *values = sum_over_ranks(sums)[0].tolist()
        means = {f"val/{n}": v / max(items, 1) for n, v in zip(names[1:], values, strict=True)}
        use = {f"val/{name}": value for name, value in self.val_use.take(self.device).items()}
        self._sums.clear()
        if not self.trainer.sanity_checking:
            self.validated_at = self.global_step
            self._log(means | use)

    def _val_losses(self) -> dict[str, Any]:
        return {**self.objective.signal_losses, **self.objective.perceptual}

    def _log_train(self, values: Mapping[str, float | Tensor]) -> None:
        if self.objective.adaptive is not None:
            values = {**values, "adv/weight": self.objective.adaptive}
        numbers = {
            f"train/{name}": float(torch.as_tensor(value).detach())
            for name, value in values.items()
        }
        self._log(numbers | self.train_use.take(self.device))

    def _log(self, numbers: dict[str, float]) -> None:
        """Hand ``numbers`` to every logger under the current optimizer step."""
        self.latest |= numbers
        for logger in self.trainer.loggers:
            logger.log_metrics(numbers, step=self.global_step)


def _nothing_to_learn(objective: Objective, made: Reconstruction) -> ConfigError:
    own = ", ".join(f"{name}: 1.0" for name in made.terms)
    return ConfigError(
        f"training: expected weights of a loss that reaches what trains; got "
        f"{', '.join(objective.weights) or 'none'}, which do not. "
        + (f"Set '+objective.weights.model={{{own}}}'." if own else "Weigh another loss.")
    )


def _listed(optimizers: Any) -> list[Any]:
    return list(optimizers) if isinstance(optimizers, list) else [optimizers]


def _joined(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return latents and indices of the batches of a step as one batch."""
    if len({z.shape[1:] for z, _ in batches}) > 1:
        raise ShapeError(
            "training: expected the batches of one step to have one size, as this quantizer sees "
            f"whole grids; got grids {[tuple(z.shape[1:-1]) for z, _ in batches]}. "
            "Crop to one size, or do not accumulate."
        )
    return torch.cat([z for z, _ in batches]), torch.cat([indices for _, indices in batches])
