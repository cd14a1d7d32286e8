"""On the CPU no item depends on its neighbours; elsewhere batches are halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.errors import CerError
from cer_pipeline.torch_batches import choose_device, run_in_batches

CPU = torch.device("cpu")


META = torch.device("meta")  # stands for a device with batches: it computes shapes only


@given(count=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_on_the_cpu_the_result_of_an_item_is_that_of_any_other_list_that_holds_it(
    count: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(33, 7)
    items = [torch.randn(33) for _ in range(count)]
    together = run_in_batches(layer, items, size, CPU)
    assert together.shape == (count, 7)
    assert torch.equal(together[-1:], run_in_batches(layer, items[-1:], size, CPU))


def recorded(shapes: list[int], fits: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A model that doubles its items and takes at most `fits` of them."""

    def model(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        return torch.full(batch.shape, 2.0)

    return model


def test_items_on_another_device_go_in_batches_in_order() -> None:
    shapes: list[int] = []
    assert run_in_batches(recorded(shapes, 3), [torch.ones(1)] * 7, 3, META).shape == (7, 1)
    assert shapes == [3, 3, 1]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    shapes: list[int] = []
    assert run_in_batches(recorded(shapes, 2), [torch.ones(1)] * 5, 8, META).tolist() == [[2.0]] * 5
    assert shapes == [5, 4, 2, 2, 1]


def test_one_item_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(CerError, match="one item does not fit into the memory of the GPU"):
        run_in_batches(recorded([], 0), [torch.ones(1)], 4, CPU)


def test_auto_is_a_device_that_exists_and_a_missing_one_is_refused() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU
    with pytest.raises(CerError, match="torch finds no such device: cuda:99"):
        choose_device("cuda:99")
