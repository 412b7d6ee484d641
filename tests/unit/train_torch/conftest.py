"""One tiny model a kind and session; one thread, so that bits compare; accelerate's process-wide state made anew."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from fakes.tiny_models import write_tiny_model
from fakes.tiny_sdxl import write_tiny_sdxl


@pytest.fixture(scope="session")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    return folder


@pytest.fixture(scope="session")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd2"
    write_tiny_model(folder, family="sd2")
    return folder


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    write_tiny_sdxl(folder)
    return folder


@pytest.fixture(autouse=True)
def pinned():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)
