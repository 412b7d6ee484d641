"""Which Stable Diffusion a diffusers model folder holds, told from its own configuration."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdjob.core.errors import DataError, MissingError

Family = Literal["sd1", "sd2", "sdxl"]
UNET_CONFIG, SCHEDULER_CONFIG = FAMILY_FILES = ("unet/config.json", "scheduler/scheduler_config.json")


@dataclass(frozen=True)
class BaseModel:
    family: Family
    v_prediction: bool
    zero_terminal_snr: bool = False


def read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError(
            "the model folder lacks this file.", where=str(path), next_step="It must be a pipeline in diffusers' format."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is not JSON: {error}.", where=str(path), next_step="Take the model's own file again.") from error


def family_of(unet_config: dict[str, Any]) -> Family:
    """SDXL adds time ids to the embedding; SD 2.x projects its attention's input linearly, SD 1.x by 1 x 1 convolutions."""
    if unet_config.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if unet_config.get("use_linear_projection") else "sd1"


def read_base_model(model_dir: Path) -> BaseModel:
    scheduler = read_config(model_dir / SCHEDULER_CONFIG)
    return BaseModel(
        family=family_of(read_config(model_dir / UNET_CONFIG)),
        v_prediction=scheduler.get("prediction_type") == "v_prediction",
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr")),
    )
