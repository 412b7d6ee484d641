"""Captions to token ids, from a CLIP tokenizer's folder, by the `tokenizers` package: transformers would bring its own world.

Axes: B captions, T tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from sdjob.diffusion.family import read_config

# https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py, as
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/clip/tokenization_clip.py spells it
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}


@dataclass(frozen=True)
class CaptionTokenizer:
    tokenizer: Tokenizer

    @classmethod
    def of(cls, folder: Path) -> Self:
        """`folder` is a model's tokenizer/, with vocab.json and merges.txt."""
        config = read_config(folder / "tokenizer_config.json")
        special = special_tokens(folder, config=config)
        tokenizer = word_pairs(folder, unknown=special["unk_token"].content)
        tokenizer.add_special_tokens(list(special.values()))
        bos, eos, pad = (special[kind].content for kind in ("bos_token", "eos_token", "pad_token"))
        tokenizer.post_processor = processors.RobertaProcessing(
            (eos, id_of(tokenizer, eos)), (bos, id_of(tokenizer, bos)), trim_offsets=False, add_prefix_space=False
        )
        tokenizer.enable_truncation(config["model_max_length"])
        tokenizer.enable_padding(length=config["model_max_length"], pad_id=id_of(tokenizer, pad), pad_token=pad)
        return cls(tokenizer)

    def ids(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """(B, T); what is longer than the model's T tokens is cut off."""
        return np.array([encoded.ids for encoded in self.tokenizer.encode_batch(list(captions))], np.int32)


def word_pairs(folder: Path, *, unknown: str) -> Tokenizer:
    """Byte-pair encoding of words, as CLIP cuts them."""
    # The first line is a comment on the version.
    lines = (folder / "merges.txt").read_text(encoding="utf-8").strip().split("\n")[1:]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
            merges=[(left, right) for left, right in (line.split() for line in lines)],
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=unknown,
        )
    )
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def special_tokens(folder: Path, *, config: dict[str, Any]) -> dict[str, AddedToken]:
    """special_tokens_map.json goes before the configuration, unless that lists its tokens: so SD 2.x pads with `!`."""
    given = {**SPECIAL, **{kind: config[kind] for kind in SPECIAL if config.get(kind)}}
    path = folder / "special_tokens_map.json"
    if path.is_file() and "added_tokens_decoder" not in config:
        told = json.loads(path.read_text(encoding="utf-8"))
        given |= {kind: told[kind] for kind in SPECIAL if kind in told}
    return {kind: added_token(token) for kind, token in given.items()}


def added_token(token: str | dict[str, Any]) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    flags = {flag: token[flag] for flag in ("single_word", "lstrip", "rstrip", "normalized") if flag in token}
    return AddedToken(token["content"], special=True, **flags)


def id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None, "special tokens are added before they are looked up"
    return found
