import math

import pytest
import torch

from ranker.training.losses.pairwise import (
    bradley_terry,
    center_rewards,
    log_exp,
    order_consistency,
)
from ranker.training.losses.tokens import differing_span, token_pairwise


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_bradley_terry_is_minus_log_sigmoid():
    x = column(-3.0, -0.5, 0.0, 2.0)
    expected = [-math.log(1 / (1 + math.exp(-v))) for v in (-3.0, -0.5, 0.0, 2.0)]
    torch.testing.assert_close(bradley_terry(x, torch.ones_like(x)), torch.tensor(expected))


def test_soft_labels_and_ties_are_cross_entropy():
    for x, t in ((0.7, 0.3), (-2.0, 0.5), (4.0, 0.0)):
        p = 1 / (1 + math.exp(-x))
        expected = -(t * math.log(p) + (1 - t) * math.log(1 - p))
        assert bradley_terry(column(x), column(t)).item() == pytest.approx(expected, rel=1e-5)


def test_a_tie_has_its_minimum_at_zero():
    x = column(0.0).requires_grad_()
    bradley_terry(x, column(0.5)).sum().backward()
    assert x.grad.item() == 0.0
    assert bradley_terry(column(0.0), column(0.5)).item() < bradley_terry(column(0.1), column(0.5)).item()


def test_margin_shifts_towards_the_better_answer():
    margin = torch.tensor([1.5])
    assert bradley_terry(column(2.0), column(1.0), margin).item() == pytest.approx(math.log1p(math.exp(-0.5)), rel=1e-5)
    assert bradley_terry(column(-2.0), column(0.0), margin).item() == pytest.approx(
        math.log1p(math.exp(-0.5)), rel=1e-5
    )


def test_missing_tasks_are_masked():
    nan = float("nan")
    logits = torch.tensor([[1.0, 5.0], [2.0, -1.0], [1.0, 1.0]])
    targets = torch.tensor([[1.0, nan], [1.0, 0.0], [nan, nan]])
    loss = bradley_terry(logits, targets)
    expected = [math.log1p(math.exp(-1)), (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2, 0.0]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_gradients():
    x = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    targets = torch.rand(5, 2)
    (grad,) = torch.autograd.grad(bradley_terry(x, targets).sum(), x)
    torch.testing.assert_close(grad.float(), ((x.sigmoid() - targets) / 2).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("x", [1e4, -1e4])
def test_extreme_values_stay_finite(x, dtype):
    logits = torch.tensor([[x]], dtype=dtype).requires_grad_()
    loss = bradley_terry(logits, torch.ones(1, 1))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert loss.item() == pytest.approx(max(0.0, -float(logits.detach())), rel=1e-3)


def test_order_consistency_is_zero_for_cancelling_orders():
    forward = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    assert order_consistency(forward, -forward).tolist() == [0.0, 0.0]
    torch.testing.assert_close(order_consistency(forward, forward), torch.tensor([10.0, 18.0]))


def test_log_exp_is_the_naive_form_where_that_is_finite_and_log_sigmoid_everywhere():
    x = torch.linspace(-80, 80, 161)[:, None]
    naive = torch.log(1 + torch.exp(-x))[:, 0]
    torch.testing.assert_close(log_exp(x, torch.ones_like(x)), naive, atol=1e-6, rtol=1e-5)
    wide = torch.tensor([[-1e4], [1e4]])
    assert not torch.isfinite(torch.log(1 + torch.exp(-wide))).all(), "the naive form must fail where ours is tested"
    torch.testing.assert_close(log_exp(wide, torch.ones_like(wide)), -torch.nn.functional.logsigmoid(wide)[:, 0])


def test_centring_is_the_squared_sum():
    left, right = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [3.0]])
    assert center_rewards(left, right).tolist() == [0.0, 25.0]


def spans(chosen, rejected):
    longest = max(map(len, (*chosen, *rejected)))
    ids, masks = [], []
    for side in (chosen, rejected):
        ids.append(torch.tensor([row + [0] * (longest - len(row)) for row in side]))
        masks.append(torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in side]).bool())
    return differing_span(ids[0], ids[1], masks[0], masks[1])


def test_span_runs_from_the_first_difference_to_the_end_of_the_longer():
    prompt = [5, 6, 7]
    result = spans(
        [prompt + [1, 2, 9], prompt + [1], prompt + [1, 2]], [prompt + [1, 3], prompt + [1, 4], prompt + [1, 2]]
    )
    assert result.int().tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0], [0] * 6]


def test_padding_that_has_the_id_of_a_token_is_still_a_difference():
    """With pad == eos an answer that ends earlier differs exactly by its padding."""
    assert spans([[5, 0]], [[5]]).int().tolist() == [[0, 1]]


def test_token_pairwise_is_the_mean_per_pair():
    chosen = torch.tensor([[9.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    rejected = torch.tensor([[0.0, 0.0, -1.0], [4.0, 4.0, 4.0]])
    span = torch.tensor([[False, True, True], [False, False, False]])
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-3))) / 2
    assert token_pairwise(chosen, rejected, span).tolist() == pytest.approx([expected, 0.0])


def test_token_pairwise_gradient_leaves_the_prompt_alone():
    chosen = torch.zeros(1, 3, requires_grad=True)
    span = torch.tensor([[False, True, True]])
    token_pairwise(chosen, torch.zeros(1, 3), span).sum().backward()
    assert chosen.grad.tolist() == [[0.0, -0.25, -0.25]]
    big = torch.full((1, 3), -1e4, dtype=torch.bfloat16, requires_grad=True)
    loss = token_pairwise(big, torch.zeros(1, 3), span)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(big.grad).all()
