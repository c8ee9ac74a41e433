"""Adversarial losses, their regularisers, and the weight that balances them.

Logits are maps ``(B, 1, *S)``; positive means "real". Every loss is a ``()`` float32 mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.distributed import sum_over_ranks, world_size
from tokenizers_vq.losses.augment import check_augments


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``(mean relu(1 - real) + mean relu(1 + fake)) / 2``.

    Lim and Ye, Geometric GAN, 2017, https://arxiv.org/abs/1705.02894, eq. 21; halved as in VQGAN.
    """
    return 0.5 * (relu(1 - real).mean() + relu(1 + fake).mean())


def vanilla_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``(mean softplus(-real) + mean softplus(fake)) / 2``, the cross entropy per logit.

    Goodfellow et al., Generative Adversarial Nets, 2014, https://arxiv.org/abs/1406.2661, eq. 1.
    """
    return 0.5 * (softplus(-real).mean() + softplus(fake).mean())


def non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return the cross entropy of the mean logit per item, the sum of real and fake.

    As trained in Open-MAGVIT2, https://arxiv.org/abs/2409.04410: the map is averaged first, and
    the two halves are summed. Real items have target 1, fake ones 0.
    """
    return softplus(-_per_item(real)).mean() + softplus(_per_item(fake)).mean()


def lsgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``(mean (real - 1)^2 + mean fake^2) / 2``.

    Mao et al., Least Squares GAN, 2017, https://arxiv.org/abs/1611.04076, eq. 9.
    """
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def linear_generator(fake: Tensor) -> Tensor:
    """Return ``-mean fake``, the generator's side of the hinge loss."""
    return -fake.mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Return ``mean relu(1 - fake)``, the hinge for both sides, as Vocos and WavTokenizer train."""
    return relu(1 - fake).mean()


def softplus_generator(fake: Tensor) -> Tensor:
    """Return ``mean softplus(-fake)``, the non-saturating loss per logit."""
    return softplus(-fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """Return the cross entropy of the mean logit per item with target 1 (real)."""
    return softplus(-_per_item(fake)).mean()


def lsgan_generator(fake: Tensor) -> Tensor:
    """Return ``mean (fake - 1)^2 / 2``, Mao et al. 2017, eq. 9."""
    return 0.5 * (fake - 1).square().mean()


DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_discriminator,
    "vanilla": vanilla_discriminator,
    "non_saturating": non_saturating_discriminator,
    "lsgan": lsgan_discriminator,
}
GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": hinge_generator,
    "linear": linear_generator,
    "softplus": softplus_generator,
    "non_saturating": non_saturating_generator,
    "lsgan": lsgan_generator,
}
# which generator loss goes with a discriminator loss when the config names none
PAIRS = {
    "hinge": "linear",
    "vanilla": "softplus",
    "non_saturating": "non_saturating",
    "lsgan": "lsgan",
}
ORDERS = ("generator_first", "discriminator_first")


@dataclass(frozen=True)
class Adversarial:
    """How the two sides play.

    Attributes:
        loss: of the discriminator: ``hinge``, ``vanilla``, ``non_saturating`` or ``lsgan``.
        generator_loss: ``linear``, ``hinge``, ``softplus``, ``non_saturating`` or ``lsgan``;
            default the one that goes with ``loss``.
        start: optimizer step from which the generator feels the discriminator.
        discriminator_start: optimizer step from which the discriminator learns; earlier than
            ``start``, so that it knows something when the generator begins to listen.
        adaptive: multiply the generator's weight by ``adaptive_weight``.
        adaptive_eps: its ``eps``.
        adaptive_limits: its smallest and largest value.
        lecam: form of LeCAM, ``logits`` or ``means``.
        lecam_decay: of its moving averages, per batch.
        r1_every: steps between two R1 penalties; each counts that many times.
        order: ``generator_first``: both sides see the networks as they were before the step;
            ``discriminator_first``: the generator meets the discriminator after its step (IBQ).
        discriminator_every: optimizer steps between two steps of the discriminator (ALIT: 9).
        augment: differentiable augmentations of all that the discriminator sees, of ``AUGMENTS``.

    Raises:
        ConfigError: a name does not exist, or a number is outside its range.
    """

    loss: str = "hinge"
    generator_loss: str | None = None
    start: int = 0
    discriminator_start: int = 0
    adaptive: bool = False
    adaptive_eps: float = 1e-4
    adaptive_limits: tuple[float, float] = (0.0, 1e4)
    lecam: str = "logits"
    lecam_decay: float = 0.999
    r1_every: int = 16
    order: str = "generator_first"
    discriminator_every: int = 1
    augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.loss not in DISCRIMINATOR:
            raise unknown_name("adversarial loss", self.loss, DISCRIMINATOR)
        if self.generator_loss is not None and self.generator_loss not in GENERATOR:
            raise unknown_name("generator loss", self.generator_loss, GENERATOR)
        if self.order not in ORDERS:
            raise unknown_name("adversarial order", self.order, ORDERS)
        check_augments(self.augment)
        every = min(self.r1_every, self.discriminator_every)
        if min(self.start, self.discriminator_start) < 0 or every < 1:
            raise ConfigError(
                "Adversarial: expected start steps from 0, r1_every and discriminator_every from "
                f"1; got start {self.start}, discriminator_start {self.discriminator_start}, "
                f"r1_every {self.r1_every}, discriminator_every {self.discriminator_every}. "
                "Correct the objective config."
            )

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss for logits of real and reconstructed signals."""
        return DISCRIMINATOR[self.loss](real, fake)

    def generator(self, fake: Tensor) -> Tensor:
        """Return the generator's loss for logits of reconstructed signals."""
        return GENERATOR[self.generator_loss or PAIRS[self.loss]](fake)


