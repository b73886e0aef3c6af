"""How a run was started: one process or several, and what cannot work, said before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ranker.config import RunConfig
from ranker.errors import ConfigError

FSDP = "ACCELERATE_USE_FSDP"
DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
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
    stage = int(env.get(STAGE, "2")) if deepspeed else 0
    world = int(env.get("WORLD_SIZE", "1"))
    if world > 1 and config.model.scheme == "gated":
        raise ConfigError("model.scheme=gated reads its frozen features in one process; start it without a launcher")
    if fsdp and "SHARDED" in env.get(STATE_DICT, "FULL_STATE_DICT"):
        raise ConfigError(
            "FSDP with SHARDED_STATE_DICT saves no whole checkpoint; set fsdp_state_dict_type: FULL_STATE_DICT"
        )
    if config.adapter.quantization != "none" and (fsdp or stage == 3):
        raise ConfigError(
            "ZeRO-3 and FSDP cannot shard quantized weights; use ZeRO stage 2 or DDP, or adapter.quantization=none"
        )
    if config.adapter.rank and (fsdp or stage == 3):
        raise ConfigError(
            "adapters under ZeRO-3 or FSDP lose weights that are not gathered; use ZeRO stage 2 or DDP for adapters"
        )
    return Launch(world, int(env.get("RANK", "0")), sharded=world > 1 and (fsdp or stage == 3))
