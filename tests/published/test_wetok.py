import pytest
import torch
from reference.convnets import (
    assert_same,
    fill,
    magvit2_decode,
    magvit2_encode,
    magvit2_shapes,
    sign_codes,
    signs,
)

from tokenizers_vq import from_published
from tokenizers_vq.errors import CheckpointError, ConfigError, ShapeError

CONFIG = {"n_embed": 256, "embed_dim": 16, "num_codebooks": 2}


def state_of(noise=0, dim=16):
    return fill(magvit2_shapes(32, (1, 2), 1, dim, noise=noise))


def sure(z, bits):
    return torch.stack([p.abs().amin(1) > 1e-4 for p in z.split(bits, dim=1)], dim=-1)


def first_line(error):
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        (None, [8, 8]),
        (CONFIG, [8, 8]),
        ({"n_embed": 16}, [4, 4, 4, 4]),
        ({"n_embed": 65536, "num_codebooks": 1, "gan_decoder": False}, [16]),
        (
            {**CONFIG, "use_GFQ": True, "token_factorization": True, "factorized_bits": [4, 4, 8]},
            [4, 4, 8],
        ),
    ],
)
def test_latents_indices_and_pictures_are_those_of_the_formulas(config, bits):
    state = state_of()
    x = torch.rand(2, 3, 12, 20) * 2 - 1
    z = magvit2_encode(state, x)
    q = sign_codes(z)
    tokenizer = from_published("wetok", state, config)
    assert tokenizer.quantizer.codebook_sizes == tuple(2**n for n in bits)
    assert_same(tokenizer, x, z, signs(z, bits), sure(z, bits), q, magvit2_decode(state, q))


def test_a_generative_decoder_sees_noise_and_its_norms_do_not():
    state = state_of(noise=16)
    tokenizer = from_published("wetok", state, {**CONFIG, "gan_decoder": True})
    assert set(tokenizer.decode_options) == {"noise", "generator"}
    x = torch.rand(2, 3, 12, 20) * 2 - 1
    z = magvit2_encode(state, x)
    q, noise = sign_codes(z), torch.randn(2, 6, 10, 16)
    pictures = magvit2_decode(state, q, noise.movedim(-1, 1))
    assert_same(tokenizer, x, z, signs(z, [8, 8]), sure(z, [8, 8]), q, pictures, noise=noise)


def test_noise_follows_a_seed_and_is_drawn_as_the_authors_draw_it():
    tokenizer = from_published("wetok", state_of(noise=16))
    codes = tokenizer.encode(torch.rand(1, 3, 12, 20) * 2 - 1)
    first, again = (
        tokenizer.decode(codes, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, tokenizer.decode(codes))
    torch.manual_seed(3)
    assert torch.equal(first, tokenizer.decode(codes))
    # theirs is like the codes, whose channels lie last in memory
    q = tokenizer.quantizer.decode(codes.indices)
    torch.manual_seed(3)
    noise = torch.randn_like(q.movedim(-1, 1)).movedim(1, -1)
    assert torch.equal(first, tokenizer.decode(codes, noise=noise))


def test_wrong_noise_is_named():
    tokenizer = from_published("wetok", state_of(noise=16))
    codes = tokenizer.encode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ShapeError) as error:
        tokenizer.decode(codes, noise=torch.zeros(1, 2, 2, 3))
    assert first_line(error) == (
        "CNN2dDecoder: expected shape (1, 2, 2, 16); got (1, 2, 2, 3). It is channels last."
    )
    plain = from_published("wetok", state_of())
    with pytest.raises(ConfigError) as error:
        plain.decode(codes, generator=torch.Generator())
    assert first_line(error).startswith("decode: expected decoder options of none; got 'generator'")


def test_wrong_groups_are_named():
    with pytest.raises(ConfigError) as error:
        from_published("wetok", state_of(), {"num_codebooks": 3})
    assert first_line(error) == (
        "from_published('wetok'): expected num_codebooks that divides the 16 channels of the "
        "latents; got 3. Pass num_codebooks and n_embed of the published model."
    )
    split = {"use_GFQ": True, "token_factorization": True, "factorized_bits": [8, 4]}
    with pytest.raises(ConfigError) as error:
        from_published("wetok", state_of(), split)
    assert first_line(error) == (
        "from_published('wetok'): expected indices of 16 bits in all; got [8, 4]. "
        "Correct num_codebooks or factorized_bits."
    )
    with pytest.raises(CheckpointError) as error:
        from_published("wetok", state_of(), {"gan_decoder": True})
    assert "expected gan_decoder of False" in first_line(error)


def test_indices_of_other_than_8_bits_must_be_told():
    with pytest.raises(ConfigError) as error:
        from_published("wetok", state_of(dim=18))
    assert first_line(error).startswith(
        "from_published('wetok'): expected num_codebooks that divides the 18 channels of the "
        "latents; got 2."
    )
    tok = from_published("wetok", state_of(dim=18), {"num_codebooks": 2})
    assert tok.quantizer.codebook_sizes == (512, 512)
