"""``ranker`` with accelerate's FSDP2 on CPU, which accelerate offers on accelerators alone: for tests over gloo."""

from accelerate import state
from accelerate.utils import DistributedType

initialize = state.AcceleratorState.__init__


def sharded(self, *args, fsdp_plugin=None, **kwargs):
    initialize(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


state.AcceleratorState.__init__ = sharded

if __name__ == "__main__":
    from ranker.cli.main import main

    main()
