"""Repairs of codebooks on small tokenizers, untrained but for one."""

import warnings

import pytest
import torch

from tokenizers_vq import hub
from tokenizers_vq.configs import read_config
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.doctor.surgery import check_request, prune, repair_and_save, revive, shrink
from tokenizers_vq.doctor.survey import codes_of, has_table, parts, survey
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.tokenizer import Tokenizer

DATA = SyntheticImages(n=12, size=64)  # 64 tokens each
VQ = {"name": "vq", "codebook_size": 48, "code_dim": 4}
EMA = {"name": "vq", "codebook_size": 24, "codebook_update": "ema"}
HEADS = {
    "vq": VQ,
    "vq_ema": {**EMA, "code_dim": 4},
    "vq_cosine": {**VQ, "metric": "cosine"},
    "vq_affine": {**VQ, "affine": True},
    "factorized": {"name": "factorized", "codebook_size": 48, "code_dim": 4},
    "simvq": {"name": "simvq", "codebook_size": 48, "code_dim": 4},
    "residual": {"name": "residual", "stages": {"repeat": 3, "of": EMA}, "code_dim": 8},
    "shared": {"name": "residual", "stages": [EMA], "repeat": 2, "code_dim": 8},
    "grouped": {
        "name": "grouped",
        "code_dim": 8,
        "groups": [
            {"name": "factorized", "codebook_size": 32, "code_dim": 2},
            {"name": "residual", "stages": {"repeat": 2, "of": EMA}},
        ],
    },
}


def made(head, folder):
    """Save and load a tokenizer whose codes are of the size of its latents; some are not used."""
    torch.manual_seed(3)
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": head}
    tokenizer = Tokenizer.from_config(config, name="tiny.test").eval()
    latents = survey(tokenizer, DATA).latents
    for part in parts(tokenizer.quantizer):
        if has_table(part.head):
            u = torch.cat(latents[part.path])
            codes = u.mean(0) + 2 * u.std(0) * torch.randn(part.head.codebook_sizes[0], u.shape[1])
            if part.head.__class__.__name__ == "SimVQ":
                part.head.table.copy_(torch.linalg.solve(part.head.linear.weight, codes.T).T.data)
            else:
                part.head.codebook.data.copy_(codes)
    return hub.load(hub.save(tokenizer, folder))


@pytest.fixture(params=HEADS)
def patient(request, tmp_path):
    return made(HEADS[request.param], tmp_path / "old")


@pytest.fixture
def seen(patient):
    return survey(patient, DATA)


def signals():
    return DATA[0][None]  # alone, as in a survey: in a batch a tie may be rounded the other way


