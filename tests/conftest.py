"""Fixtures every room shares."""

import pytest
import torch

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def tiny_config():
    return tokenizer_config("tiny_cnn2d", "fsq")


@pytest.fixture
def tiny_tokenizer(tiny_config):
    return Tokenizer.from_config(tiny_config, name="tiny_cnn2d_fsq.test").eval()
