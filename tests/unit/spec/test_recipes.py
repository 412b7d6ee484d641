import pytest

from unit.spec.jobs import problems


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["train.loss={zero_terminal_snr: true, prediction: epsilon}"],
            ["train.loss.zero_terminal_snr", "a prediction of the noise says nothing of the picture", "v_prediction"],
        ),
        (
            ["train.backend=flax", "train.optimizer.name=prodigy"],
            ["train.optimizer.name", "prodigy is for torch", "allowed on flax: adamw, adafactor"],
        ),
        (["train.optimizer={name: adafactor, betas: [0.5, 0.9]}"], ["train.optimizer.betas", "does nothing with adafactor"]),
        (["train.optimizer={name: adafactor, epsilon: 1e-6}"], ["train.optimizer.epsilon", "does nothing with adafactor"]),
        (
            ["train.optimizer={name: prodigy, learning_rate: 1}", "train.lora={learning_rate_pattern: {to_q: 0.5}}"],
            ["train.lora.learning_rate_pattern", "prodigy has one learning rate"],
        ),
        (["train.lora={rank_pattern: {'to_(': 8}}"], ["train.lora.rank_pattern", "'to_(' is no regular expression"]),
        (["train.backend=flax", "train.lora={dora: true}"], ["train.lora.dora", "DoRA is for torch", "set false"]),
        (["model={source: a.safetensors, file: b.safetensors}"], ["model.file", "the source names a file too"]),
        (["model={source: a.safetensors, variant: fp16}"], ["model.variant", "a model in one file has no variants"]),
        (["model={source: folder, config: other}"], ["model.config", "does nothing beside a model folder"]),
        (["model={source: folder, file: a.ckpt}"], ["model.file"]),
        (["train.optimizer={prodigy: {d_coef: 2}}"], ["train.optimizer.prodigy", "does nothing with adamw"]),
    ],
)
def test_what_makes_no_sense_together(overrides, told):
    (problem,) = problems(*overrides)
    for words in told:
        assert words in problem


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.loss={zero_terminal_snr: true}"],
        ["train.optimizer={name: adafactor, weight_decay: 0}"],
        ["model={source: s3://bucket/models/a.safetensors, config: hf://me/base}"],
        ["model={source: hf://me/models, file: a.safetensors}"],
        ["train.ema={offload: true}", "train.backend=flax"],
        ["train.optimizer={name: prodigy, learning_rate: 1, prodigy: {d_coef: 2}}"],
    ],
)
def test_what_does(overrides):
    assert problems(*overrides) == []
