"""What papers and public implementations get wrong, and the test that each trap has.

A name without a file is a test of this file. Each shows what the wrong variant gives.

Papers
  The preprint's FORCE is Iter-SNIP; the published one lets weights return:
    test_trap_the_preprints_force_is_iter_snip
  GraSP's Algorithm 1, read literally, keeps the fraction that should go:
    test_trap_grasps_algorithm_1_keeps_what_should_go
    test_second_order.py::test_claim_grasp_sign
  The schedule s^(n/N) works only if s is the density:
    test_trap_the_power_schedule_is_of_the_density
  ProsPr names no inner learning rate; code and README disagree on all settings:
    test_meta_gradients.py::test_trap_the_defaults_are_three_plain_steps_at_a_tenth
    test_meta_gradients.py::test_trap_readme_command_line_and_paper_choose_other_weights
Losses and batches
  Negative log-likelihood of raw logits:
    test_criteria.py::test_trap_naver_force_takes_the_nll_of_raw_logits
  GraSP's batch is sorted by class and split, so that BatchNorm sees half of the classes:
    test_trap_grasp_splits_a_batch_that_is_sorted_by_class
  GraSP scores a copy whose linear layers were drawn anew:
    test_trap_grasp_scores_a_copy_with_other_weights
  GraSP cannot fetch k samples from a class that has exactly k:
    test_trap_a_class_with_exactly_k_images_gives_k
  GraSP's temperature and number of batches are fixed in the code:
    test_trap_grasps_temperature_and_batches_are_the_callers
  GraSP's ImageNet script ignores the samples a class:
    test_data.py::test_a_batch_is_balanced_normalized_and_shuffled
Thresholds
  Everything at least as large as the k-th score is kept:
    test_scores.py::test_trap_all_equal_scores_do_not_keep_everything
    test_scores.py::test_trap_a_threshold_of_zero_does_not_keep_everything
    test_trap_a_threshold_of_zero_makes_the_iterated_network_dense_again
    test_trap_force_that_was_reset_to_dense_is_one_shot_snip
  One too many kept, one too many removed, rounded up:
    test_scores.py::test_trap_grasp_keeps_one_too_many
    test_scores.py::test_trap_open_lth_prunes_one_too_many
    test_scores.py::test_trap_prospr_rounds_up_and_keeps_three_where_two_are_meant
  Each layer's scores are normalised first:
    test_scores.py::test_trap_jaxpruner_normalises_each_layer_first
Revival
  FORCE revives, by gradients at the sparse network times dense weights; Iter-SNIP never:
    test_trap_the_preprints_force_is_iter_snip
    test_iterative.py::test_each_step_is_that_of_a_loop_by_hand
    test_second_order.py::test_a_mask_moves_the_gradient_to_the_pruned_network_and_leaves_the_weight
  Iterated GraSP gives removed weights 0, more than living ones have:
    test_trap_removed_weights_with_score_zero_displace_negative_ones
Unrolling
  The first momentum buffer is detached:
    test_meta_gradients.py::test_trap_the_first_momentum_buffer_is_part_of_the_graph
    test_meta_gradients.py::test_trap_a_detached_first_buffer_chooses_other_weights_after_three_steps
  Dampening on the first step:
    test_meta_gradients.py::test_trap_dampening_does_not_act_on_the_first_step_or_without_momentum
  One batch for all steps:
    test_meta_gradients.py::test_trap_every_step_has_a_fresh_batch_and_the_outer_loss_another
    test_meta_gradients.py::test_trap_batches_beyond_the_outer_one_are_not_drawn
  Biases and BatchNorm are trained in the inner loop, and not masked; BatchNorm in train mode:
    test_meta_gradients.py::test_trap_biases_and_batchnorm_are_trained_in_the_inner_loop
    test_meta_gradients.py::test_trap_batchnorm_is_in_train_mode_unless_asked_otherwise
  A flat mask prunes nothing:
    test_trap_a_flat_mask_prunes_nothing
  Removed weights come back with the next step:
    test_training.py::test_trap_weights_masked_before_the_forward_pass_only_come_back
    test_training.py::test_trap_removed_weights_stay_zero_after_the_last_step
    test_meta_gradients.py::test_trap_removed_weights_stay_zero_through_the_inner_steps
    test_meta_gradients.py::test_trap_a_removed_weight_is_scored_with_its_initial_value
  A removed channel leaks its BatchNorm shift:
    test_structured.py::test_trap_rows_alone_leak_the_shift_of_batchnorm
BatchNorm mode, numbers, ablations
  Scores in eval mode:
    test_criteria.py::test_trap_eval_mode_changes_snip_mask
    test_trap_eval_mode_changes_grasp_mask
  SynFlow with BatchNorm or biases in the way, and in float32:
    test_trap_synflow_with_batchnorm_or_biases_conserves_nothing
    test_trap_synflow_in_float32_is_infinite_on_deep_networks
    test_synflow.py::test_claim_synflow_float64
  Shuffling that does nothing, inversion by 1 / score:
    test_ablations.py::test_trap_synaptic_flow_shuffle_is_a_no_op
    test_ablations.py::test_trap_synaptic_flow_invert_gives_nan_on_zeros
    test_ablations.py::test_trap_synaptic_flow_invert_is_wrong_for_signed_scores
  The first SNIP code prunes biases, scores in eval mode, trains other weights than it scored:
    test_masks.py::test_trap_first_snip_code_prunes_biases
    test_criteria.py::test_claim_snip_product
    test_trap_training_starts_from_the_weights_that_were_scored
  A model with masks of torch.nn.utils.prune cannot be copied:
    test_masks.py::test_trap_deepcopy_after_torch_prune
    test_training.py::test_trap_deepcopy_after_torch_prune_in_fit
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import make_batch, make_data
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.scores import keep_count

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")

Batch = tuple[Tensor, Tensor]
Choice = Callable[[pai.Scores, int, pai.Mask], pai.Mask]


@pytest.fixture(scope="module")
def model(digits: pai.Data) -> nn.Module:
    # In float64, so that the masks of many steps are the same on every machine.
    return pai.build_model("small-conv", digits).double()


@pytest.fixture(scope="module")
def batch(digits: pai.Data) -> Batch:
    return in_float64(digits.batch())


def in_float64(batch: Batch) -> Batch:
    return batch[0].double(), batch[1]


def in_steps(
    model: nn.Module,
    batch: Batch,
    criterion: Callable[..., pai.Scores],
    choose: Choice,
    *,
    sparsity: float,
    steps: int,
) -> list[pai.Mask]:
    """Score at the pruned network and choose anew, along powers of the density."""
    masks = [pai.Mask.dense(model)]
    n = masks[0].size
    for t in range(1, steps + 1):
        count = round(n * (round((1 - sparsity) * n) / n) ** (t / steps))
        scores = criterion(model, batch, mask=masks[-1])
        masks.append(choose(scores, count, masks[-1]))
    return masks


def living(scores: pai.Scores, mask: pai.Mask) -> pai.Scores:
    """Set the scores of removed weights to 0, as masked gradients or weights do."""
    return pai.Scores({name: score * mask[name] for name, score in scores.items()})


def among_living(scores: pai.Scores, k: int, mask: pai.Mask) -> pai.Mask:
    return keep_count(scores, k, among=mask)


def among_all(scores: pai.Scores, k: int, _mask: pai.Mask) -> pai.Mask:
    return keep_count(scores, k)


def at_least_kth(scores: pai.Scores, k: int, _mask: pai.Mask) -> pai.Mask:
    """Keep whatever is not below the k-th largest score: the public rule."""
    threshold = scores.flat().sort(descending=True).values[k - 1]
    return pai.Mask({name: score >= threshold for name, score in scores.items()})


def at_least_kth_living(scores: pai.Scores, k: int, mask: pai.Mask) -> pai.Mask:
    return at_least_kth(living(scores, mask), k, mask)


def revived(masks: list[pai.Mask]) -> int:
    """Count the weights that a step has and the step before it has not."""
    pairs = pairwise(masks)
    return sum(int((new[name] & ~old[name]).sum()) for old, new in pairs for name in new)


def test_every_test_of_the_table_exists() -> None:
    """The table at the top of this file."""
    folder, here = Path(__file__).parent, Path(__file__).name
    named = re.findall(r"^    (?:(test_\w+\.py)::)?(test_\w+)$", __doc__, re.MULTILINE)
    assert len(named) > 30
    for file, name in named:
        assert f"\ndef {name}(" in (folder / (file or here)).read_text(), name


# Papers


def test_trap_the_preprints_force_is_iter_snip(model, batch):
    """The preprint's eq. 7 forbids revival, though its eq. 5 scores removed weights too."""
    options = {"sparsity": 0.99, "steps": 10}
    preprint = in_steps(model, batch, pai.snip, among_living, **options)
    published = in_steps(model, batch, pai.snip, among_all, **options)
    assert revived(preprint) == 0
    assert revived(published) > 100
    scores, removed = pai.snip(model, batch, mask=preprint[3]), ~preprint[3]["3.weight"]
    assert (scores["3.weight"][removed] > 0).any(), "dense weights, gradients without the mask"

    assert pai.prune(model, "iter-snip", batch, **options) == preprint[-1]
    assert pai.prune(model, "force", batch, **options) == published[-1]
    assert preprint[-1].overlap(published[-1]) < 0.5


