"""The objective: named loss terms times weights, for the tokenizer and for its discriminator."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.losses.adversarial import Adversarial, LeCAM, adaptive_weight, r1
from tokenizers_vq.losses.perceptual import LPIPS, load_lpips
from tokenizers_vq.losses.reconstruction import l1, l2, mix
from tokenizers_vq.losses.schedule import Schedule
from tokenizers_vq.types import Reconstruction

SignalLoss = Callable[[Tensor, Tensor], Tensor]

RECONSTRUCTION: dict[str, SignalLoss] = {"recon/l1": l1, "recon/l2": l2, "recon/mix": mix}
DISCRIMINATOR_TERMS = ("adv/disc", "adv/lecam", "adv/r1")
NAMES = (*RECONSTRUCTION, "perceptual/lpips", "adv/gen", *DISCRIMINATOR_TERMS, "quantizer/loss")


class Objective(nn.Module):
    """Named terms times weights; a term is computed if and only if it has a weight.

    The only parameters and buffers are those of the discriminator and of LeCAM; the LPIPS network
    stays outside the module tree, so it is neither saved nor averaged nor trained.

    Args:
        weights: name to number or schedule (``Schedule.from_config``), as ``{"recon/l1": 1}`` or
            nested as ``{"recon": {"l1": 1}}``. Names are ``NAMES``, those of ``extra``, and
            ``model/<name>`` for the terms that the model itself returns.
        discriminator: maps signals ``(B, C, *S)`` to logits ``(B, 1, *map)``; needed by ``adv/``.
        adversarial: how generator and discriminator play.
        lpips: options of ``load_lpips``; without weights on this machine the term is off.
        extra: further terms by name, each a function of ``(x, x_hat)``.

    Raises:
        ConfigError: a name that does not exist, adversarial terms without a discriminator or the
            other way round, or a malformed schedule.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        *,
        discriminator: nn.Module | None = None,
        adversarial: Adversarial | None = None,
        lpips: Mapping[str, Any] | None = None,
        extra: Mapping[str, SignalLoss] | None = None,
    ):
        super().__init__()
        extra = dict(extra or {})
        flat = _flat(weights)
        _check_names(flat, set(NAMES) | set(extra), discriminator)
        self.weights = {
            name: Schedule.from_config(value, f"weight of {name}") for name, value in flat.items()
        }
        self.perceptual: LPIPS | None = None
        if "perceptual/lpips" in flat:
            self.perceptual = load_lpips(**dict(lpips or {}))
            if self.perceptual is None:
                del self.weights["perceptual/lpips"]
        self.signal_losses = {
            name: loss for name, loss in (RECONSTRUCTION | extra).items() if name in self.weights
        }
        self.adversarial = adversarial or Adversarial()
        self.discriminator = discriminator
        self.lecam: LeCAM | None = None
        if "adv/lecam" in flat:
            self.lecam = LeCAM(self.adversarial.lecam, self.adversarial.lecam_decay)
        self.adaptive: Tensor | None = None  # the last adaptive weight, for logging

    def generator_terms(
        self, x: Tensor, reconstruction: Reconstruction, step: int
    ) -> dict[str, Tensor]:
        """Return the tokenizer's terms, unweighted, each ``()`` float32.

        ``quantizer/<term>`` are there for logging; the quantizer has weighted them into
        ``quantizer/loss`` itself. ``model/<term>`` are ``reconstruction.terms``.

        Args:
            x: signals ``(B, C, *S)``.
            reconstruction: what the tokenizer made of them.
            step: optimizer steps taken so far.
        """
        x_hat, quantized = reconstruction.x_hat, reconstruction.quantized
        terms = {name: loss(x, x_hat) for name, loss in self.signal_losses.items()}
        if self.perceptual is not None:
            terms["perceptual/lpips"] = self.perceptual(x, x_hat)
        if "adv/gen" in self._expected(step, discriminator=False):
            with _frozen(self._critic):
                terms["adv/gen"] = self.adversarial.generator(self._logits(x_hat))
        terms |= {f"model/{name}": term for name, term in reconstruction.terms.items()}
        terms |= {f"quantizer/{name}": term for name, term in quantized.terms.items()}
        return terms | {"quantizer/loss": quantized.loss}

    def discriminator_terms(self, x: Tensor, x_hat: Tensor, step: int) -> dict[str, Tensor]:
        """Return the discriminator's terms, unweighted; empty before it starts.

        Args:
            x: signals ``(B, C, *S)``.
            x_hat: their reconstruction; no gradient flows back to it.
            step: optimizer steps taken so far.
        """
        expected = self._expected(step, discriminator=True)
        if not expected:
            return {}
        real, fake = self._logits(x), self._logits(x_hat.detach())
        terms = {"adv/disc": self.adversarial.discriminator(real, fake)}
        if self.lecam is not None:
            terms["adv/lecam"] = self.lecam(real, fake)
        if "adv/r1" in expected:
            terms["adv/r1"] = self.adversarial.r1_every * r1(self._critic, x)
        return terms

    def total(
        self, terms: Mapping[str, Tensor], step: int, last_layer: Tensor | None = None
    ) -> Tensor:
        """Return the weighted sum of the terms of one side, ``()``.

        Args:
            terms: all of ``generator_terms`` or all of ``discriminator_terms`` of this step.
            step: optimizer steps taken so far.
            last_layer: weight of the decoder's last layer, for the adaptive weight.

        Raises:
            ConfigError: a term has no weight, or a weight has no term.
        """
        side = any(name in DISCRIMINATOR_TERMS for name in terms)
        expected = self._expected(step, discriminator=side)
        for name in terms:
            if name not in expected and not _only_logged(name) and not _of_model(name):
                raise unknown_name("weight of a loss term", name, expected)
        for name in expected:
            if name not in terms:
                raise ConfigError(
                    f"Objective: expected the terms {', '.join(expected)}; got none called {name}. "
                    f"Compute it, or take its weight out."
                )
        weighted = {name: self.weights[name](step) * terms[name] for name in expected}
        if "adv/gen" in weighted and self.adversarial.adaptive:
            weighted["adv/gen"] = weighted["adv/gen"] * self._balance(weighted, terms, last_layer)
        return torch.stack([term.float() for term in weighted.values()]).sum()

    def _balance(
        self, weighted: Mapping[str, Tensor], terms: Mapping[str, Tensor], last_layer: Tensor | None
    ) -> Tensor:
        """Return the adaptive weight of ``adv/gen``, and keep it for logging."""
        if last_layer is None:
            raise ConfigError(
                "Objective: expected last_layer for the adaptive weight; got None. "
                "Pass tokenizer.decoder.last_layer."
            )
        main = [
            term for name, term in weighted.items() if not name.startswith(("adv/", "quantizer/"))
        ]
        settings = self.adversarial
        limits = (float(settings.adaptive_limits[0]), float(settings.adaptive_limits[1]))
        self.adaptive = adaptive_weight(
            torch.stack(main).sum(), terms["adv/gen"], last_layer, settings.adaptive_eps, limits
        )
        return self.adaptive

    def _expected(self, step: int, *, discriminator: bool) -> list[str]:
        """Return the names that one side has to compute at ``step``."""
        late = set()
        if step < self.adversarial.start:
            late |= {"adv/gen"}
        if step < self.adversarial.discriminator_start:
            late |= set(DISCRIMINATOR_TERMS)
        if step % self.adversarial.r1_every:
            late |= {"adv/r1"}
        names = [name for name in self.weights if (name in DISCRIMINATOR_TERMS) == discriminator]
        return [name for name in names if name not in late]

    @property
    def _critic(self) -> nn.Module:
        if self.discriminator is None:
            raise ConfigError(
                "Objective: expected a discriminator for the adv/ terms; got None. "
                "Give one, or take the adv/ weights out."
            )
        return self.discriminator

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self._critic(x)
        return logits.float()


