"""A world of noise and a tiny model for it: what tests train on when nothing has to be learnt."""

import torch
from torch.utils.data import Dataset

from cascadeclip.config import ModelConfig, TowerConfig

NAMES, UNSEEN = ["a", "b", "c"], ["b"]
MODEL = ModelConfig(
    stages=((1, 2), (3,)), prompt_tokens=2, decoder_heads=2,
    tower=TowerConfig(image_size=16, patch_size=8, width=16, layers=3, heads=2, embed_dim=8),
)  # fmt: skip
TEXT = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)


class Noise(Dataset):
    """Eight pictures of noise with blocks of labels."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 16, 16), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 3, (2, 2), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
        return image, labels


def collate(items):
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)