def hessian_gradient_product(model: nn.Module, batch: Batch, temperature: float) -> Tensor:
    """Return Hg as the slope of the gradient along itself, by central differences."""
    model = copy.deepcopy(model).train()
    weights = list(pai.prunable_parameters(model).values())

    def gradient() -> tuple[Tensor, ...]:
        loss = nn.functional.cross_entropy(model(batch[0]) / temperature, batch[1])
        return torch.autograd.grad(loss, weights)

    def gradient_at(distance: float) -> Tensor:
        for w, w0, direction in zip(weights, start, g, strict=True):
            w.data = w0 + distance * direction
        return torch.cat([x.flatten() for x in gradient()])

    start, g, eps = [w.detach().clone() for w in weights], gradient(), 1e-3
    return (gradient_at(eps) - gradient_at(-eps)) / (2 * eps)


def test_trap_grasps_algorithm_1_keeps_what_should_go(model, batch):
    """It keeps what lies below the p-th percentile of -w * Hg, with p the fraction to prune."""
    p = 0.95
    w = torch.cat([w.detach().flatten() for w in pai.prunable_parameters(model).values()])
    z = -w * hessian_gradient_product(model, batch, temperature=200.0)
    literal = z < z.quantile(p)
    mask = pai.prune(model, "grasp", batch, sparsity=p)
    kept = torch.cat([tensor.flatten() for tensor in mask.values()])
    assert int(literal.sum()) == pytest.approx(p * len(z), abs=1)
    assert int(kept.sum()) == round((1 - p) * len(z))
    assert z[kept].max() <= z[~kept].min() + 1e-6 * z.abs().max(), "the largest are removed"


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_trap_the_power_schedule_is_of_the_density(sparsity):
    """From no weights removed to s, s^(n/N) starts above s and falls."""
    n, steps = 10**6, 10
    literal = [sparsity ** (t / steps) for t in range(1, steps + 1)]
    assert literal == sorted(literal, reverse=True)
    assert literal[0] > sparsity

    counts = pai.schedule_counts(n, sparsity, steps=steps, schedule="exponential")
    sparsities = [1 - count / n for count in counts]
    assert sparsities == sorted(sparsities)
    assert sparsities[0] < sparsity
    assert counts == [round(n * (1 - sparsity) ** (t / steps)) for t in range(1, steps + 1)]


