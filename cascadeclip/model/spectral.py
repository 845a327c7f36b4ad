"""SPT-SEG's spectral prompt, for the comparison on that base method (Xu et al., "Spectral Prompt Tuning", AAAI 2024).

Symbols as in `encoder.py`: B images, N = h * w patches, D width of the tower.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpectralPrompt(nn.Module):
    """Adds to the patch tokens what one learned filter lets pass of them, seen in the light of the class token.

    Args:
        width: of the tower, D.
        grid: (h, w) that the filter is stored for. For another grid it is interpolated over frequency, from -1/2 to
            1/2 cycles per patch, so that it does not depend on the size of the picture.
    """

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.filter = nn.Parameter(0.02 * torch.randn(grid[0], grid[1] // 2 + 1, width, 2))  # real and imaginary part

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + N, D) -> the same shape; the class token stays as it is."""
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        image = (patches * class_token).float().unflatten(1, grid)  # (B, h, w, D)
        spectrum = torch.fft.rfft2(image, dim=(1, 2), norm="ortho") * self.filter_for(grid)
        passed = torch.fft.irfft2(spectrum, s=grid, dim=(1, 2), norm="ortho").flatten(1, 2)
        return torch.cat([class_token, patches + passed.to(patches.dtype)], dim=1)

    def filter_for(self, grid: tuple[int, int]) -> Tensor:
        """The complex filter (h, w // 2 + 1, D) for a grid."""
        if grid == self.grid:
            return torch.view_as_complex(self.filter)
        height, width = self.grid
        planes = torch.fft.fftshift(self.filter, dim=0).flatten(2).permute(2, 0, 1)  # rows in order of frequency
        rows = torch.fft.fftfreq(grid[0], device=planes.device) * height + height // 2  # where they stand there
        columns = torch.fft.rfftfreq(grid[1], device=planes.device) * width
        places = [2 * index / max(length - 1, 1) - 1 for index, length in ((columns, width // 2 + 1), (rows, height))]
        points = torch.stack(torch.meshgrid(*places, indexing="xy"), dim=-1)[None]
        read = F.grid_sample(planes[None], points, align_corners=True, padding_mode="border")[0]
        return torch.view_as_complex(read.permute(1, 2, 0).unflatten(2, (-1, 2)).contiguous())
