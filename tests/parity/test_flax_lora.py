"""LoRA in flax against peft's in torch: names, first values, what it computes, its gradients, its dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel as TorchUNet
from flax import nnx

from fakes.checkpoints import make_job, write_checkpoint
from fakes.flax_parity import assert_gradients_agree, channels_first, channels_last, distance, write_family
from fakes.flax_runs import make_flax_trainer
from fakes.torch_runs import make_task
from sdjob.core.errors import UsageError
from sdjob.diffusion.tensor_file import read_tensors, write_tensors
from sdjob.job.weights import build_published
from sdjob.spec.train import LoraSpec
from sdjob.train_flax.lora import adaptable_layers, add_lora, attach_lora, load_lora, lora_tensors, set_dropout_keys
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import from_file, read_unet
from sdjob.train_flax.models.layers import Compute, Dense, LoraParam
from sdjob.train_torch import lora as torch_lora

ATTENTION = LoraSpec().targets
EVERYTHING = (*ATTENTION, "proj_in", "ff.net.0.proj", "ff.net.2", "conv1", "conv_shortcut", "time_emb_proj", "conv")
PATTERNS = {
    "rank_pattern": {"attn1.to_k": 5, "mid_block.*to_v": 1},
    "alpha_pattern": {"to_k": 1.0, "conv1": 4.0, "down_blocks.0.*": 2.0},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {family: write_family(tmp_path_factory.mktemp("models"), family) / "unet" for family in ("sd1", "sd2")}


def both(folder, spec, *, seed=0):
    """The flax UNet and torch's, each with the job's LoRA as its trainer adds it."""
    ours, theirs = read_unet(folder), TorchUNet.from_pretrained(folder).eval()
    add_lora(ours, spec=spec, seed=seed)
    torch_lora.add_lora(theirs, spec=spec, seed=seed)
    return ours, theirs


def values_of(tensors, folder):
    """What a checkpoint would hold."""
    write_tensors(folder / "lora.safetensors", tensors=tensors, metadata={})
    return {name: from_file(stored, dtype=np.float32) for name, stored in read_tensors(folder / "lora.safetensors").items()}


@pytest.mark.parametrize(("family", "targets"), [("sd1", ATTENTION), ("sd1", EVERYTHING), ("sd2", EVERYTHING)])
def test_names_shapes_and_first_values(models, tmp_path, family, targets):
    ours, theirs = both(models[family], LoraSpec(rank=3, targets=targets), seed=5)
    written, expected = values_of(lora_tensors(ours), tmp_path), torch_lora.lora_parameters(theirs)
    assert written.keys() == expected.keys()
    for name, parameter in expected.items():
        assert np.array_equal(written[name], parameter.detach().numpy()), name


def test_only_adapters_are_of_their_own_type(models):
    ours, theirs = both(models["sd1"], LoraSpec())
    assert len(jax.tree.leaves(nnx.state(ours, LoraParam))) == len(torch_lora.lora_parameters(theirs))
    base = names.parameters_of(ours)
    assert base.keys() == {name for name, _ in TorchUNet.from_pretrained(models["sd1"]).named_parameters()}


def test_prediction_and_gradients(models):
    """Every kind of layer, ranks and alphas by pattern, which torch leaves to peft."""
    spec = LoraSpec(rank=3, alpha=6.0, targets=EVERYTHING, **PATTERNS)
    ours, theirs = both(models["sd1"], spec)
    generator = torch.Generator().manual_seed(1)
    parameters = torch_lora.lora_parameters(theirs)
    for parameter in parameters.values():
        parameter.data.normal_(std=0.2, generator=generator)
    tensors = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    load_lora({"unet": ours}, tensors, file="lora.safetensors")
    noisy, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 32, generator=generator)
    predicted = theirs(noisy, torch.tensor([5, 800]), text).sample
    predicted.square().mean().backward()
    scales = {layer.lora_scale for layer in adaptable_layers(ours).values() if layer.lora_A is not None}
    assert scales == {6 / 3, 1 / 5, 1 / 3, 4 / 3, 2 / 3, 6 / 1}

    graph, adapters, frozen = nnx.split(ours, LoraParam, ...)

    def loss(adapters, frozen):
        predicted = nnx.merge(graph, adapters, frozen)(channels_last(noisy), np.array([5, 800]), text.numpy())
        return jnp.square(predicted).mean(), predicted

    gradients, own = jax.jit(jax.grad(loss, has_aux=True))(adapters, frozen)
    assert distance(channels_first(own), predicted) <= 1e-4
    flat = nnx.to_flat_state(gradients)
    named = {f"unet.{names.torch_name(path)}": names.to_torch(path, np.asarray(v.get_value())) for path, v in flat}
    assert_gradients_agree(named, {name: parameter.grad for name, parameter in parameters.items()})


def test_a_published_file_is_drawn_with_its_own_ranks_and_alphas(models, tmp_path):
    job = make_job(train={"lora": {"rank": 3, "alpha": 6.0, "targets": list(EVERYTHING), **PATTERNS}})
    ours = read_unet(models["sd1"])
    add_lora(ours, spec=job.train.lora, seed=0)
    random = np.random.default_rng(0)
    drawn = {
        name: random.standard_normal(values.shape).astype(np.float32)
        for name, values in values_of(lora_tensors(ours), tmp_path).items()
    }
    load_lora({"unet": ours}, drawn, file="lora.safetensors")
    write_checkpoint(tmp_path / "checkpoint", weights=drawn)
    build_published(tmp_path / "checkpoint", job=job, model_dir=None, out=tmp_path / "out")
    bare = read_unet(models["sd1"])
    attach_lora({"unet": bare}, tmp_path / "out" / "pytorch_lora_weights.safetensors")
    for name, layer in adaptable_layers(ours).items():
        other = adaptable_layers(bare)[name]
        assert (layer.lora_A is None) == (other.lora_A is None)
        if layer.lora_A is not None:
            assert other.lora_scale == layer.lora_scale, name
            assert np.array_equal(other.lora_A.get_value(), layer.lora_A.get_value()), name


class TestDropout:
    @staticmethod
    def layer(dropout):
        layer = Dense(64, 8, compute=Compute(), rngs=nnx.Rngs(0))
        random = np.random.default_rng(0)
        A, B = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in [(64, 2), (2, 8)])
        layer.attach_lora(A=A, B=B, scale=0.5, dropout=dropout)
        return layer

    @staticmethod
    def outputs(layer, key):
        if key is not None:
            set_dropout_keys(nnx.List([layer]), jax.random.key(key))
        return np.asarray(layer(jnp.ones((4000, 64))))

    def test_it_is_a_function_of_the_key_and_off_without_one(self):
        drawn = {key: self.outputs(self.layer(0.25), key) for key in (None, 1, 2)}
        assert np.array_equal(drawn[1], self.outputs(self.layer(0.25), 1))
        assert not np.array_equal(drawn[1], drawn[2])
        assert np.array_equal(drawn[None], self.outputs(self.layer(0.0), 1))

    def test_the_mean_stays_and_inputs_fall_out_at_its_rate(self):
        layer = self.layer(0.25)
        whole, dropped = self.outputs(self.layer(0.0), None), self.outputs(layer, 3)
        assert np.abs(dropped.mean(0) - whole.mean(0)).max() <= 0.1 * np.abs(whole).max()
        kept = np.asarray(layer._dropped(jnp.ones((4000, 64))))
        assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
        assert (kept == 0).mean() == pytest.approx(0.25, abs=0.01)

    def test_each_layer_drops_for_itself(self):
        layers = nnx.List([self.layer(0.5), self.layer(0.5)])
        set_dropout_keys(layers, jax.random.key(0))
        first, second = (np.asarray(layer._dropped(jnp.ones((1, 64)))) for layer in layers)
        assert not np.array_equal(first, second)


class TestRefusals:
    def test_no_such_layer(self, models):
        with pytest.raises(UsageError, match="no layer named to_x or q"):
            add_lora(read_unet(models["sd1"]), spec=LoraSpec(targets=("to_x", "q")), seed=0)

    def test_a_pattern_that_nothing_is_called(self, models):
        with pytest.raises(UsageError, match="no module with a LoRA is called 'to_qq'") as caught:
            make_flax_trainer(make_task(models["sd1"].parent, train={"lora": {"rank_pattern": {"to_qq": 2}}}))
        assert caught.value.where == "train.lora.rank_pattern"

    @pytest.mark.parametrize("spoil", ["missing", "surplus", "misshapen"])
    def test_other_layers_or_another_rank(self, models, tmp_path, spoil):
        ours = read_unet(models["sd1"])
        add_lora(ours, spec=LoraSpec(), seed=0)
        tensors = values_of(lora_tensors(ours), tmp_path)
        name = min(tensors)
        change = {
            "missing": partial(tensors.pop, name),
            "surplus": partial(tensors.update, {"unet.conv_in.lora_A.weight": tensors[name]}),
            "misshapen": partial(tensors.update, {name: np.zeros((5, 32), np.float32)}),
        }
        change[spoil]()
        with pytest.raises(UsageError, match=name if spoil != "surplus" else "unet.conv_in.lora_A.weight"):
            load_lora({"unet": ours}, tensors, file="lora.safetensors")
