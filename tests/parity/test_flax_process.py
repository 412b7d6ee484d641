"""The flax trainer as a process: what it tells its parent, what it saves, and that it gets along without torch."""

import json
import os
import sys
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from fakes import flax_parity  # noqa: F401 - the child compiles as quickly as the other tests
from fakes.pictures import write_picture_folder
from fakes.tiny_models import write_tiny_model
from fakes.torch_runs import make_task
from sdjob.core.proc import start
from sdjob.data.index import scan
from sdjob.data.records import list_records
from sdjob.spec.task import write_task

STARTER = """\
import sys
from sdjob.train_flax.main import main
code = main()
foreign = {"torch", "diffusers", "transformers", "accelerate", "peft"} & sys.modules.keys()
sys.exit(f"imported {foreign}" if foreign else code)
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    scratch, pictures = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("pictures")
    write_tiny_model(scratch / "sd1", family="sd1")
    write_picture_folder(pictures, count=6)
    task = make_task(
        scratch / "sd1", scratch=scratch, run={"workers": 1}, train={"global_batch": 2, "device_batch": 2},
        checkpoint={"to": str(scratch / "runs"), "every_steps": 2},
        validation={"prompts": ["a red circle"], "images": 1, "inference_steps": 2},
    )  # fmt: skip
    records = list_records(pictures, image_column="image", caption_column="text")
    task.index.write_bytes(scan(pictures, records=records, workers=0).index.to_jsonl())
    return replace(task, pictures=pictures, total_steps=3)


def run(task):
    """(exit code, its messages)"""
    write_task(task, task.scratch / "task.json")
    child = start([sys.executable, "-P", "-c", STARTER], environment=os.environ)
    child.channel.send({"event": "task", "file": str(task.scratch / "task.json"), "environment": {}})
    messages = []
    for message in child.channel:
        messages.append(message)
        if message["event"] == "snapshot":
            child.channel.send({"event": "save-over"})
    child.process.wait()
    child.channel.close()
    return child.exit_code, messages


def test_from_the_first_step_to_the_last(task):
    code, messages = run(task)
    assert (code, messages[-1]["event"]) == (0, "finished"), messages[-1]
    assert [message["event"] for message in messages if message["event"] not in ("metrics", "snapshot", "compiled")] == [
        "imported", "ready", "samples", "finished",
    ]  # fmt: skip
    ready, metrics = messages[1], [message for message in messages if message["event"] == "metrics"]
    assert ready["fingerprint"]["backend"] == "flax"
    assert [message["step"] for message in metrics] == [1, 2, 3]
    snapshots = {message["step"]: message["folder"] for message in messages if message["event"] == "snapshot"}
    assert set(snapshots) == {2, 3}
    weights = load_file(f"{snapshots[3]}/weights.safetensors")
    assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in weights)
    assert json.loads((task.scratch / "snapshots" / "00000003" / "state.json").read_text())["step"] == 3
    assert [path.name for path in (task.scratch / "samples" / "00000003").iterdir()] == ["00-00.png"]


def test_what_it_cannot_is_an_exit_code_with_its_sentence(task):
    config = task.model / "unet" / "config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"resnet_time_scale_shift": "scale_shift"}))
    try:
        code, messages = run(task)
    finally:
        config.write_text(before)
    assert (code, messages[-1]["exit_code"]) == (64, 64)
    assert "resnet_time_scale_shift is 'scale_shift'; supported: 'default'" in messages[-1]["what"]
