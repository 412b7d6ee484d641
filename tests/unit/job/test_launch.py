"""The trainer's command line and environment."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.spec.task import TrainTask

TASK = Path("/scratch/task.json")


def commands(environment=None, **shape):
    whole = {"backend": "torch", "num_processes": 1, "devices": 1, "device": "cpu", "threads": 2, "deterministic": True}
    full = {**whole, "port": 29500, **shape}
    return trainer_commands(TASK, shape=GangShape(**full), environment=environment or {"HOME": "/home"})


def test_one_process():
    (command,) = commands()
    assert command.argv == (sys.executable, "-P", "-m", "sdjob.train_torch")
    assert command.task == {"event": "task", "file": "/scratch/task.json", "environment": {}}
    assert command.environment["HOME"] == "/home"
    assert command.environment["OMP_NUM_THREADS"] == command.environment["MKL_NUM_THREADS"] == "2"
    assert command.environment["HF_HUB_OFFLINE"] == "1"
    assert "RANK" not in command.environment


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gang_meets_on_this_machine(device):
    made = commands(num_processes=3, device=device)
    assert len({command.argv for command in made}) == 1
    for rank, command in enumerate(made):
        environment = command.task["environment"]
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (environment["WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]) == ("3", "3")
        assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("127.0.0.1", "29500")
        assert ("GLOO_SOCKET_IFNAME" in environment) == (device == "cpu")


def test_arithmetic_on_a_cpu_is_held_to_the_runs_own_instructions_where_it_must_be_exact():
    exact, wide = commands()[0].environment, commands(isa="avx512")[0].environment
    fast = commands(deterministic=False, isa="avx512")[0].environment
    assert exact["ATEN_CPU_CAPABILITY"] == "avx2"
    assert exact["ONEDNN_MAX_CPU_ISA"] == exact["MKL_CBWR"] == "AVX2"
    assert (wide["ATEN_CPU_CAPABILITY"], wide["ONEDNN_MAX_CPU_ISA"], wide["MKL_CBWR"]) == ("avx512", "AVX512_CORE", "AVX512")
    assert not {"ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"} & fast.keys()


def test_memory_is_kept_from_step_to_step_unless_malloc_is_set_or_another():
    names = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"}
    assert not names & commands()[0].environment.keys()
    assert names <= commands(keeps_memory=True)[0].environment.keys()
    for own in ({"MALLOC_ARENA_MAX": "1"}, {"LD_PRELOAD": "libjemalloc.so"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}):
        assert not names & commands(own, keeps_memory=True)[0].environment.keys()


@pytest.mark.parametrize(
    ("method", "changed", "keeps"),
    [("full", {}, True), ("lora", {}, False), ("full", {"device": "cuda"}, False)],
    ids=["full", "lora", "cuda"],
)
def test_a_full_run_of_torch_on_a_cpu_keeps_its_memory(tmp_path, method, changed, keeps):
    job = make_job(method)
    task = TrainTask(
        job=job, model=tmp_path, pictures=tmp_path, index=tmp_path, scratch=tmp_path, total_steps=1, start_step=0,
        restore_from=None, init_from=None, device="cpu", threads=1,
    )  # fmt: skip
    assert GangShape.of(replace(task, **changed), num_processes=1, num_devices=1).keeps_memory is keeps


@pytest.mark.parametrize("deterministic", [True, False])
def test_arithmetic_on_cuda(deterministic):
    (command,) = commands(device="cuda", deterministic=deterministic)
    assert ("CUBLAS_WORKSPACE_CONFIG" in command.environment) is deterministic
    assert "ACCELERATE_USE_CPU" not in command.environment


def test_what_the_run_needs_goes_before_what_the_shell_had():
    (command,) = commands({"OMP_NUM_THREADS": "64", "HF_HUB_OFFLINE": "0"})
    assert (command.environment["OMP_NUM_THREADS"], command.environment["HF_HUB_OFFLINE"]) == ("2", "1")


def test_the_given_environment_is_not_changed():
    given = {"HOME": "/home"}
    commands(given)
    assert given == {"HOME": "/home"}


def test_an_outer_launchers_rendezvous_is_not_passed_on(tmp_path):
    outer = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "10.0.0.1", "HOME": "/home/me"}
    shape = GangShape(backend="torch", num_processes=1, devices=1, device="cpu", threads=1, deterministic=True, port=1234)
    (command,) = trainer_commands(tmp_path / "task.json", shape=shape, environment=outer)
    assert command.environment["HOME"] == "/home/me"
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} & command.environment.keys()
    assert command.task["environment"] == {}
    assert command.argv[1:4] == ("-P", "-m", "sdjob.train_torch")


class TestFlax:
    def test_one_process_for_all_devices(self):
        (command,) = commands(backend="flax", devices=8)
        assert command.argv[3] == "sdjob.train_flax"
        assert "--xla_force_host_platform_device_count=8" in command.environment["XLA_FLAGS"].split()
        assert command.environment["JAX_PLATFORMS"] == "cpu"

    def test_devices_that_share_the_cores_wait_for_each_other(self):
        flags = [commands(backend="flax", devices=devices)[0].environment["XLA_FLAGS"] for devices in (1, 8)]
        assert ["terminate_timeout_seconds=7200" in text for text in flags] == [False, True]

    def test_a_persons_own_flags_stay(self):
        (command,) = commands({"XLA_FLAGS": "--xla_dump_to=/dump"}, backend="flax")
        assert command.environment["XLA_FLAGS"].split()[0] == "--xla_dump_to=/dump"

    @pytest.mark.parametrize("deterministic", [True, False])
    def test_arithmetic_on_a_cpu(self, deterministic):
        (command,) = commands(backend="flax", deterministic=deterministic)
        assert ("--xla_cpu_max_isa=AVX2" in command.environment["XLA_FLAGS"]) is deterministic

    def test_threads_are_those_of_the_run_and_not_of_the_machine(self):
        (command,) = commands({"PJRT_NPROC": "64"}, backend="flax", threads=3)
        assert command.environment["PJRT_NPROC"] == "3"

    def test_a_tpu_is_left_to_jax(self):
        (command,) = commands(backend="flax", device="tpu", devices=8)
        assert not {"JAX_PLATFORMS", "XLA_FLAGS"} & command.environment.keys()


GANG = {"node": 1, "nodes": 3, "num_processes": 2, "host": "first.gang", "interface": "eth7"}


class TestNodes:
    def test_ranks_go_on_from_node_to_node(self):
        made = [command.task["environment"] for command in commands(**GANG)]
        assert [environment["RANK"] for environment in made] == ["2", "3"]
        assert [environment["LOCAL_RANK"] for environment in made] == ["0", "1"]
        assert {environment["WORLD_SIZE"] for environment in made} == {"6"}
        assert {environment["LOCAL_WORLD_SIZE"] for environment in made} == {"2"}
        assert {environment["MASTER_ADDR"] for environment in made} == {"first.gang"}

    def test_every_rank_is_there_once(self):
        made = [command for node in range(3) for command in commands(**{**GANG, "node": node})]
        assert sorted(command.task["environment"]["RANK"] for command in made) == list("012345")

    def test_one_process_of_each_node_is_a_rank_too(self):
        (command,) = commands(node=1, nodes=2, host="first.gang")
        assert (command.task["environment"]["RANK"], command.task["environment"]["LOCAL_RANK"]) == ("1", "0")

    def test_the_network_is_the_one_to_the_others_unless_a_person_says(self):
        def interface(environment=None, **gang):
            (command, _) = commands(environment, **gang)
            return {**command.environment, **command.task["environment"]}.get("GLOO_SOCKET_IFNAME")

        assert interface(**GANG) == "eth7"
        assert interface({"GLOO_SOCKET_IFNAME": "ib0"}, **GANG) == "ib0"
        assert interface(**{**GANG, "interface": None}) is None

    def test_one_flax_process_of_each_node(self):
        (command,) = commands(backend="flax", devices=1, nodes=2, node=1, host="first.gang")
        assert (command.task["environment"]["RANK"], command.task["environment"]["WORLD_SIZE"]) == ("1", "2")
        assert "terminate_timeout_seconds=7200" in command.environment["XLA_FLAGS"]
