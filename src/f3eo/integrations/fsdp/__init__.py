"""F3EO on models that `torch.distributed.fsdp.fully_shard` has sharded (FSDP2)."""

from f3eo.integrations.fsdp.sharded import Sharded

__all__ = ["Sharded"]
