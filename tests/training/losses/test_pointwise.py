import math

import pytest
import torch

from ranker.training.losses.pointwise import binary_cross_entropy, cross_entropy, huber, mse, rmse

NAN = float("nan")


def test_cross_entropy_by_hand():
    logits, labels = torch.tensor([[1.0, 3.0], [0.5, -0.5], [9.0, 9.0]]), torch.tensor([1, 1, -100])
    expected = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(1.0)), 0.0]
    torch.testing.assert_close(cross_entropy(logits, labels), torch.tensor(expected))
    weighted = cross_entropy(logits, labels, class_weights=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(weighted, 3 * torch.tensor(expected))
    smooth = cross_entropy(logits[:1], labels[:1], label_smoothing_factor=0.2).item()
    assert smooth == pytest.approx(0.9 * math.log1p(math.exp(-2)) + 0.1 * math.log1p(math.exp(2)), rel=1e-5)


def test_binary_cross_entropy_by_hand():
    loss = binary_cross_entropy(torch.tensor([[2.0], [0.3], [1.0]]), torch.tensor([[1.0], [0.25], [NAN]]))
    p = 1 / (1 + math.exp(-0.3))
    expected = [math.log1p(math.exp(-2)), -(0.25 * math.log(p) + 0.75 * math.log(1 - p)), 0.0]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_regression_losses_by_hand():
    scores = torch.tensor([[1.0, 2.0], [0.0, 5.0], [3.0, 3.0]])
    labels = torch.tensor([[0.5, 4.0], [NAN, 2.0], [NAN, NAN]])
    assert mse(scores, labels).tolist() == pytest.approx([(0.25 + 4.0) / 2, 9.0, 0.0])
    assert huber(scores, labels).tolist() == pytest.approx([(0.125 + 1.5) / 2, 2.5, 0.0])
    assert rmse(scores, labels).item() == pytest.approx(math.sqrt((0.25 + 4 + 9) / 3))


@pytest.mark.parametrize("loss", [mse, huber, rmse, binary_cross_entropy])
def test_missing_labels_have_no_gradient_and_nan_never_leaks(loss):
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    value = loss(scores, torch.tensor([[0.0, NAN], [NAN, NAN]])).sum()
    value.backward()
    assert torch.isfinite(value)
    assert scores.grad[0, 0] != 0
    assert scores.grad.flatten()[1:].tolist() == [0.0, 0.0, 0.0]


def test_rmse_has_a_finite_gradient_at_zero_error():
    scores = torch.ones(3, 1, requires_grad=True)
    rmse(scores, torch.ones(3, 1)).backward()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [1e4, -1e4])
def test_extreme_values_stay_finite(value, dtype):
    for loss in (mse, huber, rmse, binary_cross_entropy):
        scores = torch.full((2, 1), value, dtype=dtype, requires_grad=True)
        result = loss(scores, torch.tensor([[1.0], [0.0]])).sum()
        result.backward()
        assert torch.isfinite(result)
        assert torch.isfinite(scores.grad).all()
    logits = torch.tensor([[value, -value]], dtype=dtype, requires_grad=True)
    result = cross_entropy(logits, torch.tensor([0])).sum()
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(logits.grad).all()
