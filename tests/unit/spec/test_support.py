import pytest

from sdjob.spec.support import unsupported
from unit.spec.jobs import job


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.method=full", "train.ema={}"],
        ["data.buckets={}", "data.prior={source: dogs, caption: a dog}", "data.held_out.share=0.1"],
        ["data={sources: [{source: a, repeats: 3}, {source: b, trigger_word: sks}]}"],
        ["train.cache=always"],
        ["train.optimizer.name=prodigy"],
        ["train.optimizer.name=adamw8bit", "run.accelerator=nvidia-l4"],
        ["train.optimizer.name=adafactor", "train.backend=flax"],
        ["model.vae=/vae", "train.loss={zero_terminal_snr: true}"],
        ["train.cache=never", "train.attention=sdpa", "data.caption_dropout=0.1", "model.variant=fp16"],
        [
            "model.source=hf://a/b",
            "data.source=s3://bucket/pictures",
            "train.init_from=hf://a/c",
            "checkpoint.to=gs://bucket/run",
        ],
        ["publish=[{to: out}, {to: 'hf://me/x'}]"],
        ["train.backend=flax", "run.accelerator='cpu:8'", "train.global_batch=8"],
        ["train.backend=flax", "run.accelerator='tpu-v5e:2x4@8t'", "train.global_batch=8"],
        ["run.accelerator='cpu:4'", "run.max_hours=3", "run.notice_s=5", "run.scratch=/tmp/x"],
        ["train.backend=flax", "run.accelerator='tpu-v5e:4x4'"],
        ["run.accelerator=nvidia-l4", "run.nodes=2"],
        ["run.accelerator='cpu:2'", "run.nodes=2"],
        ["run.spot=true", "run.kubernetes={}"],
        ["run.accelerator='nvidia-t4:4'", "train.precision=fp16", "train.attention=xformers"],
        ["validation.prompts=[a]", "publish.0.to=out", "checkpoint={every_steps: 5, every_seconds: 60, keep: 1, keep_every: 10}"],
        ["track=[tensorboard, wandb]"],
        [
            "train.init_from=file:///weights",
            "data.split=test",
            "data.config=x",
            "data.max_samples=5",
            "data.crop=random",
            "data.flip=true",
        ],
        ["checkpoint.every=auto", "publish=[{to: out, every_steps: 5}]"],
        ["train.steps=null", "train.epochs=3", "train.loss={snr_gamma: 5, noise_offset: 0.1, input_perturbation: 0.1}"],
    ],
)
def test_what_works(overrides: list[str]):
    assert unsupported(job(*overrides)) == []


@pytest.mark.parametrize(
    ("field", "overrides"),
    [
        ("run.slices", ["train.backend=flax", "run.accelerator='tpu-v5e:4x4'", "run.slices=2"]),
    ],
)
def test_what_does_not_yet(field: str, overrides: list[str]):
    (sentence,) = unsupported(job(*overrides))
    assert sentence.startswith(f"{field}: this version cannot ")
    assert sentence.endswith(".")