# Losses and batches


def test_trap_grasp_splits_a_batch_that_is_sorted_by_class(digits, model):
    """BatchNorm then sees five classes at a time: further from the whole than random halves."""

    def mask_of(batches: Batch | list[Batch]) -> pai.Mask:
        return pai.prune(model, "grasp", batches, sparsity=0.95)

    def halves(inputs: Tensor, targets: Tensor) -> list[Batch]:
        return list(zip(inputs.split(50), targets.split(50), strict=True))

    by_class, shuffled = [], []
    for seed in range(3):
        inputs, targets = in_float64(digits.batch(seed=seed))
        order = targets.argsort(stable=True)
        whole = mask_of((inputs, targets))
        assert whole == mask_of((inputs[order], targets[order]))
        by_class.append(whole.overlap(mask_of(halves(inputs[order], targets[order]))))
        shuffled.append(whole.overlap(mask_of(halves(inputs, targets))))
        assert all(len(half.unique()) > 5 for half in targets.split(50)), "our order is mixed"
    assert sum(by_class) < sum(shuffled) - 0.1


def test_trap_grasp_scores_a_copy_with_other_weights(model, batch):
    """Its linear layers are drawn anew for the scores, and the network is then trained without."""
    model = copy.deepcopy(model)
    model[-1].weight.data[3] = 0.0
    other = copy.deepcopy(model)
    other[-1].weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    scores, others = pai.grasp(model, batch), pai.grasp(other, batch)
    name = list(scores)[-1]
    assert not scores[name][3].any(), "a weight of 0 scores 0"
    assert others[name][3].all()
    assert pai.keep_top(scores, 0.95).overlap(pai.keep_top(others, 0.95)) < 0.7


