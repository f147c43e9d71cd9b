"""What travels between the two interpreters arrives as it was sent."""

from __future__ import annotations

import pytest
import torch

from parity.engines.base import Run
from parity.engines.wire import decode_run, encode_run, pack, unpack
from parity.records.store import sha256
from parity.taps.decisions import Decision

TENSORS = {
    "bool": torch.tensor([[True], [False]]),
    "int64": torch.tensor([2**60, -1]),
    "uint8": torch.tensor([255], dtype=torch.uint8),
    "float64": torch.tensor([1e-300, float("inf"), -0.0], dtype=torch.float64),
    "float32": torch.tensor([1.0, float("nan")]),
    "empty": torch.empty(0, 4),
    "scalar": torch.tensor(3.0),
    "transposed": torch.arange(6).reshape(2, 3).t(),
}


@pytest.mark.parametrize("name", sorted(TENSORS))
def test_a_tensor_arrives_bit_for_bit(name: str) -> None:
    sent, arrived = TENSORS[name], unpack(pack({name: TENSORS[name]}))[name]
    assert (arrived.dtype, arrived.shape, sha256(arrived)) == (sent.dtype, sent.shape, sha256(sent))


def test_two_names_of_one_memory_travel() -> None:
    tensor = torch.arange(4)
    arrived = unpack(pack({"whole": tensor, "part": tensor[:2]}))
    assert {name: value.tolist() for name, value in arrived.items()} == {"whole": [0, 1, 2, 3], "part": [0, 1]}


def test_no_tensor_at_all_travels() -> None:
    assert unpack(pack({})) == {}


def test_what_arrives_may_be_written_to() -> None:
    arrived = unpack(pack({"a": torch.zeros(2)}))["a"]
    arrived += 1.0
    assert arrived.tolist() == [1.0, 1.0]


def a_run() -> Run:
    decisions = {
        "decoder.nms.0": Decision(
            "nms",
            torch.tensor([0.9, 0.5]).double(),
            torch.tensor([0]),
            boxes=torch.zeros(2, 4).double(),
            settings={"iou_threshold": 0.8},
        ),
        "predict.topk.0": Decision(
            "topk", torch.rand(2, 3), torch.tensor([[0], [2]]), settings={"largest": 1.0}, refused="too short"
        ),
    }
    return Run(dict(TENSORS), decisions, [("neck", "fpn.py:3 forward: .float()", 2)], {"neck": ("bool", "int64")})


def test_a_run_arrives_with_all_its_parts() -> None:
    sent, arrived = a_run(), decode_run(encode_run(a_run()))
    assert set(arrived.tensors) == set(sent.tensors)
    assert (arrived.islands, arrived.produced) == (sent.islands, sent.produced)
    assert set(arrived.decisions) == set(sent.decisions)


def test_decisions_arrive_with_what_they_chose_from() -> None:
    arrived = decode_run(encode_run(a_run())).decisions
    nms, topk = arrived["decoder.nms.0"], arrived["predict.topk.0"]
    assert (nms.kind, nms.settings, nms.refused) == ("nms", {"iou_threshold": 0.8}, "")
    assert nms.boxes is not None
    assert nms.boxes.shape == (2, 4)
    assert (topk.kind, topk.chosen.tolist(), topk.refused, topk.boxes) == ("topk", [[0], [2]], "too short", None)


def test_a_message_holds_what_execnet_can_send() -> None:
    import execnet

    message = encode_run(a_run())
    assert execnet.loads(execnet.dumps(message)) == message