class LeCAM(nn.Module):
    """Pull the logits of one kind towards a moving average of the other: less overfitting.

    Tseng et al., Regularizing Generative Adversarial Networks under Limited Data, 2021,
    https://arxiv.org/abs/2104.03310, eq. 4, in its two forms in use, which differ tenfold and more:
    ``logits`` squares each logit's distance and moves the averages first (Open-MAGVIT2, weight
    0.05); ``means`` squares the distance of batch means and moves them last (MaskBit, weight
    0.001). Differs from the paper: the distance is clipped below at 0, as in both codes.

    Args:
        form: ``logits`` or ``means``.
        decay: of the moving averages per batch; they start at 0.

    Raises:
        ConfigError: another form.
    """

    real: Tensor
    fake: Tensor

    def __init__(self, form: str = "logits", decay: float = 0.999):
        super().__init__()
        if form not in ("logits", "means"):
            raise unknown_name("LeCAM form", form, ("logits", "means"))
        self.form = form
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the penalty and move the averages.

        The averages move with every call, so with ``optim.accumulate`` n they move n times per
        discriminator step, each time by the logits of one of its n batches; take the n-th root of
        ``decay`` to keep their memory in steps.

        Args:
            real: logits ``(B, 1, *S)`` of the signals.
            fake: logits of the reconstructions.
        """
        means = mean_over_ranks(torch.stack([real.detach().mean(), fake.detach().mean()]))
        if self.form == "logits":
            self._move(means)
        else:
            real, fake = real.mean(), fake.mean()
        penalty = relu(real - self.fake).square().mean() + relu(self.real - fake).square().mean()
        if self.form == "means":
            self._move(means)
        return penalty

    def _move(self, means: Tensor) -> None:
        means = means.to(self.real.dtype)
        self.real.lerp_(means[0], 1 - self.decay)
        self.fake.lerp_(means[1], 1 - self.decay)


def r1(discriminator: nn.Module, x: Tensor) -> Tensor:
    """Return ``mean |grad_x D(x)|^2 / 2`` at real signals, with gradients for D's weights.

    Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018,
    https://arxiv.org/abs/1801.04406, eq. 9 without gamma.

    Args:
        discriminator: maps ``(B, C, *S)`` to logits.
        x: real signals ``(B, C, *S)``.
    """
    # second derivatives want the precision of the weights
    x = x.detach().to(next(discriminator.parameters()).dtype).requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        logits = discriminator(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()


def consistency(logits: Tensor, augmented: Tensor) -> Tensor:
    """Return ``mean (augmented - logits)^2``, by which augmentation should not change a judgement.

    Zhao et al., Improved Consistency Regularization for GANs, 2021,
    https://arxiv.org/abs/2002.04724, eq. 2 (bCR); called for real and for fake signals.

    Args:
        logits: of the signals.
        augmented: of the same signals after augmentation.
    """
    return (augmented - logits).square().mean()


def adaptive_weight(
    main: Tensor,
    adversarial: Tensor,
    last_layer: Tensor,
    eps: float = 1e-4,
    limits: tuple[float, float] = (0.0, 1e4),
) -> Tensor:
    """Return ``|d main / d W| / (|d adversarial / d W| + eps)``, clamped and detached.

    Esser et al., Taming Transformers, 2021, https://arxiv.org/abs/2012.09841, eq. 7, W being the
    decoder's last layer. Gradients are averaged over ranks first, so that every rank gets the
    weight of the joined batch.

    Args:
        main: reconstruction plus perceptual loss ``()``, weighted.
        adversarial: the generator's adversarial loss ``()``.
        last_layer: the weight W.
        eps: keeps the division finite.
        limits: smallest and largest weight.
    """
    norms = []
    for loss in (main, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        norms.append(mean_over_ranks(gradient.float()).norm())
    weight: Tensor = norms[0] / (norms[1] + eps)
    return weight.clamp(*limits).detach()


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of ``value`` (any shape, float32) over all processes; without gradient."""
    return sum_over_ranks(value)[0] / world_size()


def _per_item(logits: Tensor) -> Tensor:
    return logits.flatten(1).mean(1)  # (B, 1, *S) -> (B,)
