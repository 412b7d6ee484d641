"""Compiled blocks: the eager step to rounding, in programs of this process alone, which a pack brings to the next attempt."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from fakes.torch_runs import applied_gradients, make_micro, make_task, make_trainer, norm_of, randomize
from sdjob.train_torch import compiled
from sdjob.train_torch.compiled import BLOCKS, Compilation
from sdjob.train_torch.packs import unpack

# torch's compiler imports what torch has deprecated, and looks at what torch says not to look at.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No program of another test, and none of this one for the next."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "/nowhere")
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


ATTENTION, RESNETS = "mid_block.attentions.0", "mid_block.resnets"  # of the latter there are two, which are alike


class Heard:
    def __init__(self):
        self.messages = []

    def send(self, event, **fields):
        self.messages.append({"event": event, **fields})


class Attempt:
    """A trainer of which one block is compiled: the others would be more of the same, and take minutes."""

    def __init__(self, model, folder, *, method, block, **train):
        self.block = block
        (folder / "packs").mkdir(parents=True)
        task = make_task(model, method=method, scratch=folder, train={"compile": True, **train})
        self.task = replace(task, compiled=folder / "packs")
        self.trainer, self.link = make_trainer(self.task), Heard()
        if method == "lora":
            randomize(self.trainer.runner.state.parameters.values())

    def compile(self):
        unet, accelerator = self.trainer.runner.models.unet, self.trainer.runner.accelerator
        self.compilation = Compilation.begun(
            self.task, model=unet.get_submodule(self.block), accelerator=accelerator, link=self.link
        )
        return self

    def gradients(self):
        return applied_gradients(self.trainer.runner, [make_micro(self.task, step=0, rows=range(2))])


def as_eager(model, folder, **asked):
    attempt = Attempt(model, folder, **asked)
    eager = Attempt(model, folder / "eager", **asked).gradients()
    gradients = attempt.compile().gradients()
    assert norm_of(eager.values()) > 1e-3
    assert norm_of(gradients[name] - gradient for name, gradient in eager.items()) <= 1e-5 * norm_of(eager.values())
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    return attempt, gradients


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_lora_step_is_the_eager_one_to_rounding_and_its_programs_serve_the_next_attempt(sd1, tmp_path):
    shared = names_in(Path(default_cache_dir()))
    first, gradients = as_eager(sd1, tmp_path / "1", method="lora", block=ATTENTION)
    first.compilation.tell()
    first.compilation.tell()
    (told,) = first.link.messages
    assert (told["event"], told["seconds"] > 0, told["read"]) == ("compiled", True, [])
    (name,) = told["new"]
    assert any(path.endswith(".h.gch") for path in names_in(first.compilation.own)), "else a header is everybody's"
    assert names_in(Path(default_cache_dir())) == shared

    assert first.compilation.fingerprint()["compiler"].startswith(("gcc version ", "clang version "))

    torch.compiler.reset()
    counters.clear()
    second = Attempt(sd1, tmp_path / "2", method="lora", block=ATTENTION)
    (second.task.compiled / name).write_bytes((first.task.compiled / name).read_bytes())
    (second.task.compiled / "torch-strange-cache").write_bytes(b"no pack")
    again = second.compile().gradients()
    second.compilation.tell()
    assert counters["inductor"]["fxgraph_cache_hit"] == 2
    assert not counters["inductor"]["fxgraph_cache_miss"]
    (told,) = second.link.messages
    assert (told["new"], told["read"]) == ([], [name])
    assert again.keys() == gradients.keys()
    assert all(torch.equal(again[name], gradient) for name, gradient in gradients.items())
    libraries = {path for path in names_in(second.compilation.own) if path.endswith(".so")}
    assert libraries == {path for path in names_in(first.compilation.own) if path.endswith(".so")}


def test_a_full_step_with_checkpointing_is_the_eager_one_to_rounding(sd1, tmp_path):
    as_eager(sd1, tmp_path, method="full", block=RESNETS, gradient_checkpointing=True)


def test_every_block_is_compiled(sd1, tmp_path):
    unet = make_trainer(make_task(sd1, method="full")).runner.models.unet
    compiled.compile_blocks(unet)
    blocks = [module for module in unet.modules() if module._compiled_call_impl is not None]
    assert len(blocks) == sum(isinstance(module, BLOCKS) for module in unet.modules()) > 4


def test_what_is_computed_beside_the_steps_is_not_compiled(sd1, tmp_path):
    attempt = Attempt(sd1, tmp_path, method="lora", block=ATTENTION).compile()
    with attempt.trainer.uncompiled(), torch.no_grad():
        attempt.trainer.runner.models.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 16, 32))
    assert not counters["stats"]
    attempt.compilation.tell()
    assert attempt.link.messages == []


@pytest.mark.parametrize(("deterministic", "march"), [(True, "x86-64-v3"), (False, None)])
def test_code_is_held_to_the_instructions_of_the_run(tmp_path, monkeypatch, deterministic, march):
    from torch._inductor import config

    monkeypatch.setattr(compiled.platform, "machine", lambda: "x86_64")
    compiled.settle(tmp_path, deterministic=deterministic, isa="avx2")
    assert (config.deterministic, config.cpp.march) == (deterministic, march)


def test_ranks_of_a_cpu_have_the_same_programs_and_the_first_one_tells_of_them(tmp_path, monkeypatch):
    for rank, device, told in ((0, "cpu", True), (1, "cpu", False), (1, "cuda", True)):
        monkeypatch.setattr("torch._dynamo.utils.calculate_time_spent", lambda: {"total_wall_time": 2.0})
        accelerator = SimpleNamespace(process_index=rank, is_main_process=rank == 0, device=torch.device(device))
        compilation = Compilation(link := Heard(), accelerator, tmp_path, None)
        compilation.tell()
        expected = [{"event": "compiled", "seconds": None if rank else 2.0, "new": [], "read": []}]
        assert link.messages == (expected if told else [])


def test_a_pack_that_is_cut_leaves_nothing(tmp_path):
    from sdjob.train_torch.packs import pack

    (tmp_path / "a.so").write_bytes(bytes(100_000))
    whole = tmp_path / pack(["a.so"], of=tmp_path, into=tmp_path)
    assert unpack(whole, into=tmp_path / "all") == {"a.so"}
    whole.write_bytes(whole.read_bytes()[:-9])
    assert unpack(whole, into=tmp_path / "none") == set()
    assert not (tmp_path / "none").exists()
