"""Which channels go together: tied layers, what stays, and what cannot be followed."""

import copy

import pytest
import torch
from conftest import CLASSES, make_batch, make_network, unchanged
from torch import Tensor, nn
from torchvision.models import shufflenet_v2_x0_5

from pai_lite.shrinking import cost, shrink
from pai_lite.structured import ChannelMask, find_model_units, split
from pai_lite.units import Units, find_units

INPUTS, TARGETS = make_batch()


class Net(nn.Module):
    """Two convolutions, something between them, and a linear layer; subclasses say what."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(self.width, 4, 3, padding=1)
        self.last = nn.Linear(4, CLASSES)
        self.build()

    def build(self) -> None:
        """Make further layers."""

    def start(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.first(x))

    def between(self, y: Tensor) -> Tensor:
        """Map the outputs of the first convolution to the inputs of the second."""
        raise NotImplementedError

    def rest(self, y: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(y)).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.between(self.start(x)))


class Depthwise(Net):
    def build(self) -> None:
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)

    def between(self, y: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.depthwise(y)))


class InputAtTheEnd(Net):
    width = 6

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(torch.cat([self.start(x), x], 1))


class InputInFront(Net):
    width = 6

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(torch.cat([x, self.start(x)], 1))


class AddedToInput(Net):
    width = 2

    def build(self) -> None:
        self.back = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x + self.back(self.start(x)))


class Excited(Net):
    """Squeeze and excitation: a gate a channel, computed from all."""

    def build(self) -> None:
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)
        self.prelu = nn.PReLU()

    def between(self, y: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(self.prelu(self.squeeze(y.mean((2, 3))))))
        return y * gate[:, :, None, None]


class Tokens(Net):
    """A linear layer over the channels of every pixel."""

    def build(self) -> None:
        self.token = nn.Linear(4, 4)
        self.prelu = nn.PReLU(4)

    def between(self, y: Tensor) -> Tensor:
        return self.prelu(self.token(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Twice(Net):
    """One layer applied two times."""

    def build(self) -> None:
        self.again = nn.Conv2d(4, 4, 3, padding=1)

    def between(self, y: Tensor) -> Tensor:
        return torch.tanh(self.again(torch.tanh(self.again(y))))


class Partly(nn.Module):
    """Some channels are added to the inputs and stay, others are added to another layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.wide(x)) + torch.cat([self.narrow(x), x], 1)
        return self.last(torch.tanh(y).mean((2, 3)))


