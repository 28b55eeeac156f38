import torch

from rkdsearch.training.seeds import derived_seed, seed_generators


def test_each_purpose_and_epoch_has_a_seed_of_its_own_the_same_everywhere() -> None:
    assert derived_seed(5, "attack", 0) == derived_seed(5, "attack", 0)
    seeds = {derived_seed(s, p, e) for s in (0, 1) for p in ("attack", "global") for e in (0, 1)}
    assert len(seeds) == 8
    assert derived_seed(0, "attack", 0) == 47547601518909847


def test_the_global_generator_draws_as_torch_seeds_it() -> None:
    seed_generators(torch.device("cpu"), 7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
