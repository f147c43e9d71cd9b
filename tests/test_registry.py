"""Which cases there are, and which have a stage."""

from parity.cases.registry import all_cases, cases_with


def test_a_stage_narrows_the_cases_to_those_that_have_it() -> None:
    with_rpn = {"ddq_rcnn_r50_12e", "ddq_rcnn_r50_36e", "stock_faster_rcnn_r50_1x"}
    assert {case.id for case in cases_with("rpn_head")} == with_rpn
    assert [case.id for case in cases_with("preprocess")] == list(all_cases())


def test_no_stage_and_an_unknown_one_leave_all_cases() -> None:
    assert cases_with(None) == cases_with("no_such_stage") == list(all_cases().values())
