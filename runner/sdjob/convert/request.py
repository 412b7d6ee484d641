"""What the rules of the mapping are asked, and what they answer."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdjob.convert.flags import FILES, Flag, Script, Value, flags_of
from sdjob.convert.launch import Launch


@dataclass(frozen=True)
class Setting:
    """One field of the job file."""

    path: str
    """As `train.lora.rank`."""
    value: Any
    flag: str = ""
    """The flag that it comes from, for messages about the value."""
    comment: str = ""
    """Where the value comes from, where that is not obvious."""
    always: bool = False
    """Written even where it is what an absent field means, because a reader looks for it."""
    above: bool = False
    """The comment stands above the field."""


@dataclass(frozen=True)
class Note:
    """Something of the command that the job file cannot say, or says differently."""

    flag: str
    """As it is spelled, with its hyphens; empty where it is about the command as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.flag}: {self.text}" if self.flag else self.text


Answer = Setting | Note


@dataclass(frozen=True)
class Request:
    """A command line, read."""

    script: Script
    given: Mapping[str, Value]
    launch: Launch
    uses_accelerate: bool
    """Whether `accelerate launch` starts the script, and fills in what its configuration on that machine says."""
    is_folder_here: Callable[[str], bool]
    """Whether a path exists where the command is converted."""
    num_devices: int | None = None
    """`--devices`: how many there were, where the command does not say."""
    num_dataset_pictures: int | None = None
    """`--pictures`: how many the data set has."""

    def flag(self, name: str) -> Flag:
        return flags_of(self.script)[name]

    def has(self, name: str) -> bool:
        """Whether the flag is given."""
        return name in self.given

    def value(self, name: str) -> Any:
        """What the script works with: the value that is given, or its default; None for a flag that it does not have."""
        if name in self.given:
            return self.given[name]
        return self.flag(name).default_of(self.script) if name in flags_of(self.script) else None

    @property
    def file(self) -> str:
        return FILES[self.script]

    @property
    def devices(self) -> int:
        """Of the whole run; one where nothing says how many."""
        if self.num_devices is not None:
            return self.num_devices
        return self.launch.processes or 1

    @property
    def devices_known(self) -> bool:
        return self.num_devices is not None or self.launch.processes is not None

    @property
    def accumulation(self) -> int:
        return self.value("gradient_accumulation_steps") or 1

    @property
    def global_batch(self) -> int:
        return self.value("train_batch_size") * self.accumulation * self.devices

    @property
    def num_pictures(self) -> int | None:
        """That are trained on, where it is known."""
        return self.value("max_train_samples") or self.num_dataset_pictures

    @property
    def steps_per_epoch(self) -> int | None:
        """As the scripts count them: torch's keep an epoch's short batches, flax's drops them.

        torch's round up three times, over batches, processes and accumulation, which is rounding up once.
        """
        if self.num_pictures is None or self.global_batch < 1:
            return None
        if self.script == "flax":
            return self.num_pictures // self.global_batch
        return math.ceil(self.num_pictures / self.global_batch)
