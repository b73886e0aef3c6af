"""How a run was started: one process or several, and what cannot work, said before anything is loaded."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ranker.config import RunConfig
from ranker.config.models import ArmoRMConfig, PairwiseConfig
from ranker.errors import ConfigError

FSDP = "ACCELERATE_USE_FSDP"
DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
CONFIG_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
STATE_DICT = "FSDP_STATE_DICT_TYPE"


@dataclass(frozen=True, slots=True)
class Launch:
    """Processes of a run as torchrun or ``accelerate launch`` set them in the environment."""

    world: int
    rank: int
    sharded: bool
    """Whether no process holds all weights (FSDP, ZeRO-3): every forward pass then needs all processes."""

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def launched(config: RunConfig) -> Launch:
    """The launch of this process.

    Raises:
        ConfigError: a combination that would fail or lose weights later, with what to do instead.
    """
    env = os.environ
    fsdp, deepspeed = (env.get(name, "false").lower() == "true" for name in (FSDP, DEEPSPEED))
    stage = zero_stage() if deepspeed else 0
    world = int(env.get("WORLD_SIZE", "1"))
    if world > 1 and isinstance(config.model, ArmoRMConfig):
        raise ConfigError("model.type armorm reads its frozen features in one process; start it without a launcher")
    if stage == 3 and isinstance(config.model, PairwiseConfig):
        raise ConfigError(
            f"model.type {config.model.type} copies its backbone's weights, which ZeRO-3 holds in parts; use stage 2, "
            "DDP or FSDP"
        )
    # accelerate's own default is a whole checkpoint under FSDP 1 and a sharded one under FSDP 2.
    saved = env.get(STATE_DICT, "SHARDED_STATE_DICT" if env.get("FSDP_VERSION") == "2" else "FULL_STATE_DICT")
    if fsdp and "SHARDED" in saved:
        raise ConfigError(
            "FSDP with SHARDED_STATE_DICT saves no whole checkpoint; set fsdp_state_dict_type: FULL_STATE_DICT"
        )
    if config.lora is not None and config.lora.quantization != "none" and (fsdp or stage == 3):
        raise ConfigError(
            "ZeRO-3 and FSDP cannot shard quantized weights; use ZeRO stage 2 or DDP, or lora.quantization=none"
        )
    if config.lora is not None and (fsdp or stage == 3):
        raise ConfigError(
            "adapters under ZeRO-3 or FSDP lose weights that are not gathered; use ZeRO stage 2 or DDP for adapters"
        )
    return Launch(world, int(env.get("RANK", "0")), sharded=fsdp or stage == 3)


def zero_stage() -> int:
    """DeepSpeed's ZeRO stage: of its configuration file where one is given, else as accelerate was told (2)."""
    file = os.environ.get(CONFIG_FILE)
    if file is None or not Path(file).is_file():
        return int(os.environ.get(STAGE, "2"))
    values = json.loads(Path(file).read_text(encoding="utf-8"))
    return int(values.get("zero_optimization", {}).get("stage", 0))
