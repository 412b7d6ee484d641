"""What the frozen encoders compute once, before the training: as long as they do nothing else is on the device.

Axes: B pictures or captions of a batch, C channels, H x W positions, T tokens, D features, P features of the pooled text.
"""

import gc
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from sdjob.encodings.reader import Encodings, without_axis
from sdjob.encodings.shard import Dtype, Rows
from sdjob.encodings.work import Pass
from sdjob.link import Link
from sdjob.spec.task import TrainTask
from sdjob.train_torch.conditioning import TextEncoders, Tokenizers
from sdjob.train_torch.encode import encode_pictures
from sdjob.train_torch.setup import COMPUTE_DTYPES, load_text_encoders, load_vae

DTYPES: Mapping[torch.dtype, Dtype] = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def encodings_of(task: TrainTask, *, link: Link) -> Encodings | None:
    """All of the job's encodings, once every process has computed its share; None where the encoders run at every step.

    Before the processes join each other: nobody waits in a collective meanwhile.
    """
    work = Pass.of(task)
    if work is None:
        return None
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if work.missing(rank):
        link.send("encoding")
        work.compute(TorchEncoder.of(task, rank=rank), rank=rank, on_shard=lambda file: link.send("shard", **vars(file)))
        release(task)
    return work.wait()


def release(task: TrainTask) -> None:
    gc.collect()
    if task.device == "cuda":
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class TorchEncoder:
    """Each model is loaded when it is first needed: perhaps another process has all of the captions."""

    task: TrainTask
    device: torch.device
    devices: int = 1

    @classmethod
    def of(cls, task: TrainTask, *, rank: int) -> "TorchEncoder":
        return cls(task, torch.device("cuda", rank) if task.device == "cuda" else torch.device("cpu"))

    @cached_property
    def vae(self) -> AutoencoderKL:
        return load_vae(self.task, device=self.device)

    @cached_property
    def text(self) -> TextEncoders:
        return load_text_encoders(self.task, device=self.device)

    @cached_property
    def tokenizers(self) -> Tokenizers:
        return Tokenizers.of(self.task.model)

    def pictures(self, pixels_BCHW: NDArray[np.float32]) -> dict[str, Rows]:
        with self._autocast():
            return rows_of(encode_pictures(self.vae, torch.from_numpy(pixels_BCHW).to(self.device)))

    def captions(self, captions: Sequence[str]) -> dict[str, Rows]:
        with self._autocast():
            told = self.tokenizers.tensors(captions)
            return rows_of(self.text.encode(told["ids_BET"].to(self.device), told_B=told["told_B"].to(self.device)))

    def _autocast(self) -> AbstractContextManager[Any]:
        """As at a step that encodes for itself."""
        compute = COMPUTE_DTYPES[self.task.job.train.precision]
        return torch.autocast(self.device.type, compute, enabled=compute is not torch.float32)


def rows_of(encoded: Mapping[str, Tensor]) -> dict[str, Rows]:
    """An entry has no axis B: `mean_BCHW` is `mean_CHW` of each."""
    return {without_axis(name, "B"): rows(tensor) for name, tensor in encoded.items()}


def rows(tensor_B: Tensor) -> Rows:
    dtype = DTYPES[tensor_B.dtype]
    on_host = tensor_B.contiguous().cpu()
    return Rows(dtype, (on_host.view(torch.uint16) if dtype == "BF16" else on_host).numpy())