def decoded(tokenizer, codes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # tokens of an ancestor are no tokens of a stranger
        return tokenizer.decode(codes)


def test_pruning_keeps_what_is_used(seen, tmp_path):
    old = seen.tokenizer
    before = [seen.counts(part) for part in parts(old.quantizer)]
    new = hub.load(prune(seen, force=True).save(tmp_path / "new"))
    codes = old.encode(signals())
    assert new.quantizer.codebook_sizes == tuple(int((n > 0).sum()) for n in before)
    assert sum(new.quantizer.codebook_sizes) < sum(old.quantizer.codebook_sizes)
    torch.testing.assert_close(decoded(new, codes), old.decode(codes))
    assert torch.equal(new.adopt(codes).indices, new.encode(signals()).indices)
    for was, now, n in zip(parts(old.quantizer), parts(new.quantizer), before, strict=True):
        torch.testing.assert_close(codes_of(now.head), codes_of(was.head)[n > 0])


def test_old_tokens_with_dead_codes_decode_to_the_nearest_live_code(tmp_path):
    seen = survey(made(VQ, tmp_path / "old"), DATA)
    new = hub.load(prune(seen, force=True).save(tmp_path / "new"))
    head, counts = seen.tokenizer.quantizer, seen.counts(parts(seen.tokenizer.quantizer)[0])
    every = torch.arange(48).reshape(1, 6, 8, 1)
    codes = seen.tokenizer.encode(torch.zeros(1, 3, 48, 64))
    adopted = new.adopt(type(codes)(every, codes.shape, codes.codebook_sizes, codes.model))
    table = codes_of(head)
    for code in range(48):
        live = (counts > 0).nonzero()[:, 0]
        nearest = (table[live] - table[code]).square().sum(-1).argmin()
        assert int(adopted.indices.flatten()[code]) == int(nearest)


def test_reviving_moves_dead_codes_alone(seen, tmp_path):
    old = seen.tokenizer
    new = hub.load(revive(seen, force=True).save(tmp_path / "new"))
    assert new.quantizer.codebook_sizes == old.quantizer.codebook_sizes
    codes = old.encode(signals())
    assert torch.equal(new.adopt(codes).indices, codes.indices)
    torch.testing.assert_close(decoded(new, codes), old.decode(codes))
    for was, now in zip(parts(old.quantizer), parts(new.quantizer), strict=True):
        live = seen.counts(was) > 0
        torch.testing.assert_close(codes_of(now.head)[live], codes_of(was.head)[live])
    after = survey(new, DATA)
    used = [sum(int((s.counts(part) > 0).sum()) for part in parts(s.tokenizer.quantizer))
            for s in (seen, after)]  # fmt: skip
    assert used[1] > used[0]


def test_a_smaller_codebook_decodes_the_tokens_of_the_larger_one(seen, tmp_path):
    old = seen.tokenizer
    new = hub.load(shrink(seen, 12).save(tmp_path / "new"))
    assert set(new.quantizer.codebook_sizes) == {12}
    codes = old.encode(signals())
    small = new.adopt(codes)
    assert small.bits < codes.bits
    assert torch.equal(decoded(new, codes), new.decode(small.indices))
    assert torch.equal(new.adopt(small).indices, small.indices)


def trained(folder, steps=10):
    """Train a tokenizer with 64 codes for a moment."""
    torch.manual_seed(0)
    head = {**EMA, "codebook_size": 64, "kmeans_init": "random", "decay": 0.3}
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": head}
    tokenizer = Tokenizer.from_config(config, name="tiny.trained").train()
    optimizer = torch.optim.Adam(tokenizer.parameters(), 2e-3)
    x = torch.stack([DATA[k] for k in range(len(DATA.ids))])
    for _ in range(steps):
        out = tokenizer(x)
        loss = (out.x_hat - x).square().mean() + out.quantized.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tokenizer.quantizer.update(out.z, out.quantized.indices)
    return hub.load(hub.save(tokenizer.eval(), folder))


def test_one_tokenizer_serves_several_bit_rates(tmp_path):
    large = trained(tmp_path / "large")
    seen = survey(large, DATA)
    lines = list(repair_and_save(seen, "shrink", tmp_path / "rates", [32, 8, 2]))
    assert lines[0].startswith(f"{tmp_path / 'rates' / '32'}: tiny.trained-32@")
    rates = [large, *(hub.load(tmp_path / "rates" / str(size)) for size in (32, 8, 2))]
    codes = large.encode(signals())
    z = large.encoder(signals()).detach()
    errors, bits = [], []
    for tokenizer in rates:
        small = tokenizer.adopt(codes)
        errors.append(float((tokenizer.quantizer.decode(small.indices) - z).square().mean()))
        bits.append(small.bits)
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert errors[2] < 0.4 * errors[3]
    assert errors[3] < float(z.var((0, 1, 2), correction=0).mean())  # a codebook of one mean
    # the maps compose: by way of the middle rate or straight
    middle = rates[2].adopt(rates[1].adopt(codes))
    assert torch.equal(middle.indices, rates[2].adopt(codes).indices)
    assert torch.equal(rates[3].adopt(middle).indices, rates[3].adopt(codes).indices)
    assert set(rates[3].index_maps.by_model) == {one.model_id for one in rates[:3]}
    # searching the small codebook itself is better, but not by much
    own = float((rates[2].quantizer(z).z_q - z).square().mean())
    assert own <= errors[2] < 1.3 * own


def test_averages_stand_for_the_codes_they_follow(tmp_path):
    seen = survey(made(HEADS["vq_ema"], tmp_path / "old"), DATA)
    for new in (prune(seen, force=True), revive(seen, force=True), shrink(seen, 6)):
        head = new.quantizer
        torch.testing.assert_close(head.cluster_sum, head.codebook * head.cluster_size[:, None])
    torch.testing.assert_close(
        shrink(seen, 6).quantizer.cluster_size.sum(), seen.tokenizer.quantizer.cluster_size.sum()
    )


def test_a_prior_is_fitted_to_the_new_codes(tmp_path):
    from tokenizers_vq.bitstream import CountPrior

    seen = survey(made(VQ, tmp_path / "old"), DATA)
    old = seen.tokenizer
    items = [item.numpy() for item in seen.items]
    old.prior = CountPrior.fit(
        items, old.quantizer.codebook_sizes, old.quantizer.digits, old.model_id
    )
    old = hub.load(hub.save(old, tmp_path / "with_prior"))
    small = hub.load(shrink(survey(old, DATA), 8).save(tmp_path / "new"))
    x = signals()[:1]
    assert torch.equal(small.decompress(small.compress(x)), small.decode(small.encode(x)))
    assert len(small.compress(x)) < len(old.compress(x))


def first_line(call, *args, **kwargs):
    with pytest.raises(ConfigError) as error:
        call(*args, **kwargs)
    return str(error.value)


def test_heads_without_a_table_are_refused(tmp_path):
    for head, name in (
        ({"name": "fsq", "levels": [4, 4]}, "FSQ"),
        ({"name": "lfq", "bits": 4}, "LFQ"),
        ({"name": "bsq", "bits": 4}, "BSQ"),
        ({"name": "residual", "stages": [VQ, {"name": "fsq", "levels": [4] * 4}]}, "FSQ"),
    ):
        seen = survey(made(head, tmp_path / name), DATA, limit=1)
        for how, repair in (("prune", prune), ("revive", revive)):
            assert first_line(repair, seen) == (
                f"doctor --fix {how}: expected heads with a learned table of codes (vq, "
                f"factorized, simvq); got {name}, whose codes are fixed or not listed. "
                "Change its config and train again."
            )


def test_repairs_that_cannot_be_done_are_refused(tmp_path):
    seen = survey(made(VQ, tmp_path / "old"), DATA, limit=2)
    assert first_line(prune, seen) == (
        "doctor --fix prune: expected at least 480 tokens to call a code of 48 dead; got 128. "
        "Give more data, or --force."
    )
    assert first_line(shrink, seen, 48) == (
        "doctor --fix shrink: expected larger codebooks; got none. Nothing to do."
    )
    live = survey(hub.load(prune(seen, force=True).save(tmp_path / "new")), DATA, limit=2)
    for how, repair in (("prune", prune), ("revive", revive)):
        assert first_line(repair, live) == (
            f"doctor --fix {how}: expected dead codes; got none. Nothing to do."
        )
    seen.tokenizer.file_sha256 = None
    assert first_line(shrink, seen, 8) == (
        "doctor --fix shrink: expected a tokenizer that was saved; got 'tiny.test@unsaved'. "
        "Save it first: its tokens carry that name."
    )


def test_a_linear_map_that_reaches_no_such_code_is_named(tmp_path):
    tokenizer = made(HEADS["simvq"], tmp_path / "old")
    tokenizer.quantizer.linear.weight.data[0] = 0
    seen = survey(tokenizer, DATA)
    assert first_line(revive, seen, force=True) == (
        "doctor: expected a SimVQ whose linear map reaches any code; got one of lower rank. "
        "Train again with a lower code_dim."
    )


def test_requests_are_checked_before_any_work(tmp_path):
    assert first_line(check_request, "prune", (), None) == (
        "doctor: expected a folder with --fix prune; got none. Give -o FOLDER."
    )
    for how, sizes in (("shrink", ()), (None, (8,)), ("prune", (8,))):
        assert first_line(check_request, how, sizes, tmp_path) == (
            "doctor: expected --fix shrink and --codes together; got one of them. "
            "Write --fix shrink --codes 1024."
        )
    assert first_line(check_request, "shrink", (8, 16), tmp_path) == (
        "doctor: expected falling sizes of at least 1; got [8, 16]. Order them, largest first."
    )
    check_request("shrink", (16, 8), tmp_path)
    check_request(None, (), None)


def test_a_survey_leaves_the_heads_as_they_were(seen):
    heads = [m for m in seen.tokenizer.quantizer.modules() if isinstance(m, Quantizer)]
    assert not [head for head in heads if "code_indices" in vars(head)]
