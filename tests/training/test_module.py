"""One optimizer step is one global step; accumulation and clipping are exact."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.discriminators.patchgan import PatchGAN
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.losses.adversarial import ORDERS, Adversarial
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.module import TokenizerModule, _joined
from tokenizers_vq.training.optim import Recipe
from training.conftest import CONFIG, FSQ

WEIGHTS = {"recon/l1": 1.0, "quantizer/loss": 1.0}
GAN = {"adv/gen": 0.1, "adv/disc": 1.0, "adv/r1": 1.0}
ITEMS = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


def made(*, gan=False, quantizer=None, adversarial=None, **recipe):
    """Return a seeded module."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_config(CONFIG | {"quantizer": quantizer or FSQ})
    critic = PatchGAN(width=8, layers=1, norm="group") if gan else None
    objective = Objective(
        WEIGHTS | (GAN if gan else {}),
        discriminator=critic,
        adversarial=Adversarial(r1_every=2, **(adversarial or {})),
    )
    return TokenizerModule(tokenizer, objective, Recipe(**recipe), log_every=1)


def fit(module, steps, batch_size=4, **options):
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader(ITEMS, batch_size))
    return trainer


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*no `val_dataloader`.*",
    "ignore:.*does not have many workers.*",
    "ignore:.*LeafSpec.*",
    "ignore:.*logging interval.*",
)


def test_one_optimizer_step_is_one_global_step_with_a_discriminator():
    module = made(gan=True, accumulate=2)
    seen = []
    module.on_train_batch_end = lambda *_: seen.append(module.global_step)
    before = module.objective.discriminator.main[0].weight.clone()
    trainer = fit(module, 3)
    assert seen == [0, 1, 1, 2, 2, 3]
    assert trainer.global_step == 3
    assert not torch.equal(before, module.objective.discriminator.main[0].weight)
    steps = [o.state[o.param_groups[0]["params"][0]]["step"].item() for o in trainer.optimizers]
    assert steps == [3, 3]


def gradients(module, steps=1, **options):
    """Return the gradients in front of the first step, by parameter name."""
    found = {}
    clip = module._clip

    def noted(optimizer):
        norm = clip(optimizer)
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in module.named_parameters():
            if id(parameter) in mine and parameter.grad is not None:
                found[name] = parameter.grad.clone()
        return norm

    module._clip = noted
    fit(module, steps, **options)
    return found


@pytest.mark.parametrize("gan", [False, True])
def test_two_batches_of_four_are_one_of_eight(gan):
    one = gradients(made(gan=gan, clip=None), batch_size=8)
    two = gradients(made(gan=gan, clip=None, accumulate=2), batch_size=4)
    assert one.keys() == two.keys()
    assert any(name.startswith("objective.discriminator") for name in one) == gan
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-6, rtol=1e-4)


def test_gradients_of_each_side_are_clipped():
    found = gradients(made(gan=True, clip=1e-3))
    for side in ("tokenizer", "objective"):
        parts = [g.flatten() for name, g in found.items() if name.startswith(side)]
        assert torch.cat(parts).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_codebook_follows_once_per_step_with_the_tokens_of_all_batches():
    module = made(accumulate=2)
    seen = []
    module.tokenizer.quantizer.update = lambda z, indices: seen.append((z.shape, indices.shape))
    fit(module, 2)
    assert seen == [((8 * 64, 8), (8 * 64, 1))] * 2


def test_a_head_on_grids_follows_with_whole_grids():
    head = {"name": "multi_scale", "scales": [1, 8], "inner": {"name": "vq", "codebook_size": 8}}
    module = made(quantizer=head, accumulate=2)
    seen = []
    module.tokenizer.quantizer.update = lambda z, indices: seen.append((z.shape, indices.shape))
    fit(module, 1)
    assert seen == [((8, 8, 8, 8), (8, 65, 1))]


