"""LoRA as peft makes it, under our names, from our draws; and what `train.init_from` may start from."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from fakes.checkpoints import write_checkpoint
from fakes.torch_runs import make_micro, make_task, make_trainer, randomize
from sdjob.core.errors import UsageError
from sdjob.diffusion.lora_scale import scale_of
from sdjob.job.weights import build_published
from sdjob.spec.train import LoraSpec
from sdjob.train_torch.lora import add_lora, lora_parameters

TARGETS = LoraSpec().targets
TEXT_PATTERNS = {"rank_pattern": {"text_model.encoder.layers.0.*q_proj": 2}, "alpha_pattern": {"v_proj": 1.0, "to_k": 2.0}}
PATTERNS = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"mid_block.*to_k": 1.0}}


def base_unet(model, **options):
    return UNet2DConditionModel.from_pretrained(model, subfolder="unet", **options)


def with_lora(model, **spec):
    unet = base_unet(model)
    add_lora(unet, spec=LoraSpec(**spec), seed=0)
    return unet.eval()


def output(unet, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 16, 32, generator=generator)
    with torch.no_grad():
        return unet(noisy, torch.tensor([7, 900]), states, return_dict=False)[0]


def matrices(unet, which):
    return {name: p for name, p in lora_parameters(unet).items() if f".lora_{which}." in name}


class TestAdapters:
    def test_names_are_pefts_behind_unet(self, sd1):
        unet = with_lora(sd1)
        pefts = get_peft_model_state_dict(unet, adapter_name="default")
        assert set(lora_parameters(unet)) == {f"unet.{name}" for name in pefts}
        for name, values in pefts.items():
            assert torch.equal(lora_parameters(unet)[f"unet.{name}"], values)

    def test_only_adapters_are_trained(self, sd1):
        unet = with_lora(sd1)
        trained = [p for p in unet.parameters() if p.requires_grad]
        assert {id(p) for p in trained} == {id(p) for p in lora_parameters(unet).values()}
        # Four matrices of every attention layer, each an A and a B.
        assert len(trained) == sum(type(m).__name__ == "Attention" for m in unet.modules()) * 4 * 2

    def test_A_has_pefts_distribution_and_B_is_zero(self, sd1):
        ours = with_lora(sd1, rank=8)
        theirs = base_unet(sd1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            theirs.add_adapter(LoraConfig(r=8, target_modules=list(TARGETS), init_lora_weights=True))
        scaled = []
        for unet in (ours, theirs):
            # kaiming_uniform_ with a = sqrt(5): uniform within 1 / sqrt(fan_in)
            drawn = [a.detach().double() * math.sqrt(a.shape[1]) for a in matrices(unet, "A").values()]
            scaled.append(torch.cat([a.flatten() for a in drawn]))
            assert all(bool((b == 0).all()) for b in matrices(unet, "B").values())
        for values in scaled:
            assert values.abs().max() <= 1 + 1e-6
            assert values.std() == pytest.approx(1 / math.sqrt(3), rel=0.03)
        quantiles = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
        assert torch.quantile(scaled[0], quantiles) == pytest.approx(torch.quantile(scaled[1], quantiles), abs=0.05)

    def test_A_is_the_same_in_every_precision(self, sd1):
        wide, narrow = base_unet(sd1), base_unet(sd1, dtype=torch.bfloat16)
        for unet in (wide, narrow):
            add_lora(unet, spec=LoraSpec(), seed=3)
        for name, parameter in lora_parameters(narrow).items():
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, lora_parameters(wide)[name])

    def test_the_first_step_starts_at_the_base_model_bit_for_bit(self, sd1):
        assert torch.equal(output(with_lora(sd1)), output(base_unet(sd1).eval()))

    @pytest.mark.parametrize(("rank", "alpha"), [(4, 4.0), (4, 8.0), (2, 1.0)])
    def test_alpha_over_rank_scales_the_product(self, sd1, rank, alpha):
        unet = with_lora(sd1, rank=rank, alpha=alpha)
        randomize(lora_parameters(unet).values(), scale=0.2)
        merged, pairs = base_unet(sd1).eval(), lora_parameters(unet)
        for name, weight in merged.named_parameters():
            stem = f"unet.{name.removesuffix('.weight')}"
            if f"{stem}.lora_A.weight" in pairs:
                product = pairs[f"{stem}.lora_B.weight"] @ pairs[f"{stem}.lora_A.weight"]
                weight.data += alpha / rank * product
        assert (output(unet) - output(base_unet(sd1).eval())).abs().max() > 0.01
        assert output(unet) == pytest.approx(output(merged), abs=1e-4)

    def test_targets_that_the_model_lacks_are_a_mistake_in_the_job(self, sd1):
        with pytest.raises(UsageError, match="no layer named to_nothing") as caught:
            with_lora(sd1, targets=("to_nothing",))
        assert caught.value.where == "train.lora.targets"

    def test_ranks_and_alphas_by_pattern(self, sd1):
        """The first pattern that matches counts, as in peft; what none matches has the job's own."""
        patterns = {"rank_pattern": {"mid_block.*to_q": 3, "to_q": 2}, "alpha_pattern": {"to_q": 1.0}}
        unet = with_lora(sd1, alpha=8.0, **patterns)
        found = {
            name: (module.r["default"], module.scaling["default"])
            for name, module in unet.named_modules()
            if hasattr(module, "r")
        }
        for name, own in found.items():
            middle = name.startswith("mid_block")
            assert own == (((3, 1 / 3) if middle else (2, 1 / 2)) if name.endswith("to_q") else (4, 2.0)), name
            module = scale_of(name, lora=LoraSpec(alpha=8.0, **patterns))
            assert (module.rank, module.factor) == own

    def test_a_pattern_that_nothing_is_called_is_a_mistake(self, sd1):
        with pytest.raises(UsageError, match="no module with a LoRA is called 'to_qq'") as caught:
            make_trainer(make_task(sd1, train={"lora": {"alpha_pattern": {"to_qq": 1.0}}}))
        assert caught.value.where == "train.lora.alpha_pattern"

    def test_learning_rates_by_pattern(self, sd1):
        """Adam's first update is the learning rate itself, whatever the gradient; B starts at zero."""
        train = {
            "lora": {"learning_rate_pattern": {"mid_block.*to_q": 0.0, "to_q": 3e-3, "to_k": 1e-4}},
            "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-30, "weight_decay": 0.0, "max_grad_norm": None},
        }
        trainer = make_trainer(make_task(sd1, train=train))
        trainer.step([make_micro(trainer.task, step=0, rows=range(2))], step=0, stop_wanted=False).read()
        for name, parameter in matrices(trainer.runner.models.unet, "B").items():
            rate = 0.0 if "mid_block" in name and "to_q" in name else 3e-3 if "to_q" in name else 1e-4 if "to_k" in name else 1e-3
            assert parameter.detach().abs().max().item() == pytest.approx(rate, rel=1e-4), name

    def test_other_targets_reach_convolutions(self, sd1):
        unet = with_lora(sd1, targets=("conv1",))
        assert all(a.ndim == 4 for a in matrices(unet, "A").values())
        assert torch.equal(output(unet), output(base_unet(sd1).eval()))


