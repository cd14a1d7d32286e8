"""Batches have one shape, halve when memory runs out, and no item depends on its neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.errors import CerError
from cer_pipeline.torch_batches import choose_device, run_in_batches

CPU = torch.device("cpu")


@given(count=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_result_of_an_item_is_that_of_any_other_list_that_holds_it(count: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(33, 7)
    items = [torch.randn(33) for _ in range(count)]
    together = run_in_batches(layer, items, size, CPU)
    assert together.shape == (count, 7)
    assert torch.equal(together[-1:], run_in_batches(layer, items[-1:], size, CPU))


def test_every_batch_has_the_same_shape() -> None:
    shapes: list[int] = []

    def model(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(len(batch))
        return batch

    items = [torch.full((1,), float(i)) for i in range(7)]
    assert run_in_batches(model, items, 3, CPU).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert shapes == [3, 3, 3]


def test_a_batch_that_does_not_fit_is_halved_and_all_items_are_computed_anew() -> None:
    shapes: list[int] = []

    def model(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return batch * 2

    assert run_in_batches(model, [torch.ones(1)] * 5, 8, CPU).tolist() == [[2.0]] * 5
    assert shapes == [8, 4, 2, 2, 2]


def test_one_item_that_does_not_fit_is_one_line() -> None:
    def model(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(CerError, match="one item does not fit into the memory of the GPU"):
        run_in_batches(model, [torch.ones(1)], 4, CPU)


def test_auto_is_a_device_that_exists_and_a_missing_one_is_refused() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU
    with pytest.raises(CerError, match="torch finds no such device: cuda:99"):
        choose_device("cuda:99")