def test_trap_a_class_with_exactly_k_images_gives_k():
    """The reference's fetch goes on until the data ends without them."""
    data = make_data((1, 8, 8), 10, sizes=(20, 10, 10))
    inputs, targets = data.batch(per_class=2)
    assert targets.bincount(minlength=10).tolist() == [2] * 10
    assert len(inputs.flatten(1).unique(dim=0)) == 20


def test_trap_grasps_temperature_and_batches_are_the_callers(digits, model, batch):
    """Temperature 200 and 1, 2 or 10 iterations by data set are constants of the public code."""
    fixed = pai.prune(model, "grasp", batch, sparsity=0.95)
    assert pai.prune(model, "grasp", batch, sparsity=0.95, temperature=200.0) == fixed
    cold = pai.prune(model, "grasp", batch, sparsity=0.95, temperature=1.0)
    assert cold.overlap(fixed) < 0.7
    three = pai.prune(model, "grasp", map(in_float64, digits.batches(3)), sparsity=0.95)
    assert 0.1 < three.overlap(fixed) < 1


# Thresholds


@pytest.mark.parametrize(
    ("method", "criterion"), [("iter-snip", pai.snip), ("grasp-it", pai.grad_norm)]
)
def test_trap_a_threshold_of_zero_makes_the_iterated_network_dense_again(
    model, batch, method, criterion
):
    """Once the k-th score is 0, `score >= k-th` holds for every weight."""
    options = {"sparsity": 0.995, "steps": 60}
    naive = in_steps(model, batch, criterion, at_least_kth_living, **options)
    assert naive[-1].density == 1.0
    mask = pai.prune(model, method, batch, **options)
    assert mask.kept == round(0.005 * mask.size)


def test_trap_force_that_was_reset_to_dense_is_one_shot_snip(model, batch):
    """Dense again before its last step, it scores the dense network and prunes at one stroke."""
    options = {"sparsity": 0.9997, "steps": 10}
    once = pai.prune(model, "snip", batch, sparsity=options["sparsity"])
    naive = in_steps(model, batch, pai.snip, at_least_kth, **options)
    assert naive[-2].density == 1.0
    assert naive[-1] == once
    mask = pai.prune(model, "force", batch, **options)
    assert mask.kept == once.kept
    assert mask.overlap(once) < 0.5


# Revival


def test_trap_removed_weights_with_score_zero_displace_negative_ones(model, batch):
    """Iterated GraSP of the public code chooses removed weights again, which stay removed."""

    def naive(scores: pai.Scores, k: int, mask: pai.Mask) -> pai.Mask:
        chosen = keep_count(living(scores, mask), k)
        return pai.Mask({name: chosen[name] & mask[name] for name in mask})

    options = {"sparsity": 0.2, "steps": 10}
    k = round(0.8 * pai.Mask.dense(model).size)
    assert in_steps(model, batch, pai.grasp, naive, **options)[-1].kept < 0.5 * k
    steps = in_steps(model, batch, pai.grasp, among_living, **options)
    assert revived(steps) == 0
    mask = pai.prune(model, "grasp", batch, **options)
    assert mask == steps[-1]
    assert mask.kept == k


# Unrolling


