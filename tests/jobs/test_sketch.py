import numpy as np

from ranker.jobs.sketch import Sketch, _bucket, _lowest


def test_buckets_are_in_the_order_of_the_numbers():
    numbers = np.array([-3e38, -2.0, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 3e38], np.float32)
    buckets = _bucket(numbers)
    assert (np.diff(buckets) > 0).all()
    assert _bucket(np.array([-0.0], np.float32)) == _bucket(np.array([0.0], np.float32))
    for number, bucket in zip(numbers, buckets, strict=True):
        assert _lowest(int(bucket)) <= number


def test_what_cannot_be_counted_is_left_out_and_nothing_is_said_so():
    sketch = Sketch()
    sketch.add([float("nan"), float("inf")])
    assert sketch.coarse() == {}
    sketch.add([1.0])
    assert sketch.coarse() == {"1": 1}


def test_coarse_counts_are_by_the_lowest_number_of_each():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=5000).astype(np.float32)
    sketch = Sketch()
    sketch.add(scores)
    edges = sorted((float(low), count) for low, count in sketch.coarse().items())
    for (low, count), (high, _) in zip(edges, edges[1:], strict=False):
        between = ((scores >= np.float32(low)) & (scores < np.float32(high))).sum()
        assert abs(count - between) <= 1, "six digits of the edge may move one score across it"
    assert sum(count for _, count in edges) == 5000
