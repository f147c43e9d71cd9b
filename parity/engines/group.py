"""Several processes that train one model together: they join, average their gradients, agree, and leave.

What data parallel training does between the backward and the optimiser, in one place for every engine. Torch's own
``DistributedDataParallel`` wraps a model whose ``forward`` is the training forward; each framework has another wrapper
of it, and its buckets change nothing but the order in which messages travel.
"""

from __future__ import annotations

import hashlib
import os
import socket
from datetime import timedelta
from typing import Any, Mapping

import torch
import torch.distributed as distributed

from parity.errors import ParityError

BACKEND = "gloo"
_LOOPBACKS = ("lo", "lo0")


def join(rank: int, size: int, file: str, seconds: float) -> None:
    """Become process ``rank`` of ``size``, which meet at a file that only they know of; all are on one machine.

    Args:
        seconds: how long to wait for the others, now and at every exchange.

    Raises:
        ParityError: this torch has no gloo, or this process is in a group already.
    """
    if not distributed.is_available():
        raise ParityError(f"torch {torch.__version__} is built without torch.distributed: several processes need it")
    if distributed.is_initialized():
        raise ParityError("this process trains in a group already")
    known = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in _LOOPBACKS if name in known), None)
    if loopback is not None:  # otherwise gloo asks the resolver what this machine is called
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    wait = timedelta(seconds=seconds)
    # Not by a file:// address, which ends at the first "#" or "?" of the folder's name.
    store = distributed.FileStore(file, size)  # type: ignore[attr-defined]
    store.set_timeout(wait)
    distributed.init_process_group(BACKEND, store=store, rank=rank, world_size=size, timeout=wait)


def leave() -> None:
    """Leave the group, if this process is in one: gloo may abort a process that ends without."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def size() -> int:
    """Return how many processes train together; 1 without a group."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def average_gradients(model: Any) -> None:
    """Give every trained parameter the mean of all processes' gradients.

    One that has none here counts as zeros where another process has one, as with ``find_unused_parameters``; one that
    has none anywhere is left without.
    """
    count = size()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    has = torch.tensor([int(parameter.grad is not None) for parameter in trained])
    distributed.all_reduce(has)
    for parameter, holders in zip(trained, has.tolist()):
        if not holders:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.div_(count)  # before the sum, as torch's reducer does
        distributed.all_reduce(parameter.grad)


def agree(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether every process holds the same bits in tensors of the same names."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    mine = torch.tensor(list(digest.digest()), dtype=torch.uint8)
    others = [torch.zeros_like(mine) for _ in range(size())]
    distributed.all_gather(others, mine)
    return all(bool((other == mine).all()) for other in others)