class Classes(nn.Module):
    """A residual connection into the outputs: its first layer has classes as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, CLASSES), nn.Linear(CLASSES, 5)
        self.third = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x.flatten(1))
        return torch.log_softmax(y + self.third(torch.tanh(self.second(y))), 1)


#: The networks that can be followed, with the number of units of each group.
FOLLOWED: dict[type[nn.Module], dict[str, int]] = {
    Depthwise: {"first.weight": 4, "second.weight": 4},
    InputAtTheEnd: {"first.weight": 4, "second.weight": 4},
    InputInFront: {"first.weight": 4, "second.weight": 4},
    AddedToInput: {"first.weight": 4, "second.weight": 4},
    Excited: {"first.weight": 4, "second.weight": 4, "squeeze.weight": 2},
    Tokens: {"first.weight": 4, "second.weight": 4, "token.weight": 4},
    Twice: {"first.weight": 4, "second.weight": 4},
    Partly: {"wide.weight": 4},
    Classes: {"second.weight": 5},
}


class Grouped(Net):
    def build(self) -> None:
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)

    def between(self, y: Tensor) -> Tensor:
        return self.grouped(y)


class Softmax(Net):
    def between(self, y: Tensor) -> Tensor:
        return torch.softmax(y, 1)


class GroupNorm(Net):
    def build(self) -> None:
        self.norm = nn.GroupNorm(2, 4)

    def between(self, y: Tensor) -> Tensor:
        return self.norm(y)


class Flip(Net):
    def between(self, y: Tensor) -> Tensor:
        return y + y.flip(1)


class Shuffle(Net):
    def between(self, y: Tensor) -> Tensor:
        return y.view(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, 4, 4, 4)


class Product(Net):
    def between(self, y: Tensor) -> Tensor:
        z = y.flatten(2)
        return (torch.bmm(z, z.transpose(1, 2)) @ z).view_as(y)


class Halves(Net):
    width = 2

    def between(self, y: Tensor) -> Tensor:
        one, other = y.chunk(2, 1)
        return one * torch.sigmoid(other)


class Selected(Net):
    width = 2

    def between(self, y: Tensor) -> Tensor:
        return y[:, [3, 1]]


class Transposed(Net):
    def build(self) -> None:
        self.up = nn.ConvTranspose2d(4, 4, 1)

    def between(self, y: Tensor) -> Tensor:
        return self.up(y)


class Scaled(Net):
    def build(self) -> None:
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def between(self, y: Tensor) -> Tensor:
        return y * self.scale


class ChannelsLast(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(2, 4, 3, padding=1), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self[1](self[0](x).permute(0, 2, 3, 1).flatten(1))


class Detached(Net):
    def between(self, y: Tensor) -> Tensor:
        return torch.from_numpy(y.detach().numpy())


REFUSED: dict[type[nn.Module], str] = {
    Grouped: r"grouped\.weight belongs to a convolution in 2 groups",
    Softmax: r"of first\.weight cannot be matched .* stand Sigmoid, Softmax,",
    GroupNorm: r"of first\.weight cannot be matched .* stand Sigmoid, GroupNorm,",
    Flip: r"of first\.weight cannot be matched .* stand Sigmoid, .*Flip.*,",
    Shuffle: r"of first\.weight cannot be matched .* stand Sigmoid, .*Transpose.*,",
    Product: r"of first\.weight cannot be matched .* stand .*Bmm.*,",
    Halves: r"of first\.weight cannot be matched .* stand Sigmoid, Split, Mul,",
    Selected: r"of first\.weight cannot be matched .* stand Sigmoid, (?:Slice, )?Index,",
    Transposed: r"of first\.weight cannot be matched .* stand Sigmoid, ConvTranspose2d,",
    Scaled: r"A parameter of shape \(4, 1, 1\) acts on channels",
    ChannelsLast: r"of 0\.weight cannot be matched .* stand .*Permute",
}


def build(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind().double()


def keep_all_but(units: Units, *removed: int) -> ChannelMask:
    keep = torch.ones(units.size, dtype=torch.bool)
    keep[list(removed)] = False
    return ChannelMask(split(keep, units), units)


@pytest.mark.parametrize("kind", FOLLOWED)
def test_networks_that_can_be_followed_shrink_exactly(kind: type[nn.Module]) -> None:
    model = build(kind)
    with unchanged(model):
        units = find_units(model, INPUTS)
    assert units.groups == FOLLOWED[kind]
    starts = [0, *torch.tensor(list(units.groups.values())).cumsum(0).tolist()[:-1]]
    mask = keep_all_but(units, *(start + 1 for start in starts))
    small = shrink(model, mask, INPUTS)
    masked = copy.deepcopy(model)
    mask.weights().apply_(masked)
    torch.testing.assert_close(small(INPUTS), masked(INPUTS), rtol=1e-10, atol=1e-10)
    assert cost(small, INPUTS).parameters < cost(model, INPUTS).parameters


@pytest.mark.parametrize("kind", REFUSED)
def test_networks_that_cannot_be_followed_are_refused(kind: type[nn.Module]) -> None:
    model = build(kind)
    with unchanged(model), pytest.raises(ValueError, match=REFUSED[kind]) as caught:
        find_units(model, INPUTS)
    assert "Prune single weights of this model" in str(caught.value)


def test_what_the_library_cannot_follow_is_refused_as_well() -> None:
    with pytest.raises(ValueError, match=r"cannot follow ShuffleNetV2: .* Prune single weights"):
        find_units(shufflenet_v2_x0_5(), torch.randn(2, 3, 64, 64))


def test_inputs_that_do_not_fit_raise_the_error_of_pytorch() -> None:
    with pytest.raises(RuntimeError, match="to have 2 channels, but got 1 channels instead"):
        find_units(build(Twice), INPUTS[:, :1])


def test_a_layer_that_gradients_do_not_reach_is_left_alone() -> None:
    assert find_units(build(Detached), INPUTS).groups == {"second.weight": 4}


def test_a_network_of_one_layer_has_no_units() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, CLASSES)).double()
    with pytest.raises(ValueError, match="Sequential has no channel that can be removed"):
        find_model_units(model, (INPUTS, TARGETS))


@pytest.mark.parametrize("kind", FOLLOWED)
def test_one_input_is_enough(kind: type[nn.Module]) -> None:
    model = build(kind)
    one, many = find_units(model, INPUTS[:1]), find_units(model, INPUTS)
    assert (one.groups, one.positions) == (many.groups, many.positions)
    assert all(torch.equal(one.columns[name], many.columns[name]) for name in many.columns)


def test_frozen_layers_are_followed_as_well() -> None:
    model = make_network("residual").requires_grad_(False)
    with torch.no_grad():
        assert (
            find_units(model, INPUTS).groups == find_units(make_network("residual"), INPUTS).groups
        )


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", Depthwise, Tokens, Twice, Excited])
def test_multiply_adds_are_what_the_removal_of_one_unit_saves(kind: str | type) -> None:
    model = make_network(kind) if isinstance(kind, str) else build(kind)
    units = find_units(model, INPUTS)
    dense = cost(model, INPUTS).multiply_adds
    saved = [
        dense - cost(shrink(model, keep_all_but(units, unit), INPUTS), INPUTS).multiply_adds
        for unit in range(units.size)
    ]
    assert units.multiply_adds().tolist() == saved
