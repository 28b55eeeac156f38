import torch

from rkdsearch.attacks.image_noise import ImageNoise

X = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_an_image_has_the_same_numbers_in_any_batch_and_place_and_memory_layout() -> None:
    whole = ImageNoise((7, "pgd20")).uniform(X)
    some = torch.tensor([4, 1])
    assert torch.equal(ImageNoise((7, "pgd20")).uniform(X[some]), whole[some])
    colour = torch.rand(2, 3, 4, 4)
    last = colour.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ImageNoise((7,)).normal(last), ImageNoise((7,)).normal(colour))


def test_seeds_names_and_images_have_numbers_of_their_own() -> None:
    drawn = [ImageNoise(names).uniform(X) for names in ((7, "a"), (8, "a"), (7, "b"))]
    assert len({tuple(image.flatten().tolist()) for part in drawn for image in part}) == 15


def test_uniform_and_normal_numbers_have_their_moments() -> None:
    images = torch.rand(400, 1, 8, 8)
    uniform, normal = ImageNoise((0,)).uniform(images), ImageNoise((0,)).normal(images)
    assert -1 <= float(uniform.min()) < -0.99
    assert 0.99 < float(uniform.max()) < 1
    assert abs(float(uniform.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02
