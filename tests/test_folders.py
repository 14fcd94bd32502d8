"""Folders of images: read whole, or streamed in batches while they are scored."""

import gc

import numpy as np
import pytest
import torch
from conftest import unchanged
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import pai_lite as pai
from pai_lite.folders import find_folder, list_folder
from pai_lite.streams import stream_batches

CLASSES = ("ant", "bee", "cat")
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def write_image(path, number, size=(8, 8), mode="RGB"):
    """Write noise whose first pixel is the number of the image, in three channels."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[0, 0] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


def write_part(part, per_class, first=0, classes=CLASSES, **options):
    """Write a folder per class; image ``first + i`` of the whole part is the i-th."""
    for c, name in enumerate(classes):
        for i in range(per_class):
            number = first + c * per_class + i
            write_image(part / name / f"{number:03}.png", number, **options)


@pytest.fixture
def folder(tmp_path):
    """Four training images and two test images of each of three classes, 8 x 8."""
    write_part(tmp_path / "images" / "train", 4)
    write_part(tmp_path / "images" / "val", 2, first=100)
    return tmp_path / "images"


def make_tiny(root):
    """Lay out images as Tiny-ImageNet does."""
    for c, name in enumerate(CLASSES):
        for i in range(4):
            write_image(root / "train" / name / "images" / f"{name}_{i}.png", 4 * c + i)
    for i in range(3):
        write_image(root / "val" / "images" / f"val_{i}.png", 100 + i)
    # In another order than the classes: a label must come from the line.
    lines = [f"val_{i}.png\t{name}\t0\t0\t62\t62\n" for i, name in enumerate(("cat", "ant", "bee"))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "test" / "images").mkdir(parents=True)
    write_image(root / "test" / "images" / "test_0.png", 0)
    return root


def numbered(split):
    """Return pairs (number of the image, label)."""
    return list(zip(split.images[:, 0, 0, 0].tolist(), split.labels.tolist(), strict=True))


def test_a_folder_is_read_whole(folder):
    data = pai.load_data(folder, validation=0.25)
    assert (data.name, data.classes, data.input_shape) == ("images", 3, (3, 8, 8))
    train = [(n, n // 4) for n in range(12)]
    assert sorted(numbered(data.train) + numbered(data.validation)) == train
    assert len(data.validation) == 3
    assert numbered(data.test) == [(100 + n, n // 2) for n in range(6)]


def test_pixels_are_those_of_the_files(folder):
    data = pai.load_data(folder, validation=0)
    for number in range(12):
        path = folder / "train" / CLASSES[number // 4] / f"{number:03}.png"
        assert np.array_equal(
            data.train.images[number].permute(1, 2, 0), np.asarray(Image.open(path))
        )


def test_images_that_are_not_square_keep_their_shape(tmp_path):
    write_part(tmp_path / "train", 2, size=(9, 5))
    write_part(tmp_path / "val", 1, size=(9, 5))
    assert pai.load_data(tmp_path).input_shape == (3, 5, 9)


def test_labelled_test_images_come_before_those_for_validation(folder):
    write_part(folder / "test", 1, first=200)
    assert numbered(pai.load_data(folder).test) == [(200, 0), (201, 1), (202, 2)]


def test_a_test_split_without_a_class_keeps_the_numbers_of_the_others(tmp_path):
    write_part(tmp_path / "train", 2)
    write_part(tmp_path / "val", 1, first=100, classes=("bee", "cat"))
    assert numbered(pai.load_data(tmp_path).test) == [(100, 1), (101, 2)]


def test_tiny_imagenet_by_path_and_by_name(tmp_path, monkeypatch):
    root = make_tiny(tmp_path / "tiny-imagenet-200")
    data = pai.load_data(root, validation=0)
    assert numbered(data.train) == [(n, n // 4) for n in range(12)]
    assert numbered(data.test) == [(100, 2), (101, 0), (102, 1)]
    named = pai.load_data("tiny-imagenet", root=tmp_path, validation=0)
    assert torch.equal(named.test.images, data.test.images)
    monkeypatch.setenv("PAI_DATA", str(tmp_path))
    assert stream_batches("tiny-imagenet", batch_size=4, image_size=8).classes == 3


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_every_image_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            write_image(tmp_path / part / name / f"x.{suffix}", 7, mode=mode)
    data = pai.load_data(tmp_path, validation=0)
    expected = np.asarray(Image.open(tmp_path / "train" / "ant" / f"x.{suffix}").convert("RGB"))
    assert np.array_equal(data.train.images[0].permute(1, 2, 0), expected)


def test_image_size_scales_the_shorter_side_and_crops_at_the_centre(tmp_path):
    for part in ("train", "val"):
        for i, name in enumerate(CLASSES):
            pixels = np.zeros((8, 16, 3), np.uint8)
            pixels[:, 4:12] = 10 * (i + 1)  # the centre, all that is to be seen
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / part / name / "x.png")
    data = pai.load_data(tmp_path, validation=0, image_size=8)
    assert data.input_shape == (3, 8, 8)
    assert [set(image.flatten().tolist()) for image in data.train.images] == [{10}, {20}, {30}]
    assert pai.load_data(tmp_path, validation=0, image_size=4).input_shape == (3, 4, 4)


def test_images_of_several_sizes_need_image_size(folder):
    write_image(folder / "val" / "cat" / "zzz.png", 9, size=(10, 6))
    with pytest.raises(
        ValueError, match=r"zzz\.png has shape \(6, 10\).*\(8, 8\): give image_size"
    ):
        pai.load_data(folder)
    assert len(pai.load_data(folder, image_size=8).test) == 7


def test_what_is_too_large_for_memory_is_refused_before_it_is_read(folder):
    with pytest.raises(ValueError, match=r"18 images, 126 GiB at 50000 x.*stream_batches"):
        pai.load_data(folder, image_size=50_000)  # 18 * 3 * 25e8 bytes over 2**30 are 125.7
    with pytest.raises(ValueError, match="image_size is 0 pixels; it must be positive"):
        pai.load_data(folder, image_size=0)
    with pytest.raises(ValueError, match="image_size is 8, but only folders"):
        pai.load_data("digits", image_size=8)


def test_a_folder_does_not_hide_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert pai.load_data("digits").input_shape == (1, 8, 8)


def flat_validation(root):
    write_part(root / "train", 2)
    for i in range(6):
        write_image(root / "val" / f"ILSVRC2012_val_{i}.png", i)


def other_classes(root):
    write_part(root / "train", 2)
    write_part(root / "val", 2, classes=("dog", "emu"))


def nothing_but_classes(root):
    write_part(root, 2)


def empty_class(root):
    write_part(root / "train", 2)
    (root / "train" / ".cache").mkdir()
    write_part(root / "val", 2)


def unknown_label(root):
    make_tiny(root)
    (root / "val" / "val_annotations.txt").write_text("val_0.png\temu\t0\t0\t1\t1\n")


def missing_image(root):
    make_tiny(root)
    (root / "val" / "val_annotations.txt").write_text("val_9.png\tant\t0\t0\t1\t1\n")


def line_without_label(root):
    make_tiny(root)
    (root / "val" / "val_annotations.txt").write_text("val_0.png\n")


@pytest.mark.parametrize(
    ("lay_out", "message"),
    [
        (flat_validation, r"no labelled test: .*val/ holds ILSVRC2012_val_0\.png, .* \(6 in all\)"),
        (other_classes, r"no labelled test: .*val/ holds dog/, emu/ \(2 in all\)"),
        (
            nothing_but_classes,
            r"no labelled train: .* holds ant/, bee/, cat/ \(3 in all\)\. A folder",
        ),
        (empty_class, r"no valid file for the classes \.cache.*remove the empty folders"),
        (unknown_label, r"val_annotations\.txt has the line 'val_0\.png\\temu.*class of train/"),
        (missing_image, r"has the line 'val_9\.png"),
        (line_without_label, r"has the line 'val_0\.png'"),
    ],
)
def test_another_layout_is_named(tmp_path, lay_out, message):
    root = tmp_path / "given"
    lay_out(root)
    for load in (pai.load_data, lambda path: stream_batches(path, batch_size=2)):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            load(root)


def test_a_data_set_that_is_not_there_says_where_it_should_be(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet is not at .*imagenet, .*: unpack it there"):
        pai.load_data("imagenet", root=tmp_path)
    with pytest.raises(ValueError, match="no name, no folder, no path"):
        pai.load_data(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="There is no folder"):
        stream_batches(tmp_path / "nowhere")
    assert find_folder(str(tmp_path), tmp_path) == tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(folder, workers):
    path = folder / "train" / "bee" / "004.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"bee/004\.png cannot be read as an image"):
        list(stream_batches(folder, batch_size=12, image_size=8, workers=workers))
    with pytest.raises(ValueError, match=r"bee/004\.png cannot be read.*fetch it again, or delete"):
        pai.load_data(folder)


# Streams.


def read_all(folder):
    """Read the training images with torchvision alone, in the order of classes."""
    paths = sorted((folder / "train").glob("*/*.png"))
    images = [v2.functional.pil_to_tensor(Image.open(path).convert("RGB")) for path in paths]
    labels = torch.tensor([CLASSES.index(path.parent.name) for path in paths])
    return (torch.stack(images) / 255 - MEAN) / STD, labels


def key(inputs):
    """Return the numbers of the images in a batch."""
    return ((inputs * STD + MEAN)[:, 0, 0, 0] * 255).round().int().tolist()


def test_a_stream_yields_every_image_once_with_its_label(folder):
    stream = stream_batches(folder, batch_size=4, image_size=8)
    assert (len(stream), stream.classes, stream.input_shape) == (3, 3, (3, 8, 8))
    inputs, labels = (torch.cat(part) for part in zip(*stream, strict=True))
    whole, classes = read_all(folder)
    order = torch.tensor(key(inputs))
    assert sorted(order.tolist()) == list(range(12))
    assert order.tolist() != list(range(12))
    assert (inputs.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.allclose(inputs, whole[order], atol=1e-6)
    assert torch.equal(labels, classes[order])


@pytest.mark.parametrize("augment", [False, True])
def test_a_seed_gives_the_same_batches_whoever_reads_them(folder, augment):
    def read(seed, workers=0):
        options = {"seed": seed, "workers": workers, "augment": augment}
        return [x for x, _ in stream_batches(folder, batch_size=6, image_size=8, **options)]

    first = read(1)
    assert all(map(torch.equal, first, read(1)))
    assert all(map(torch.equal, first, read(1, workers=2)))
    assert not all(map(torch.equal, first, read(2)))


def test_a_stream_can_be_read_again(folder):
    stream = stream_batches(folder, batch_size=5, image_size=8, augment=True)
    assert len(stream) == 2  # the two images left over make no batch
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(stream, stream, strict=True))


def test_count_takes_the_first_batches(folder):
    some = list(stream_batches(folder, batch_size=3, image_size=8, count=2))
    whole = list(stream_batches(folder, batch_size=3, image_size=8))
    assert [key(x) for x, _ in some] == [key(x) for x, _ in whole[:2]]


def test_augment_cuts_patches_and_flips(tmp_path):
    """From images that brighten to the right, patches do too, or to the left where flipped."""
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    for part in ("train", "val"):
        for i in range(40):
            path = tmp_path / part / CLASSES[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ramp).save(path)
    [(x, _)] = stream_batches(tmp_path, batch_size=40, image_size=16, augment=True)
    row = (x * STD + MEAN)[:, 0, 8] * 255
    rise = row[:, -1] - row[:, 0]
    assert 8 < (rise > 0).sum() < 32
    # A share s of the area at an aspect ratio r is sqrt(s * r) wide.
    widest = (1.0 * 1.25) ** 0.5
    shares = rise.abs() / 248
    assert shares.min() > (0.1 * 0.8) ** 0.5 - 0.15
    assert shares.max() <= min(widest, 1.0) + 1e-3
    assert shares.max() - shares.min() > 0.3
    [(plain, _)] = stream_batches(tmp_path, batch_size=40, image_size=16)
    assert torch.equal(plain, plain[:1].expand_as(plain))


@pytest.mark.parametrize("augment", [False, True])
def test_scoring_a_stream_leaves_model_and_random_state_untouched(folder, augment):
    stream = stream_batches(folder, batch_size=4, image_size=8, augment=augment)
    model = pai.build_model("small-conv", stream)
    with unchanged(model):
        pai.snip(model, stream)


def test_snip_of_a_stream_is_that_of_all_its_images_at_once(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    scores = pai.snip(model, stream_batches(folder, batch_size=4, image_size=8))
    inputs, labels = read_all(folder)
    nn.functional.cross_entropy(model(inputs), labels).backward()
    for name in ("0.weight", "3.weight"):
        weight = model.get_parameter(name)
        expected = (weight * weight.grad).abs().detach()
        assert torch.allclose(scores[name], expected, rtol=1e-4, atol=1e-7)


def count_batches():
    """Return how many batches, of whatever dtype, are in memory."""
    tensors = (thing for thing in gc.get_objects() if type(thing) is torch.Tensor)
    return sum(tensor.shape == (2, 3, 64, 64) for tensor in tensors)


def most_alive(folder, count, criterion):
    """Return how many batches were in memory at once while a criterion looked at them."""
    alive = []

    def watched():
        for batch in stream_batches(folder, batch_size=2, image_size=64, count=count):
            alive.append(count_batches())
            yield batch

    criterion(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)), watched())
    assert len(alive) == count
    return max(alive)


def test_memory_does_not_grow_with_the_number_of_batches(tmp_path):
    write_part(tmp_path / "train", 14)
    write_part(tmp_path / "val", 1)
    assert most_alive(tmp_path, 20, lambda _, batches: list(batches)) >= 20  # the probe works
    assert most_alive(tmp_path, 20, pai.snip) == most_alive(tmp_path, 4, pai.snip) <= 5
    assert most_alive(tmp_path, 20, pai.grad_norm) <= 5


@pytest.mark.parametrize("name", ["resnet50", "vgg19"])
def test_the_papers_networks_are_scored_on_a_stream(folder, name):
    stream = stream_batches(folder, batch_size=2, image_size=32, count=2)
    model = pai.build_model(name, stream)
    mask = pai.keep_top(pai.snip(model, stream), sparsity=0.9)
    assert mask.density == pytest.approx(0.1, abs=1e-6)


def test_iterative_pruning_can_take_new_images_every_step(folder):
    def batches(step):
        return stream_batches(folder, batch_size=6, image_size=8, seed=step)

    model = pai.build_model("small-conv", batches(0))
    mask = pai.prune(model, "force", batches, sparsity=0.9, steps=3, progress=False)
    assert mask.density == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"image_size": 0}, "image_size is 0"),
        ({"count": 0}, "count is 0"),
        ({"batch_size": 13}, "has 12 training images; .* need 13: use a smaller"),
        ({"batch_size": 6, "count": 3}, "need 18"),
    ],
)
def test_bad_numbers_are_named(folder, options, message):
    with pytest.raises(ValueError, match=message):
        stream_batches(folder, **options)


def test_numbers_of_classes_follow_their_sorted_names(tmp_path):
    write_part(tmp_path / "train", 1, classes=("zebra", "ant", "moose"))
    write_part(tmp_path / "val", 1, classes=("moose", "zebra", "ant"))
    assert list_folder(tmp_path).classes == ("ant", "moose", "zebra")
    assert numbered(pai.load_data(tmp_path, validation=0).train) == [(1, 0), (2, 1), (0, 2)]
    assert numbered(pai.load_data(tmp_path, validation=0).test) == [(2, 0), (0, 1), (1, 2)]