def test_whole_grids_of_two_sizes_do_not_make_one_step():
    batches = [(torch.zeros(1, n, n, 2), torch.zeros(1, n, 1)) for n in (4, 5)]
    with pytest.raises(ShapeError) as error:
        _joined(batches)
    assert str(error.value) == (
        "training: expected the batches of one step to have one size, as this quantizer sees whole "
        "grids; got grids [(4, 4), (5, 5)]. Crop to one size, or do not accumulate."
    )


@pytest.mark.parametrize("order", ORDERS)
def test_the_generator_meets_the_discriminator_before_or_after_its_step(order):
    module = made(gan=True, adversarial={"order": order})
    objective, critic = module.objective, module.objective.discriminator
    weights, seen = [critic.main[0].weight.detach().clone()], []
    terms = objective.generator_terms

    def noted(*arguments):
        now = critic.main[0].weight.detach().clone()
        seen.append(not now.equal(weights[-1]))
        weights.append(now)
        return terms(*arguments)

    objective.generator_terms = noted
    fit(module, 2)
    assert seen == ([True, True] if order == "discriminator_first" else [False, True])
    assert critic.main[0].weight.equal(weights[-1]) == (order == "discriminator_first")
    assert all(parameter.grad is None for parameter in critic.parameters())
    optimizers = module.trainer.optimizers
    assert [o.state[o.param_groups[0]["params"][0]]["step"].item() for o in optimizers] == [2, 2]


def test_a_discriminator_that_goes_first_takes_no_parts_of_a_batch():
    with pytest.raises(ConfigError) as error:
        made(gan=True, adversarial={"order": "discriminator_first"}, accumulate=2)
    assert str(error.value) == (
        "training: expected optim.accumulate 1 for the order discriminator_first, in which each "
        "batch meets a discriminator that knows it; got 2. Use larger batches, or generator_first."
    )


def test_the_discriminator_waits_for_its_start():
    module = made(gan=True, adversarial={"discriminator_start": 2, "start": 3})
    logged = []
    module._log = lambda numbers: logged.append(sorted(n for n in numbers if "adv" in n))
    fit(module, 4)
    disc = ["train/adv/disc", "train/adv/grad_norm"]
    assert logged == [[], [], sorted([*disc, "train/adv/r1"]), sorted([*disc, "train/adv/gen"])]


def test_bfloat16_trains_with_a_discriminator():
    module = made(gan=True, adversarial={"adaptive": True})
    fit(module, 2, precision="bf16-mixed")
    assert module.latest["train/adv/weight"] > 0
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_numbers_have_the_names_of_the_losses():
    module = made()
    fit(module, 1)
    assert sorted(module.latest) == [
        "codebook/perplexity",
        "codebook/usage",
        "train/grad_norm",
        "train/loss",
        "train/lr",
        "train/quantizer/loss",
        "train/quantizer/nonfinite",
        "train/recon/l1",
    ]


def test_validation_is_the_mean_over_items():
    module = made()
    trainer = fit(module, 1)
    trainer.validate(module, DataLoader(ITEMS[:6], 4), verbose=False)
    with torch.no_grad():
        x_hat = module.tokenizer(ITEMS[:6]).x_hat
    assert module.latest["val/recon/l1"] == pytest.approx((x_hat - ITEMS[:6]).abs().mean().item())
    error = (x_hat.clamp(-1, 1) - ITEMS[:6]).square().flatten(1).mean(1)
    psnr = (10 * torch.log10(4 / error)).mean()
    assert module.latest["val/psnr"] == pytest.approx(psnr.item(), rel=1e-5)
    assert 0 < module.latest["val/codebook/usage"] <= 1


def test_losses_that_reach_nothing_are_named():
    tokenizer = Tokenizer.from_config(tokenizer_config("tiny_karl", "fsq"))
    module = TokenizerModule(tokenizer, Objective({"quantizer/loss": 1.0}), Recipe(), log_every=1)
    with pytest.raises(ConfigError) as error:
        fit(module, steps=1)
    assert str(error.value) == (
        "training: expected weights of a loss that reaches what trains; got quantizer/loss, which "
        "do not. Set '+objective.weights.model={halt: 1.0, nll: 1.0, code: 1.0}'."
    )
