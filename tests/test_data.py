"""Data: splits that share no image, balanced batches, and errors that help."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from pai_lite.data import Data, Split, load_data

KEYS = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def numbered_arrays(channels=1, per_class=20, classes=3):
    """Images that carry their own index, so that a test can tell which went where."""
    n = per_class * classes
    images = np.zeros((n + 6, 4, 5, channels), dtype=np.uint8)
    images[:, 0, 0, :] = np.arange(n + 6)[:, None]
    images[:, 1, 1, 0] = 255
    labels = np.arange(n + 6) % classes
    return dict(zip(KEYS, (images[:n], labels[:n], images[n:], labels[n:]), strict=True))


def save(path, **changes):
    """Write an .npz of the numbered arrays with some keys changed, or left out if None."""
    arrays = {**numbered_arrays(), **changes}
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def indices(split):
    return split.images[:, 0, 0, 0].tolist()


def test_digits_have_the_promised_shapes_and_types(digits):
    assert isinstance(digits, Data)
    assert isinstance(digits.train, Split)
    assert (digits.name, digits.classes, digits.input_shape) == ("digits", 10, (1, 8, 8))
    assert digits.device == torch.device("cpu")
    for split in (digits.train, digits.validation, digits.test):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 1, 8, 8)
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)
    assert digits.mean.shape == digits.std.shape == (1,)
    assert digits.mean.dtype == digits.std.dtype == torch.float32


def test_digits_splits_together_are_the_whole_dataset_without_loss(digits):
    splits = (digits.train, digits.validation, digits.test)
    ours = torch.cat([split.images.flatten(1) for split in splits]).numpy()
    labels = torch.cat([split.labels for split in splits]).numpy()
    back = np.column_stack([np.rint(ours * (16 / 255)).astype(int), labels])
    original = load_digits()
    expected = np.column_stack([original.data.astype(int), original.target])
    assert sorted(map(tuple, back)) == sorted(map(tuple, expected))
    assert ours.max() == 255


def test_digits_splits_are_stratified(digits):
    whole = np.bincount(load_digits().target)
    test = digits.test.labels.bincount().numpy()
    held = digits.validation.labels.bincount().numpy()
    assert np.abs(test - 0.2 * whole).max() <= 0.5
    assert np.abs(held - 0.1 * (whole - test)).max() <= 0.5


@pytest.mark.parametrize("validation", [0, 0.1, 0.25, 0.5])
def test_no_image_is_in_two_splits_and_none_is_lost(tmp_path, validation):
    data = load_data(save(tmp_path / "a.npz"), validation=validation)
    train, held = indices(data.train), indices(data.validation)
    assert sorted(train + held) == list(range(60))
    assert indices(data.test) == list(range(60, 66))
    assert data.validation.labels.bincount(minlength=3).tolist() == [20 * validation] * 3
    for split in (data.train, data.validation):
        assert [i % 3 for i in indices(split)] == split.labels.tolist()


def test_loading_twice_gives_the_same_splits(digits):
    torch.manual_seed(123)
    again = load_data("digits")
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(digits, name).images, getattr(again, name).images)
        assert torch.equal(getattr(digits, name).labels, getattr(again, name).labels)


def test_the_test_split_does_not_depend_on_the_validation_fraction(digits):
    other = load_data("digits", validation=0.3)
    assert torch.equal(digits.test.images, other.test.images)


@pytest.mark.parametrize("validation", [-0.1, 0.51, 1, float("nan"), float("inf")])
def test_validation_fraction_out_of_range(validation):
    with pytest.raises(ValueError, match=r"validation is .*\[0, 0\.5\]"):
        load_data("digits", validation=validation)


def test_statistics_are_those_of_the_training_split_only(digits):
    pixels = digits.train.images.double() / 255
    assert digits.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert digits.std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)
    with_all = load_data("digits", validation=0)
    assert with_all.mean.item() != digits.mean.item()


def test_normalize_gives_each_channel_mean_zero_and_deviation_one(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers([0, 50, 100], [256, 100, 103], (60, 4, 5, 3)).astype(np.uint8)
    data = load_data(save(tmp_path / "rgb.npz", x_train=images, x_test=images[:6]))
    out = data.normalize(data.train.images)
    assert out.dtype == torch.float32
    assert out.shape == data.train.images.shape
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    by_hand = (data.train.images[7, 1, 2, 3].item() / 255 - data.mean[1]) / data.std[1]
    assert out[7, 1, 2, 3].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_constant_channel_is_not_divided_by_zero(tmp_path):
    images = np.full((60, 4, 5, 3), 77, dtype=np.uint8)
    images[:30, ..., 2] = 0
    data = load_data(save(tmp_path / "flat.npz", x_train=images, x_test=images[:6]))
    assert data.std[:2].tolist() == [1.0, 1.0]
    assert 0 < data.std[2] < 1
    assert torch.equal(data.normalize(data.train.images)[:, :2].abs().max(), torch.tensor(0.0))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(8).byte()],
    ids=["float", "channels", "flat"],
)
def test_normalize_refuses_what_is_not_raw_images(digits, images):
    with pytest.raises(ValueError, match=r"normalize got .* it needs torch\.uint8"):
        digits.normalize(images)


@pytest.mark.parametrize("per_class", [1, 7, 10])
def test_a_batch_is_balanced_normalized_and_shuffled(digits, per_class):
    inputs, targets = digits.batch(per_class=per_class, seed=3)
    assert inputs.dtype == torch.float32
    assert inputs.shape == (10 * per_class, 1, 8, 8)
    assert targets.dtype == torch.int64
    assert targets.bincount(minlength=10).tolist() == [per_class] * 10
    assert targets.tolist() != sorted(targets.tolist())
    known = rows(digits.normalize(digits.train.images), digits.train.labels)
    assert rows(inputs, targets) <= known


def rows(inputs, targets):
    """The pairs of image and label as a set."""
    pairs = zip(inputs.flatten(1).tolist(), targets.tolist(), strict=True)
    return {(tuple(image), label) for image, label in pairs}


def test_a_batch_draws_without_replacement_from_the_training_split_only(tmp_path):
    data = load_data(save(tmp_path / "a.npz"))
    inputs, _ = data.batch(per_class=18)
    drawn = ((inputs[:, 0, 0, 0] * data.std + data.mean) * 255).round().int().tolist()
    assert sorted(drawn) == sorted(indices(data.train))


def test_the_seed_alone_decides_the_batch(digits):
    inputs, targets = digits.batch(seed=5)
    torch.manual_seed(99)
    again, again_targets = digits.batch(seed=5)
    assert torch.equal(inputs, again)
    assert torch.equal(targets, again_targets)
    assert not torch.equal(inputs, digits.batch(seed=6)[0])


def test_loading_and_drawing_leave_the_global_random_states_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    load_data("digits").batches(2)
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, numpy_after, strict=True))


def test_batches_use_consecutive_seeds(digits):
    batches = digits.batches(3, per_class=2, seed=7)
    assert isinstance(batches, list)
    for i, (inputs, targets) in enumerate(batches):
        expected = digits.batch(per_class=2, seed=7 + i)
        assert torch.equal(inputs, expected[0])
        assert torch.equal(targets, expected[1])


def test_a_class_with_too_few_images_is_named(tmp_path):
    labels = np.array([0] * 40 + [1] * 15 + [2] * 5)
    data = load_data(save(tmp_path / "few.npz", y_train=labels), validation=0)
    data.batch(per_class=5)
    with pytest.raises(ValueError, match=r"Class 2 has 5 training images.*per_class=6"):
        data.batch(per_class=6)


def test_a_missing_class_is_named(tmp_path):
    labels = np.array([0, 2] * 30)
    data = load_data(save(tmp_path / "gap.npz", y_train=labels))
    assert data.classes == 3
    with pytest.raises(ValueError, match="Class 1 has 0 training images"):
        data.batch(per_class=1)


@pytest.mark.parametrize("value", [0, -1])
def test_empty_batches_are_refused(digits, value):
    with pytest.raises(ValueError, match=f"per_class is {value}"):
        digits.batch(per_class=value)
    with pytest.raises(ValueError, match=f"count is {value}"):
        digits.batches(value)


def test_to_moves_every_tensor_and_leaves_the_original(digits):
    moved = digits.to("meta")
    assert moved.device == torch.device("meta")
    for split in (moved.train, moved.validation, moved.test):
        assert split.images.device == split.labels.device == moved.device
    assert moved.mean.device == moved.std.device == moved.device
    assert (moved.name, moved.classes) == (digits.name, digits.classes)
    assert digits.device == torch.device("cpu")
    assert load_data("digits", device="meta").device == torch.device("meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_batch_is_the_same_on_every_device(digits):
    inputs, targets = digits.batch(seed=2)
    there, there_targets = digits.to("cuda").batch(seed=2)
    assert there.device.type == there_targets.device.type == "cuda"
    assert torch.allclose(there.cpu(), inputs, atol=1e-6)
    assert torch.equal(there_targets.cpu(), targets)


def test_data_cannot_be_changed_by_assignment(digits):
    with pytest.raises(AttributeError):
        digits.classes = 11


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_npz_layouts(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, *shape)).astype(np.uint8)
    labels = numbered_arrays()
    y, y_test = labels["y_train"].astype(dtype), labels["y_test"].astype(dtype)
    path = save(tmp_path / "some.npz", x_train=x, x_test=x[:6], y_train=y, y_test=y_test)
    data = load_data(str(path))
    channels = shape[2] if len(shape) == 3 else 1
    assert data.name == "some"
    assert data.classes == 3
    assert data.input_shape == (channels, 4, 5)
    as_stored = data.test.images.permute(0, 2, 3, 1).reshape(6, *shape).numpy()
    assert np.array_equal(as_stored, x[:6])
    assert np.array_equal(data.test.labels.numpy(), labels["y_test"])


X, Y = numbered_arrays()["x_train"], numbered_arrays()["y_train"]
WRONG = {
    "missing key": ({"y_test": None}, r"lacks the keys y_test and has .*x_train.*needs"),
    "float images": ({"x_train": X / 255}, r"x_train has dtype float64; it must be uint8"),
    "flat images": ({"x_train": X.reshape(60, -1)}, r"x_train has shape \(60, 20\); .*\(n, H, W"),
    "two channels": ({"x_test": X[:6].repeat(2, 3)}, r"x_test has shape \(6, 4, 5, 2\)"),
    "channels first": ({"x_train": X.transpose(0, 3, 1, 2)}, r"x_train has shape \(60, 1, 4, 5\)"),
    "no images": ({"x_test": X[:0], "y_test": Y[:0]}, r"x_test has shape \(0, 4, 5, 1\)"),
    "a number": ({"x_train": np.uint8(3)}, r"x_train has shape \(\)"),
    "float labels": ({"y_train": Y / 1.0}, r"y_train has dtype float64.*integers of shape \(n,\)"),
    "bool labels": ({"y_train": Y > 1}, r"y_train has dtype bool"),
    "column labels": ({"y_train": Y[:, None]}, r"y_train has .*shape \(60, 1\)"),
    "lengths": ({"y_train": Y[:59]}, r"y_train has 59 labels for 60 images"),
    "negative": ({"y_test": np.array([0, 1, -1, 0, 1, 2])}, r"y_test has labels from -1 to 2"),
    "huge": ({"y_train": Y + 2**62}, r"y_train has labels from 46116.* it must count the classes"),
    "sizes": ({"x_test": np.zeros((6, 9, 9), np.uint8)}, r"\(1, 4, 5\).*x_test \(1, 9, 9\)"),
    "objects": ({"y_train": np.array([0, "a"], dtype=object)}, r"y_train cannot be read"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_npz_is_named_with_its_key_and_what_is_right(tmp_path, changes, message):
    path = save(tmp_path / "wrong.npz", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_data(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x93NUMPY\x01\x00", b"PK\x03\x04cut"])
def test_a_file_that_is_no_archive(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npz is not an \.npz archive"):
        load_data(path)


def test_a_truncated_archive(tmp_path):
    path = save(tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cut\.npz"):
        load_data(path)


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_one_damaged_byte_gives_the_same_data_or_an_error_that_names_the_file(
    tmp_path, position, flip
):
    path = save(tmp_path / "flip.npz")
    content, whole = bytearray(path.read_bytes()), load_data(path)
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    data = load_or_error(path)
    if isinstance(data, ValueError):
        assert "flip.npz" in str(data)
    else:  # a byte that means nothing, such as a date
        assert torch.equal(data.train.images, whole.train.images)
        assert torch.equal(data.train.labels, whole.train.labels)


def load_or_error(path):
    try:
        return load_data(path)
    except ValueError as error:
        return error


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.npz"):
        load_data(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifar-10", "cifar10"), ("digit", "digits"), ("fashionmnist", "fashion-mnist")],
)
def test_an_unknown_name_lists_the_known_and_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"Did you mean '{nearest}'\? Known: digits, mnist,"):
        load_data(name)
    with pytest.raises(ValueError, match=r"path that ends in \.npz"):
        load_data("something else")
