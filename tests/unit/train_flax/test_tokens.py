"""Token ids are transformers' own, for every way in which tokenizers' folders say their special tokens."""

import json

import numpy as np
import pytest
from transformers import CLIPTokenizer

from sdjob.train_flax.tokens import CaptionTokenizer
from train_base import make_tokenizer

CAPTIONS = [
    "", "a red circle on a blue background", "RED\t circle\n\n 12 345", "naïve café, Ünïcödé — “quotes” 日本語 🎨",
    "it's we'll they'd I'm", "a red circle! wow!! <|endoftext|> after the end", "<|STARTOFTEXT|> x", "red " * 50, "  ", "e\u0301",
]  # fmt: skip
MAPS = {
    "none": None,
    "plain": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    # Stable Diffusion 2.x's own
    "sd2": {
        "bos_token": {"content": "<|startoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
        "eos_token": {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
        "pad_token": "!",
        "unk_token": {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
    },
}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("told", MAPS)
def test_ids(tmp_path, told, listed):
    make_tokenizer(tmp_path)
    config = {"model_max_length": 16, "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    if listed:
        config["added_tokens_decoder"] = {
            str(vocabulary[token]): {"content": token, "special": True, "normalized": False}
            for token in ("<|startoftext|>", "<|endoftext|>")
        }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if MAPS[told] is not None:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(MAPS[told]))
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    expected = theirs(CAPTIONS, max_length=16, padding="max_length", truncation=True, return_tensors="np").input_ids
    ours = CaptionTokenizer.of(tmp_path).ids(CAPTIONS)
    assert ours.dtype == np.int32
    assert np.array_equal(ours, expected)
    pad = vocabulary["!"] if told == "sd2" and not listed else vocabulary["<|endoftext|>"]
    assert ours[0, -1] == pad
