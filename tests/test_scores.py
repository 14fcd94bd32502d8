"""Scores, the choice of exactly k of them, and how many each layer keeps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pai_lite as pai
from pai_lite.scores import top_k, top_k_torch

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")

DTYPES = st.sampled_from([torch.float32, torch.float64])
SPARSITIES = st.one_of(
    st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 0.99])
)
FEW_VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0])  # many ties
ANY_VALUES = st.floats(-(2.0**100), 2.0**100, width=32)
LAYERS = st.lists(
    st.one_of(
        st.lists(FEW_VALUES, min_size=1, max_size=30),
        st.lists(ANY_VALUES, min_size=1, max_size=30),
        st.builds(lambda value, n: [value] * n, FEW_VALUES, st.integers(1, 30)),
    ),
    min_size=1,
    max_size=4,
)
SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 30), st.integers(1, 30)),
        st.tuples(
            st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]), st.sampled_from([1, 3])
        ),
    ),
    min_size=1,
    max_size=6,
)


def make_scores(layers: list[list[float]], dtype: torch.dtype = torch.float64) -> pai.Scores:
    return pai.Scores(
        {
            f"layer{i}.weight": torch.tensor(values, dtype=dtype).reshape(1, -1)
            for i, values in enumerate(layers)
        }
    )


def flatten(tensors) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def best(values: list[float], k: int) -> list[bool]:
    """Mark the k largest, ties by index: the rule, by sorting."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    return [i in set(order[:k]) for i in range(len(values))]


def count(n: int, sparsity: float) -> int:
    return round((1 - sparsity) * n)


@given(LAYERS, SPARSITIES, DTYPES)
@settings(deadline=None, max_examples=200)
def test_keep_top_keeps_exactly_the_k_largest_ties_by_index(layers, sparsity, dtype):
    scores = make_scores(layers, dtype)
    mask = pai.keep_top(scores, sparsity)
    values = flatten(scores).tolist()
    assert flatten(mask).tolist() == best(values, count(len(values), sparsity))
    assert list(mask) == list(scores)
    assert all(mask[name].shape == scores[name].shape for name in scores)
    assert all(mask[name].dtype == torch.bool for name in scores)


@given(LAYERS, SPARSITIES, SPARSITIES)
@settings(deadline=None)
def test_keep_top_masks_are_nested_in_sparsity(layers, first, second):
    scores = make_scores(layers)
    denser = flatten(pai.keep_top(scores, min(first, second)))
    sparser = flatten(pai.keep_top(scores, max(first, second)))
    assert not (sparser & ~denser).any()


@given(st.permutations(range(20)), SPARSITIES)
@settings(deadline=None)
def test_keep_top_follows_a_permutation_of_distinct_scores(order, sparsity):
    values = torch.linspace(-3, 5, 20, dtype=torch.float64)
    plain = flatten(pai.keep_top(pai.Scores({"a": values}), sparsity))
    permuted = flatten(pai.keep_top(pai.Scores({"a": values[list(order)]}), sparsity))
    assert torch.equal(permuted, plain[list(order)])


@pytest.mark.parametrize("n", [1, 7, 10, 1000, 270_896])
@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.9, 0.95, 0.999, 0.9999])
def test_keep_top_count_on_all_equal_scores(n, sparsity):
    mask = pai.keep_top(pai.Scores({"a": torch.zeros(n)}), sparsity)
    k = count(n, sparsity)
    assert mask.kept == k
    assert mask["a"].tolist() == [True] * k + [False] * (n - k)


def test_keep_top_distinguishes_neighbouring_float64_scores():
    values = torch.tensor([1.0, 1.0 + 2**-52, 1.0 - 2**-53], dtype=torch.float64)
    mask = pai.keep_top(pai.Scores({"a": values}), 0.6)
    assert mask["a"].tolist() == [False, True, False]


