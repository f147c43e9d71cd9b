"""mmengine reads its own checkpoints under a torch that reads tensors only.

mmengine 0.10.7 keeps logs and numpy numbers beside the weights and calls plain ``torch.load``, which refuses them since
torch 2.6. With the ports imported they are allowed by name, for the time of a load: no switch of torch's has to be set
that would let a file run code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from parity.weights import guarded


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_file(filename: str, map_location: Any = None) -> Any:
    """Return what a local checkpoint holds.

    Raises:
        FileNotFoundError: there is no such file.
        ParityError: it asks for something that no checkpoint needs.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{filename} can not be found.")
    return guarded.load(path, map_location=map_location)