class TestInitFrom:
    """A LoRA that was trained and published is taken as a start in both of its forms."""

    def published(self, model, folder, *, rank=4, alpha=4.0, targets=TARGETS, text_encoder="frozen", **patterns):
        lora = {"rank": rank, "alpha": alpha, "targets": list(targets), **patterns}
        task = make_task(model, train={"lora": lora, "text_encoder": text_encoder})
        parameters = make_trainer(task).runner.state.parameters
        randomize(parameters.values(), seed=9)
        arrays = {name: p.detach().numpy().copy() for name, p in parameters.items()}
        write_checkpoint(folder / "checkpoint", weights=arrays)
        build_published(folder / "checkpoint", job=task.job, model_dir=model, out=folder / "out")
        return arrays, folder / "out/pytorch_lora_weights.safetensors", folder / "out/tiny.kohya.safetensors"

    @pytest.mark.parametrize("lora", [{}, {"alpha": 8.0}, {"alpha": 8.0, **PATTERNS}], ids=["plain", "alpha", "patterns"])
    @pytest.mark.parametrize("form", [1, 2], ids=["diffusers", "kohya"])
    def test_both_forms(self, sd1, tmp_path, form, lora):
        wanted, *files = self.published(sd1, tmp_path, **lora)
        task = make_task(sd1, train={"lora": {"rank": 4, "alpha": 4.0, **lora}})
        started = make_trainer(task, init_from=files[form - 1]).runner.state.parameters
        assert started.keys() == wanted.keys()
        for name, values in wanted.items():
            assert np.array_equal(started[name].detach().numpy(), values), name

    @pytest.mark.parametrize("form", [1, 2], ids=["diffusers", "kohya"])
    @pytest.mark.parametrize("family", ["sd1", "sdxl"])
    def test_text_encoders_too(self, request, tmp_path, family, form):
        model = request.getfixturevalue(family)
        lora = {"targets": [*TARGETS, "proj_in"], **TEXT_PATTERNS}
        wanted, *files = self.published(model, tmp_path, **lora, text_encoder="lora")
        train = {"lora": lora, "text_encoder": "lora"}
        started = make_trainer(make_task(model, train=train), init_from=files[form - 1]).runner.state.parameters
        assert started.keys() == wanted.keys()
        for name, values in wanted.items():
            assert np.array_equal(started[name].detach().numpy(), values), name

    @pytest.mark.parametrize("form", [1, 2], ids=["diffusers", "kohya"])
    @pytest.mark.parametrize(("given", "count"), [("lora", "too many"), ("frozen", "missing")])
    def test_text_encoders_of_one_side_alone(self, sd1, tmp_path, form, given, count):
        file = self.published(sd1, tmp_path, text_encoder=given)[form]
        asked = {"lora": "frozen", "frozen": "lora"}[given]
        with pytest.raises(UsageError, match=rf"train\.text_encoder name.*[1-9]\d* {count}.*text_encoder to {given}"):
            make_trainer(make_task(sd1, train={"text_encoder": asked}), init_from=file)

    def test_a_lora_of_another_kind_of_model(self, sd1, tmp_path):
        save_file({"transformer.blocks.0.lora_A.weight": torch.zeros(4, 4)}, tmp_path / "flux.safetensors")
        with pytest.raises(UsageError, match=r"flux\.safetensors holds the tensor 'transformer") as caught:
            make_trainer(make_task(sd1), init_from=tmp_path / "flux.safetensors")
        assert caught.value.where == "train.init_from"

    @pytest.mark.parametrize("form", [1, 2], ids=["diffusers", "kohya"])
    def test_another_rank(self, sd1, tmp_path, form):
        file = self.published(sd1, tmp_path, rank=8, alpha=8.0)[form]
        with pytest.raises(UsageError, match=r"has shape \(8, \d+\).*but train.lora.rank asks for \(4, \d+\)") as caught:
            make_trainer(make_task(sd1), init_from=file)
        assert caught.value.where == "train.init_from"

    @pytest.mark.parametrize(("targets", "words"), [(("to_q",), "missing, 0 too many"), ((*TARGETS, "proj_in"), "0 missing")])
    def test_other_targets(self, sd1, tmp_path, targets, words):
        file = self.published(sd1, tmp_path, targets=targets)[1]
        with pytest.raises(UsageError, match=words):
            make_trainer(make_task(sd1), init_from=file)

    @pytest.mark.parametrize("form", [1, 2], ids=["diffusers", "kohya"])
    def test_another_alpha_would_be_another_function(self, sd1, tmp_path, form):
        file = self.published(sd1, tmp_path, alpha=8.0)[form]
        with pytest.raises(UsageError, match=r"alpha 8 at rank 4.*alpha is 4.*own"):
            make_trainer(make_task(sd1), init_from=file)

    @pytest.mark.parametrize("form", [1, 2], ids=["diffusers", "kohya"])
    def test_another_alpha_of_some_modules(self, sd1, tmp_path, form):
        file = self.published(sd1, tmp_path, **PATTERNS)[form]
        with pytest.raises(UsageError, match=r"alpha 1 at rank 4.*alpha is 4"):
            make_trainer(make_task(sd1, train={"lora": {"rank_pattern": {"to_q": 2}}}), init_from=file)

    def test_the_start_weighs_in_the_average_from_its_beginning(self, sd1, tmp_path):
        wanted, file, _ = self.published(sd1, tmp_path)
        state = make_trainer(make_task(sd1, train={"ema": {"decay": 0.9}}), init_from=file).runner.state
        for name, shadow in zip(state.parameters, state.ema.shadow_params, strict=True):
            assert np.array_equal(shadow.numpy(), wanted[name])

    def test_full_from_a_unets_folder(self, sd1, tmp_path):
        other = base_unet(sd1)
        randomize(other.parameters(), seed=4)
        other.save_pretrained(tmp_path / "unet")
        started = make_trainer(make_task(sd1, method="full"), init_from=tmp_path / "unet").runner.state.parameters
        for name, values in other.named_parameters():
            assert torch.equal(started[f"unet.{name}"], values)

    def test_full_from_another_architecture(self, sd1, sd2):
        with pytest.raises(UsageError, match="another architecture") as caught:
            make_trainer(make_task(sd1, method="full"), init_from=sd2 / "unet")
        assert caught.value.where == "train.init_from"

    def test_a_checkpoint_goes_before_a_start(self, sd1, tmp_path):
        _, file, _ = self.published(sd1, tmp_path)
        trainer = make_trainer(make_task(sd1), init_from=file)
        runner = trainer.runner
        runner.run([make_micro(trainer.task, step=0, rows=range(2))], step=0, stop_wanted=False)
        metrics = runner.run([make_micro(trainer.task, step=1, rows=range(2))], step=1, stop_wanted=False).read()
        (tmp_path / "saved").mkdir()
        trainer.snapshot(step=2, metrics=metrics).write_into(tmp_path / "saved")
        again = make_trainer(trainer.task, checkpoint=tmp_path / "saved", init_from=file).runner.state.parameters
        for name, parameter in runner.state.parameters.items():
            assert torch.equal(again[name], parameter)
