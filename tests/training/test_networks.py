import numpy as np
import pytest
import torch
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.networks import NETWORKS, Architecture, Network, make_network
from dqas_lib.training.setting import Setting


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("size", [8, 32, 64])
def test_features_are_the_pooled_map_and_logits_the_head_of_them(name, size):
    network = make_network(name, 7, size, seed=1).eval()
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        maps = network.feature_map(images)
        features = network.features(images)
        logits = network(images)
    assert maps.shape[:2] == features.shape == (2, network.head.in_features)
    torch.testing.assert_close(maps.mean((2, 3)), features)
    torch.testing.assert_close(network.head(features), logits)
    assert logits.shape == (2, 7)


def test_resnet18_is_the_cifar_one():
    network = make_network("resnet18", 10, 32, seed=0)
    # the usual count of ResNet-18 for CIFAR: 3x3 stem, ten classes
    assert sum(p.numel() for p in network.parameters()) == 11_173_962
    with torch.no_grad():
        assert network.eval().feature_map(torch.zeros(1, 32, 32, 3)).shape == (1, 512, 4, 4)


@pytest.mark.parametrize(
    ("name", "parameters", "shape"),
    [
        # torchvision's 25,557,032 with 1,000 classes, 7x7 stem: - 2,049,000 + 20,490 for the head, - 7,680 for the stem
        ("resnet50", 23_520_842, (1, 2048, 4, 4)),
        # 14,714,688 in the convolutions of VGG-16, 8,448 in their batch normalizations, 5,130 in the head
        ("vgg16", 14_728_266, (1, 512, 1, 1)),
        # patches 4*4*3*192 + 192, 6 blocks of 12 * 192**2 + 13 * 192, last norm 384, head 1,930
        ("small_vit", 9_408 + 6 * 444_864 + 384 + 1_930, (1, 192, 8, 8)),
    ],
)
def test_the_networks_of_cross_architecture_have_their_known_sizes(name, parameters, shape):
    network = make_network(name, 10, 32, seed=0).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    with torch.no_grad():
        assert network.feature_map(torch.zeros(1, 32, 32, 3)).shape == shape


def test_the_transformer_knows_where_a_patch_is():
    network = make_network("small_vit", 3, 32, seed=0).eval()
    images = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    moved = torch.cat([images[:, 4:], images[:, :4]], dim=1)  # the same patches, in other rows
    with torch.no_grad():
        assert not torch.allclose(network(images), network(moved), atol=1e-3)


def test_a_transformer_refuses_a_side_it_cannot_cut():
    with pytest.raises(InputError, match="a multiple of 8; got 20"):
        make_network("small_vit", 10, 20, seed=0)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (make_network("small_cnn", 10, 8, seed=s) for s in (4, 4, 5))
    assert torch.rand(1) == expected
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_normalization_is_of_the_training_images():
    network = make_network("small_cnn", 2, 8, seed=0)
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    images[:2, ..., 0], images[..., 1], images[..., 2] = 200, 50, np.arange(8)
    network.normalize_by(ImageSet(images, np.array([0, 0, 1, 1]), np.arange(4), ("a", "b")))
    np.testing.assert_allclose(network.mean.numpy(), [100, 50, 3.5])
    np.testing.assert_allclose(network.std.numpy(), [100, 1, np.arange(8).std()], rtol=1e-6)  # a flat channel: 1


def test_an_unknown_network_lists_the_known_ones():
    expected = r"unknown network 'resnet99' \(did you mean 'resnet\d+'\?\): the known ones are small_cnn, resnet9"
    with pytest.raises(InputError, match=expected):
        make_network("resnet99", 10, 32, seed=0)
    assert {"small_cnn", "resnet18"} <= set(NETWORKS)


def test_a_network_from_outside_is_named_by_its_builders_source(monkeypatch):
    monkeypatch.setattr(NETWORKS, "_items", dict(NETWORKS._items))

    def narrow(n_classes, size):
        return Network(nn.Conv2d(3, 4, 3), 4, n_classes)

    def wide(n_classes, size):
        return Network(nn.Conv2d(3, 8, 3), 8, n_classes)

    keys = []
    for build in (narrow, narrow, wide):
        NETWORKS._items.pop("mine", None)
        NETWORKS.register(Architecture("mine", build, "a test"))
        keys.append(Setting("mine", "quick").key["network"])
    assert keys[0] == keys[1] != keys[2]
    assert [Setting(name, "quick").key["network"] for name in ("small_cnn", "resnet18")] == ["small_cnn", "resnet18"]
