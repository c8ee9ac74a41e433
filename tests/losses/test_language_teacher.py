"""A recogniser and a language model with random weights, as transformers keeps them."""

import json

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForCTC,
)

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.losses.language_teacher import LanguageTeacher

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##a", "##b", "##c"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    listener, reader = (tmp_path_factory.mktemp(name) for name in ("listener", "reader"))
    (listener / "vocab.json").write_text(json.dumps({k: i for i, k in enumerate(LETTERS)}))
    Wav2Vec2CTCTokenizer(str(listener / "vocab.json")).save_pretrained(listener)
    config = Wav2Vec2Config(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(listener)
    (reader / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(reader / "vocab.txt")).save_pretrained(reader)
    sizes = BertConfig(
        vocab_size=11, hidden_size=12, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(sizes).save_pretrained(reader)
    return listener, reader


def test_words_are_padded_to_the_frames_and_the_layers_averaged(folders, monkeypatch):
    teacher = LanguageTeacher(*folders)
    monkeypatch.setattr(teacher, "texts", lambda audio, rate: ["AB", "C"])
    made = teacher.features(torch.zeros(2, 1, 1600), 8000)  # 0.2 s: 10 frames
    ids = torch.tensor([[2, 5, 9, 3] + [0] * 6, [2, 7, 3] + [0] * 7])
    model = BertModel.from_pretrained(folders[1]).eval()
    with torch.no_grad():
        layers = model(
            ids, attention_mask=(ids > 0).long(), output_hidden_states=True
        ).hidden_states
    assert teacher.width == 12
    torch.testing.assert_close(made, sum(layers) / 3)
    assert teacher.features(torch.zeros(2, 1, 32000), 16000).shape == (2, 32, 12)


def test_letters_that_repeat_are_one_and_the_loudness_does_not_count(folders, monkeypatch):
    teacher = LanguageTeacher(*folders)
    x = 0.1 * torch.randn(2, 1, 3200)
    assert teacher.texts(x, 16000) == teacher.texts(5 * x, 16000)
    best = torch.tensor([[5, 5, 0, 5, 4, 6, 0, 7]])

    class Heard:
        logits = torch.nn.functional.one_hot(best, 8).float()

    monkeypatch.setattr(teacher._ctc, "forward", lambda x: Heard)
    assert teacher.texts(x[:1], 16000) == ["AA BC"]


def test_folders_without_models_are_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match="expected a recogniser with CTC of transformers in"):
        LanguageTeacher(tmp_path, folders[1])
    with pytest.raises(CheckpointError, match="expected a language model of transformers in"):
        LanguageTeacher(folders[0], tmp_path)
