import itertools
import math

import pytest
import torch

from ranker.training.losses.listwise import list_mle, list_net, rank_net

SCORES = torch.tensor([[0.3, -1.2, 2.0, 7.0], [1.0, 0.5, 99.0, 99.0]])
LABELS = torch.tensor([[2.0, 0.0, 1.0, 3.0], [0.0, 1.0, 5.0, 5.0]])
PRESENT = torch.tensor([[True, True, True, True], [True, True, False, False]])
ALL = (list_net, list_mle, rank_net)


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def lists():
    return [
        ([s for s, p in zip(ss, ps, strict=True) if p], [v for v, p in zip(ls, ps, strict=True) if p])
        for ss, ls, ps in zip(SCORES.tolist(), LABELS.tolist(), PRESENT.tolist(), strict=True)
    ]


def test_list_net_is_the_cross_entropy_of_the_top_one_distributions():
    expected = [-sum(t * math.log(p) for t, p in zip(softmax(ls), softmax(ss), strict=True)) for ss, ls in lists()]
    torch.testing.assert_close(list_net(SCORES, LABELS, PRESENT), torch.tensor(expected))


def test_list_mle_is_plackett_luce():
    expected = []
    for ss, ls in lists():
        ranked = [s for _, s in sorted(zip(ls, ss, strict=True), reverse=True)]
        likelihood = math.prod(softmax(ranked[k:])[0] for k in range(len(ranked)))
        expected.append(-math.log(likelihood) / len(ranked))
    torch.testing.assert_close(list_mle(SCORES, LABELS, PRESENT), torch.tensor(expected))


def test_plackett_luce_is_a_distribution_over_orders():
    scores = torch.tensor([[0.2, -0.7, 1.1]])
    present = torch.ones(1, 3, dtype=torch.bool)
    total = sum(
        math.exp(-3 * list_mle(scores, torch.tensor([list(map(float, labels))]), present).item())
        for labels in itertools.permutations(range(3))
    )
    assert total == pytest.approx(1.0, abs=1e-5)


def test_rank_net_is_the_mean_over_ordered_pairs():
    expected = []
    for ss, ls in lists():
        terms = [
            math.log1p(math.exp(-(ss[i] - ss[j]))) for i in range(len(ss)) for j in range(len(ss)) if ls[i] > ls[j]
        ]
        expected.append(sum(terms) / len(terms))
    torch.testing.assert_close(rank_net(SCORES, LABELS, PRESENT), torch.tensor(expected))


def test_rank_net_on_one_pair_is_bradley_terry():
    from ranker.training.losses.pairwise import bradley_terry

    scores, labels, present = torch.tensor([[0.4, 1.7]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool)
    expected = bradley_terry(scores[:, :1] - scores[:, 1:], torch.ones(1, 1))
    torch.testing.assert_close(rank_net(scores, labels, present), expected)


@pytest.mark.parametrize("loss", ALL)
def test_permuting_a_list_changes_nothing(loss):
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        loss(SCORES[:1, order], LABELS[:1, order], PRESENT[:1, order]), loss(SCORES[:1], LABELS[:1], PRESENT[:1])
    )


@pytest.mark.parametrize("loss", ALL)
def test_absent_candidates_have_no_influence_and_no_gradient(loss):
    scores = SCORES.clone().requires_grad_()
    value = loss(scores, LABELS, PRESENT)
    value.sum().backward()
    assert scores.grad[1, 2:].tolist() == [0.0, 0.0]
    alone = loss(SCORES[1:, :2], LABELS[1:, :2], PRESENT[1:, :2])
    torch.testing.assert_close(value[1:].detach(), alone)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_stay_finite(loss, dtype):
    scores = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    value = loss(scores, torch.tensor([[0.0, 1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("loss", ALL)
def test_gradients_match_finite_differences(loss):
    scores = torch.randn(2, 4, dtype=torch.float32).requires_grad_()
    (grad,) = torch.autograd.grad(loss(scores, LABELS, PRESENT).sum(), scores)
    for i, j in ((0, 0), (0, 3), (1, 1)):
        step = torch.zeros_like(scores)
        step[i, j] = 1e-2
        up, down = (loss(scores.detach() + s, LABELS, PRESENT).sum() for s in (step, -step))
        assert grad[i, j].item() == pytest.approx(((up - down) / 2e-2).item(), abs=2e-3)