def test_keep_top_by_hand_across_layers():
    scores = make_scores([[3.0, -5.0, 1.0], [1.0, 2.0, 1.0]])
    mask = pai.keep_top(scores, 0.5)
    assert mask["layer0.weight"].tolist() == [[True, False, True]]
    assert mask["layer1.weight"].tolist() == [[False, True, False]]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, 95, float("nan"), float("inf")])
def test_a_sparsity_outside_zero_to_one_is_refused(sparsity):
    scores = make_scores([[1.0, 2.0]])
    for call in (pai.keep_top, pai.uniform_counts, pai.erk_counts):
        with pytest.raises(ValueError, match="sparsity"):
            call(scores, sparsity)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_name_the_layer(bad):
    good = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"second\.weight"):
        pai.Scores({"first.weight": good, "second.weight": torch.tensor([[1.0, bad]])})


def test_scores_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"(?i)score|layer|tensor|empty"):
        pai.Scores({})


def test_scores_are_a_mapping_and_flatten_in_order():
    scores = make_scores([[1.0, 2.0], [3.0]])
    assert list(scores) == ["layer0.weight", "layer1.weight"]
    assert len(scores) == 2
    assert scores.flat().tolist() == [1.0, 2.0, 3.0]


@given(LAYERS, st.data())
@settings(deadline=None)
def test_keep_top_per_layer_keeps_exactly_the_counts(layers, data):
    scores = make_scores(layers)
    counts = {name: data.draw(st.integers(0, scores[name].numel()), label=name) for name in scores}
    mask = pai.keep_top_per_layer(scores, counts)
    assert mask.layer_counts() == counts
    for name in scores:
        assert mask[name].flatten().tolist() == best(scores[name].flatten().tolist(), counts[name])


