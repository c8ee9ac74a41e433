"""The five tokens and four codes that the reference implementations were run on."""

import torch

C4 = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
X = torch.tensor([[[0.2, 0.1], [0.9, 0.3], [1.4, 1.6], [0.1, 0.7], [0.8, -0.1]]])


def close(actual, expected, atol=1e-5):
    """Compare with a published number to the digits it was published with."""
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(actual.detach().float(), expected, atol=atol, rtol=0)


def with_codes(head, codes, cluster_size=None):
    """Give a vector quantizer a codebook, with averages that belong to it."""
    with torch.no_grad():
        head.codebook.copy_(torch.as_tensor(codes, dtype=torch.float32))
        if cluster_size is not None:
            head.cluster_size.copy_(torch.as_tensor(cluster_size))
        if head.codebook_update == "ema":
            head.cluster_sum.copy_(head.codebook * head.cluster_size[:, None])
    return head
