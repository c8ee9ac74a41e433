"""Lightning saves and restores the loader's place by itself; this pins that it still does."""

import pytest
import torch
from torch import nn

from tokenizers_vq.data.resumable import ResumableLoader
from tokenizers_vq.data.synthetic import SyntheticImages

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning warns about is its own business

STEPS = 10
"""Two and a half epochs of four batches."""


def make_module():
    import lightning

    class Tiny(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 3, 1)
            self.seen = []

        def training_step(self, batch):
            self.seen.append(batch)
            return (self.layer(batch) - batch).square().mean()

        def validation_step(self, batch):
            pass

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.1)

    return Tiny()


def fit(folder, steps=STEPS, resume=None, workers=0, **options):
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    save = ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_weights_only=False
    )
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, callbacks=[save],
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    images = SyntheticImages(n=17, size=8)
    train = ResumableLoader(images, batch_size=4, seed=1, num_workers=workers)
    val = ResumableLoader(SyntheticImages(n=5, size=8, seed=1), batch_size=4, shuffle=False)
    module = make_module()
    trainer.fit(module, train, val, ckpt_path=resume, weights_only=False)
    return module


@pytest.mark.parametrize(
    ("workers", "options"), [(0, {}), (2, {}), (0, {"limit_train_batches": 3})]
)
def test_a_fit_resumed_after_any_step_equals_the_straight_fit(tmp_path, workers, options):
    straight = fit(tmp_path, **options)
    assert len(straight.seen) == STEPS
    for step in range(1, STEPS) if workers == 0 else (2, 4):
        resumed = fit(
            tmp_path / "again", resume=tmp_path / f"step={step}.ckpt", workers=workers, **options
        )
        assert len(resumed.seen) == STEPS - step, step
        pairs = zip(straight.seen[step:], resumed.seen, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), step
        assert torch.equal(straight.layer.weight, resumed.layer.weight), step
