"""The objective: named loss terms times weights, for the tokenizer and for its discriminator."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.judgement import Judgement
from tokenizers_vq.losses.adversarial import Adversarial, LeCAM, adaptive_weight, consistency, r1
from tokenizers_vq.losses.augment import AUGMENTS, augment
from tokenizers_vq.losses.balancer import Balancer
from tokenizers_vq.losses.features import FeatureTarget, load_features
from tokenizers_vq.losses.logits import LOGITS, load_logits
from tokenizers_vq.losses.matching import FeatureMatching
from tokenizers_vq.losses.perceptual import load_lpips
from tokenizers_vq.losses.reconstruction import l1, l2, mix, smooth_l1
from tokenizers_vq.losses.schedule import Schedule
from tokenizers_vq.types import Reconstruction

SignalLoss = Callable[[Tensor, Tensor], Tensor]

RECONSTRUCTION: dict[str, SignalLoss] = {
    "recon/l1": l1,
    "recon/l2": l2,
    "recon/mix": mix,
    "recon/smooth_l1": smooth_l1,
}
PERCEPTUAL = ("perceptual/lpips", *(f"perceptual/{name}" for name in LOGITS))
DISCRIMINATOR_TERMS = ("adv/disc", "adv/lecam", "adv/r1", "adv/bcr")
NOT_OF_SIGNALS = ("adv/", "quantizer/", "features/", "model/")
NAMES = (
    *RECONSTRUCTION,
    *PERCEPTUAL,
    "adv/gen",
    "adv/features",
    *DISCRIMINATOR_TERMS,
    "quantizer/loss",
)


class Objective(nn.Module):
    """Named terms times weights; a term is computed if and only if it has a weight.

    The only parameters and buffers are those of the discriminator, of LeCAM and of the heads that
    predict features; networks that judge stay outside the module tree, so they are neither saved
    nor averaged nor trained.

    Args:
        weights: name to number or schedule (``Schedule.from_config``), as ``{"recon/l1": 1}`` or
            nested as ``{"recon": {"l1": 1}}``. Names are ``NAMES``, those of ``extra``,
            ``features/<name>``, and ``model/<name>`` for the terms that the model itself returns.
        discriminator: maps signals ``(B, C, *S)`` to logits ``(B, 1, *map)``; needed by ``adv/``.
        adversarial: how generator and discriminator play.
        lpips: options of ``load_lpips``; without weights on this machine the term is off.
        perceptual: options of ``load_logits`` by network, as ``{"resnet50": {"weights": ...}}``;
            off without weights too.
        features: options of ``load_features`` by a name of your choice; off without weights too.
        extra: further terms by name, each a function of ``(x, x_hat)``.
        matching: how ``adv/features`` compares what the discriminator's layers see.
        balancer: makes the weights of the terms of ``x_hat`` shares of its gradient.

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
        perceptual: Mapping[str, Mapping[str, Any]] | None = None,
        features: Mapping[str, Mapping[str, Any]] | None = None,
        extra: Mapping[str, SignalLoss] | None = None,
        matching: FeatureMatching | None = None,
        balancer: Balancer | None = None,
    ):
        super().__init__()
        extra = dict(extra or {})
        flat = _flat(weights)
        targets = {f"features/{name}": dict(options) for name, options in (features or {}).items()}
        _check_names(flat, {*NAMES, *extra, *targets}, discriminator)
        self.weights = {
            name: Schedule.from_config(value, f"weight of {name}") for name, value in flat.items()
        }
        options = {"lpips": lpips or {}, **(perceptual or {})}
        self.perceptual = self._loaded(
            {name: _perceptual_loader(name, options) for name in PERCEPTUAL if name in flat}
        )
        heads: dict[str, FeatureTarget] = self._loaded(
            {name: partial(load_features, **targets[name]) for name in targets if name in flat}
        )
        self.heads = nn.ModuleDict({name.partition("/")[2]: head for name, head in heads.items()})
        self.signal_losses = {
            name: loss for name, loss in (RECONSTRUCTION | extra).items() if name in self.weights
        }
        self.adversarial = adversarial or Adversarial()
        self.discriminator = discriminator
        self.matching, self.balancer = matching or FeatureMatching(), balancer
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
        terms |= {name: loss(x, x_hat) for name, loss in self.perceptual.items()}
        terms |= {f"features/{name}": head(x, reconstruction) for name, head in self.heads.items()}
        terms |= self._from_critic(x, x_hat, self._expected(step, discriminator=False))
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
        seen = [self._seen(x), self._seen(x_hat.detach())]
        judged = [self._judged(signal) for signal in seen]
        pairs = list(zip(*judged, strict=True))
        losses = [a.weight * self.adversarial.discriminator(a.logits, b.logits) for a, b in pairs]
        terms = {"adv/disc": torch.stack(losses).sum()}
        real, fake = (_in_a_row(opinions) for opinions in judged)
        if "adv/bcr" in expected:
            mixed = [self._judged(augment(signal, tuple(AUGMENTS))) for signal in seen]
            again = [_in_a_row(opinions) for opinions in mixed]
            terms["adv/bcr"] = consistency(real, again[0]) + consistency(fake, again[1])
        if self.lecam is not None:
            terms["adv/lecam"] = self.lecam(real, fake)
        if "adv/r1" in expected:
            terms["adv/r1"] = self.adversarial.r1_every * r1(self._critic, x)
        return terms

    def _from_critic(self, x: Tensor, x_hat: Tensor, expected: list[str]) -> dict[str, Tensor]:
        """Return the generator's terms that the discriminator gives, those of ``expected``."""
        if not {"adv/gen", "adv/features"} & set(expected):
            return {}
        terms = {}
        with _frozen(self._critic):
            fake = self._judged(self._seen(x_hat))
            losses = [one.weight * self.adversarial.generator(one.logits) for one in fake]
            terms["adv/gen"] = torch.stack(losses).sum()
            if "adv/features" in expected:
                with torch.no_grad():
                    real = self._judged(self._seen(x))
                terms["adv/features"] = self.matching(real, fake)
        return terms

    def total(
        self,
        terms: Mapping[str, Tensor],
        step: int,
        last_layer: Tensor | None = None,
        x_hat: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted sum of the terms of one side, ``()``.

        Args:
            terms: all of ``generator_terms`` or all of ``discriminator_terms`` of this step.
            step: optimizer steps taken so far.
            last_layer: weight of the decoder's last layer, for the adaptive weight.
            x_hat: the reconstruction that the terms came from, for the balancer.

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
        if self.balancer is not None and not side:
            return self._balanced({name: terms[name] for name in expected}, step, x_hat)
        weighted = {name: self.weights[name](step) * terms[name] for name in expected}
        if "adv/gen" in weighted and self.adversarial.adaptive:
            weighted["adv/gen"] = weighted["adv/gen"] * self._balance(weighted, terms, last_layer)
        return torch.stack([term.float() for term in weighted.values()]).sum()

    def _balanced(self, terms: dict[str, Tensor], step: int, x_hat: Tensor | None) -> Tensor:
        """Return the balanced terms of ``x_hat`` plus the weighted others."""
        if self.balancer is None or x_hat is None:
            raise ConfigError(
                "Objective: expected x_hat for the balancer; got None. "
                "Pass the reconstruction's x_hat."
            )
        weights = {name: self.weights[name](step) for name in terms}
        apart = ("quantizer/", "features/", "model/")
        ours = {name: term for name, term in terms.items() if not name.startswith(apart)}
        others = [weights[name] * term.float() for name, term in terms.items() if name not in ours]
        return torch.stack([self.balancer(ours, weights, x_hat), *others]).sum()

    def _balance(
        self, weighted: Mapping[str, Tensor], terms: Mapping[str, Tensor], last_layer: Tensor | None
    ) -> Tensor:
        """Return the adaptive weight of ``adv/gen``, and keep it for logging."""
        if last_layer is None:
            raise ConfigError(
                "Objective: expected last_layer for the adaptive weight; got None. "
                "Pass tokenizer.decoder.last_layer."
            )
        main = [term for name, term in weighted.items() if not name.startswith(NOT_OF_SIGNALS)]
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
            late |= {"adv/gen", "adv/features"}
        every = self.adversarial.discriminator_every
        if step < self.adversarial.discriminator_start or step % every:
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

    def _loaded(self, loaders: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Return what the loaders give; take out the weights of those that give None."""
        made = {name: load() for name, load in loaders.items()}
        for name in [name for name, loss in made.items() if loss is None]:
            del self.weights[name], made[name]
        return made

    def _seen(self, x: Tensor) -> Tensor:
        """Return what the discriminator sees of ``x``."""
        return augment(x, self.adversarial.augment)

    def _judged(self, x: Tensor) -> list[Judgement]:
        """Return what each of the discriminator's judges says; a plain one is its only judge."""
        judge = getattr(self._critic, "judge", None)
        judged = [Judgement(self._critic(x))] if judge is None else judge(x)
        return [one._replace(logits=one.logits.float()) for one in judged]


def _in_a_row(judged: list[Judgement]) -> Tensor:
    """Return the logits of one judge as they are, of several in a row ``(B, 1, N)``."""
    if len(judged) == 1:
        return judged[0].logits
    return torch.cat([one.logits.flatten(2) for one in judged], dim=2)


def _perceptual_loader(name: str, options: Mapping[str, Mapping[str, Any]]) -> Callable[[], Any]:
    """Return what loads the loss ``perceptual/<net>``."""
    net = name.partition("/")[2]
    own = dict(options.get(net, {}))
    return partial(load_lpips, **own) if net == "lpips" else partial(load_logits, net, **own)


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