@pytest.mark.parametrize("wrong", [-1, 3])
def test_keep_top_per_layer_refuses_a_count_that_a_layer_cannot_have(wrong):
    scores = make_scores([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"layer1\.weight"):
        pai.keep_top_per_layer(scores, {"layer0.weight": 1, "layer1.weight": wrong})


def test_keep_top_per_layer_refuses_a_missing_layer():
    scores = make_scores([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"layer1\.weight"):
        pai.keep_top_per_layer(scores, {"layer0.weight": 1})


def as_shapes(shapes) -> dict[str, Tensor]:
    return {f"layer{i}.weight": torch.empty(shape) for i, shape in enumerate(shapes)}


def check_counts(counts: dict[str, int], tensors: dict[str, Tensor], sparsity: float) -> None:
    sizes = {name: tensor.numel() for name, tensor in tensors.items()}
    assert list(counts) == list(sizes)
    assert sum(counts.values()) == count(sum(sizes.values()), sparsity)
    assert all(isinstance(counts[name], int) for name in sizes)
    assert all(0 <= counts[name] <= sizes[name] for name in sizes)


@given(SHAPES, SPARSITIES)
@settings(deadline=None, max_examples=200)
def test_uniform_counts_give_every_layer_the_same_density(shapes, sparsity):
    tensors = as_shapes(shapes)
    counts = pai.uniform_counts(tensors, sparsity)
    check_counts(counts, tensors, sparsity)
    total = sum(tensor.numel() for tensor in tensors.values())
    density = sum(counts.values()) / total
    for name, tensor in tensors.items():
        # One for the rounding, and the half that k itself was rounded by.
        assert abs(counts[name] - density * tensor.numel()) <= 1.5


def erk_by_bisection(tensors: dict[str, Tensor], k: int) -> dict[str, float]:
    """Find e such that the layers' min(size, e * sum of dimensions) add up to k."""

    def kept(e: float) -> dict[str, float]:
        return {name: min(t.numel(), e * sum(t.shape)) for name, t in tensors.items()}

    low, high = 0.0, float(max(t.numel() for t in tensors.values()))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(kept(middle).values()) > k else (middle, high)
    return kept(low)


@given(SHAPES, SPARSITIES)
@settings(deadline=None, max_examples=200)
def test_erk_counts_follow_the_rule(shapes, sparsity):
    tensors = as_shapes(shapes)
    counts = pai.erk_counts(tensors, sparsity)
    check_counts(counts, tensors, sparsity)
    wanted = erk_by_bisection(tensors, sum(counts.values()))
    for name in tensors:
        assert abs(counts[name] - wanted[name]) <= 1.5


def test_erk_counts_by_hand():
    # k = 300; a layer keeps e * (out + in) weights, e = 300 / (20 + 100) = 2.5.
    tensors = {"a": torch.empty(10, 10), "b": torch.empty(10, 90)}
    assert pai.erk_counts(tensors, 0.7) == {"a": 50, "b": 250}


def test_erk_counts_of_convolutions_count_the_kernel():
    # Sums of dimensions 4+4+3+3 = 14 and 8+4+1+1 = 14: equal counts, unequal sizes 144 and 32.
    tensors = {"a": torch.empty(4, 4, 3, 3), "b": torch.empty(8, 4, 1, 1)}
    assert pai.erk_counts(tensors, 1 - 28 / 176) == {"a": 14, "b": 14}


def test_erk_counts_keep_a_thin_layer_whole_and_spread_the_rest():
    # Uncapped the first would keep 210 * 11 / 111 = 20.8 of its 10 weights.
    tensors = {"thin": torch.empty(1, 10), "wide": torch.empty(10, 90)}
    assert pai.erk_counts(tensors, 1 - 210 / 910) == {"thin": 10, "wide": 200}


def test_counts_take_scores_masks_and_parameters_alike():
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Linear(6, 3))
    for rule in (pai.uniform_counts, pai.erk_counts):
        forms = [pai.magnitude(model), pai.Mask.dense(model), pai.prunable_parameters(model)]
        first, second, third = (rule(form, 0.7) for form in forms)
        assert first == second == third
        assert list(first) == ["0.weight", "1.weight"]


# What public implementations get wrong, each named.


def test_trap_all_equal_scores_do_not_keep_everything():
    """naver/force and mil-ad/snip keep `score >= k-th`: with equal scores, everything."""
    for value in (0.0, 1.0, -1.0):
        mask = pai.keep_top(pai.Scores({"a": torch.full((100,), value)}), 0.97)
        assert mask.kept == 3


def test_trap_a_threshold_of_zero_does_not_keep_everything():
    """Where the k-th score is 0 (only two of 1000 are positive) they return all ones."""
    values = torch.zeros(1000)
    values[[500, 900]] = 1.0
    mask = pai.keep_top(pai.Scores({"a": values}), 0.995)
    assert mask["a"].nonzero().flatten().tolist() == [0, 1, 2, 500, 900]


def test_trap_grasp_keeps_one_too_many():
    scores = torch.arange(1000.0)
    theirs = scores >= scores.sort().values[int(0.9 * 1000) - 1]
    assert theirs.sum() == 101
    mask = pai.keep_top(pai.Scores({"a": scores}), 0.9)
    assert mask.kept == 100
    assert mask["a"].nonzero().flatten().tolist() == list(range(900, 1000))


def test_trap_open_lth_prunes_one_too_many():
    """open_lth removes 201 of 1000 weights at 20%."""
    scores = torch.arange(1000.0)
    theirs = scores > scores.sort().values[math.ceil(0.2 * 1000)]
    assert (~theirs).sum() == 201
    mask = pai.keep_top(pai.Scores({"a": scores}), 0.2)
    assert mask.size - mask.kept == 200


def test_trap_prospr_rounds_up_and_keeps_three_where_two_are_meant():
    assert math.ceil(24 * (1 - 0.9)) == 3, "theirs"
    mask = pai.keep_top(pai.Scores({"a": torch.arange(24.0)}), 0.9)
    assert mask.kept == 2


def test_trap_jaxpruner_normalises_each_layer_first():
    """Scores compete as they are: a layer of small ones loses, whatever its own scale."""
    scores = pai.Scores({"small": 1e-3 * torch.arange(1.0, 11), "large": torch.arange(1.0, 11)})
    assert pai.keep_top(scores, 0.5).layer_counts() == {"small": 0, "large": 10}
    theirs = pai.Scores({name: score / score.norm() for name, score in scores.items()})
    assert pai.keep_top(theirs, 0.5).layer_counts() == {"small": 5, "large": 5}


# Many scores: most are settled by a bracket around the k-th, whose sampling must not show


def sorted_choice(values: Tensor, k: int) -> Tensor:
    """Mark the k largest, ties by index, from one stable sort."""
    keep = torch.zeros(len(values), dtype=torch.bool)
    keep[torch.sort(values, descending=True, stable=True).indices[:k]] = True
    return keep


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "kind", ["distinct", "few values", "mostly zero", "all equal", "two ends", "sorted", "infinite"]
)
def test_top_k_of_many_values_is_that_of_a_sort(kind: str, dtype: torch.dtype) -> None:
    n = 200_001
    x = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = {
        "distinct": x,
        "few values": x.round(),
        "mostly zero": x.clamp(min=2.0),
        "all equal": torch.zeros(n, dtype=torch.float64),
        "two ends": (x > 0).double(),
        "sorted": x.sort().values,
        "infinite": torch.where(x > 1, -torch.inf, torch.where(x < -2, torch.inf, x)),
    }[kind].to(dtype)
    for k in (0, 1, 2, 7, 100, n // 1000, 350, n // 20, n // 2, n - 100, n - 1, n):
        assert torch.equal(top_k(values, k), sorted_choice(values, k)), k


def test_top_k_on_another_device_is_the_same() -> None:
    """The way through PyTorch alone, which a GPU takes, marks what NumPy does."""
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    for k in (1, 50, 2500, 5000):
        assert torch.equal(top_k_torch(values, k), top_k(values, k))


def test_top_k_does_not_trust_a_sample_that_misleads() -> None:
    """The sampled values all lie above, or all below, the k-th: then all values are searched."""
    n, k = 200_001, 100_000
    sampled = np.random.default_rng(0).integers(n, size=2**14)
    for value in (-1.0, 2.0):
        values = np.random.default_rng(1).random(n)
        values[sampled] = value
        values = torch.from_numpy(values)
        assert torch.equal(top_k(values, k), sorted_choice(values, k)), value


# Rounding to a sum


def test_the_largest_remainders_are_rounded_up():
    """Of 5.5, 3.85 and 1.65 the last two are: the size of a layer does not matter."""
    shapes = {"a": torch.empty(2, 5), "b": torch.empty(7, 1), "c": torch.empty(3, 1)}
    assert pai.uniform_counts(shapes, 0.45) == {"a": 5, "b": 4, "c": 2}


def test_of_equal_remainders_the_first_are_rounded_up():
    """Half of 25 and half of 4, in turn: an unstable sort would mix the layers of 25."""
    shapes = {f"layer{i}": torch.empty((5, 5) if i % 2 else (2, 2)) for i in range(80)}
    counts = list(pai.uniform_counts(shapes, 0.5).values())
    assert counts[1::2] == [13] * 20 + [12] * 20
    assert counts[::2] == [2] * 40


@pytest.mark.filterwarnings("error")
def test_erk_counts_keep_everything_where_a_layer_is_full_by_a_rounding_error():
    """84 / 19 * 19 is a little more than 84 in floating point."""
    assert 84 / 19 * 19 > 84
    assert pai.erk_counts({"a": torch.empty(12, 7)}, 0.0) == {"a": 84}


def test_scores_say_how_many_they_are():
    scores = pai.Scores({"a": torch.ones(30, 40), "b": torch.ones(34)})
    assert repr(scores) == "Scores(2 layers, 1,234 weights)"