def _flat(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested weights ``{recon: {l1: 1}}`` as ``{"recon/l1": 1}``; null takes one out."""
    flat: dict[str, Any] = {}
    for name, value in weights.items():
        if "/" in name or not isinstance(value, Mapping):
            flat[name] = value
        else:
            flat |= {f"{name}/{key}": inner for key, inner in value.items()}
    return {name: value for name, value in flat.items() if value is not None}


def _check_names(
    weights: Mapping[str, Any], known: set[str], discriminator: nn.Module | None
) -> None:
    """Raise ``ConfigError`` for names that do not exist or do not go together."""
    for name in weights:
        if _only_logged(name):
            raise ConfigError(
                f"Objective: expected quantizer/loss; got a weight of {name}. The quantizer "
                f"weights its own terms: set quantizer.{name.partition('/')[2]}_weight."
            )
        if name not in known and not _of_model(name):
            raise unknown_name("loss term", name, known)
    for name in ("adv/gen", "adv/disc"):
        plays = any(other.startswith("adv/") for other in weights) or discriminator is not None
        if plays and (name not in weights or discriminator is None):
            raise ConfigError(
                "Objective: expected adv/gen and adv/disc together with a discriminator; got "
                f"weights of {', '.join(sorted(weights))} and discriminator "
                f"{type(discriminator).__name__}. Add what is missing."
            )


def _only_logged(name: str) -> bool:
    return name.startswith("quantizer/") and name != "quantizer/loss"


def _of_model(name: str) -> bool:
    """Whether the term is one that the model's training pass returns; unweighted, it is logged."""
    return name.startswith("model/")


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``module`` but not into its parameters."""
    frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