def test_trap_a_flat_mask_prunes_nothing(network):
    """The reference's application function takes a flat mask and leaves the network as it is."""
    mask = pai.keep_top(pai.magnitude(network), 0.5)
    flat = pai.Mask({name: tensor.flatten() for name, tensor in mask.items()})
    for refused in (flat, pai.Mask({"mask": torch.cat(list(flat.values()))})):
        with pytest.raises(ValueError, match="mask"):
            refused.apply_(network)
        with pytest.raises(ValueError, match="mask"):
            pai.prospr(network, [make_batch()] * 4, mask=refused)
    mask.apply_(network)
    left = sum(int((w != 0).sum()) for w in pai.prunable_parameters(network).values())
    assert left == mask.kept < mask.size


# BatchNorm mode and numbers


def test_trap_eval_mode_changes_grasp_mask(model, batch):
    """Running statistics at initialization are not those of any batch."""
    train, evaluation = (
        pai.prune(model, "grasp", batch, sparsity=0.95, batchnorm=mode)
        for mode in ("train", "eval")
    )
    assert pai.prune(model, "grasp", batch, sparsity=0.95) == train
    assert pai.prune(copy.deepcopy(model).eval(), "grasp", batch, sparsity=0.95) == train
    assert train.overlap(evaluation) < 0.5


def layer_sums(scores: pai.Scores | dict[str, Tensor]) -> list[float]:
    return [float(tensor.sum()) for tensor in scores.values()]


def naive_synflow(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Score abs(w dR/dw) with every parameter's absolute value and BatchNorm as it stands."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data.abs_()
    weights = pai.prunable_parameters(model)
    model(torch.ones_like(inputs[:1])).sum().backward()
    return {name: (w * w.grad).abs() for name, w in weights.items()}


def test_trap_synflow_with_batchnorm_or_biases_conserves_nothing(model, batch):
    """Layers' sums are equal only in a network that is linear in every layer's weights."""
    model, with_bias = copy.deepcopy(model), copy.deepcopy(model)
    for name, parameter in with_bias.named_parameters():
        if name.endswith("bias"):
            parameter.data.fill_(0.5)
    neutral = layer_sums(naive_synflow(model.eval(), batch[0]))
    assert neutral == pytest.approx([neutral[0]] * len(neutral), rel=1e-10), "nothing in the way"
    for wrong in (model.train(), with_bias.eval()):
        sums = layer_sums(naive_synflow(wrong, batch[0]))
        assert min(sums) < 0.9 * max(sums)
    for training in (True, False):
        sums = layer_sums(pai.synflow(with_bias.train(training), batch))
        assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-10)
        assert sums[0] == pytest.approx(neutral[0], rel=1e-3), "but for BatchNorm's epsilon"


def test_trap_synflow_in_float32_is_infinite_on_deep_networks():
    """The path norm is a product over the layers, here of a factor of about 50 for each."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(*[nn.Linear(100, 100, bias=False) for _ in range(30)])
    for w in model.parameters():
        w.data *= 10
    batch = torch.zeros(1, 100), torch.zeros(1, dtype=torch.int64)
    wrong = naive_synflow(model, batch[0])
    assert not any(score.isfinite().all() for score in wrong.values())
    with pytest.raises(ValueError, match="float64"):
        pai.synflow(model, batch, dtype=torch.float32)
    right = naive_synflow(model.double(), batch[0].double())
    for name, score in pai.synflow(model.float(), batch).items():
        assert torch.allclose(score, right[name], rtol=1e-10)


def test_trap_training_starts_from_the_weights_that_were_scored(digits, model, batch):
    """The first SNIP code draws other initial weights for training than for the scores."""
    mask = pai.prune(model, "snip", batch, sparsity=0.9)
    recipe = pai.Recipe(epochs=1, lr=1e-9, momentum=0.0, weight_decay=0.0)
    run = pai.fit(model, digits, recipe, mask=mask, seed=7, stop_at=1, progress=False)
    drawn_again = pai.prunable_parameters(pai.build_model("small-conv", digits, seed=7).double())
    trained = pai.prunable_parameters(run.model)
    for name, w in pai.prunable_parameters(model).items():
        assert torch.allclose(trained[name], w * mask[name], rtol=0, atol=1e-6)
        assert not torch.allclose(trained[name], drawn_again[name] * mask[name], rtol=0, atol=0.1)
