"""Seeds of a run: one number in the config, and from it one for each purpose and epoch."""

import hashlib

import torch


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the global generators of the CPU and of `device`.

    `torch.manual_seed` formats a stack for every kind of device that is missing, which takes longer
    than a batch of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def derived_seed(seed: int, purpose: str, epoch: int) -> int:
    """Seed for a purpose in an epoch, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {epoch}".encode()).digest()[:7], "big")
