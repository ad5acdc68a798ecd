"""What every process runs."""

from torch.distributed.device_mesh import init_device_mesh

from integrations.fsdp_cases import train


def work(name, rank, count):
    return train(name, rank, count, init_device_mesh("cpu", (count,)))
