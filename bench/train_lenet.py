"""Trains the LeNet that ships in `shoal.proof.samples` (lenet.npz) on drawn digits: about a minute of one core.

    python bench/train_lenet.py OUT.npz

The seed, the data and the schedule are fixed; another machine's sums may differ in the last digit, so the shipped file
is the reference, not this script's output.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from shoal.proof.samples.glyphs import glyphs
from shoal.proof.samples.onnx_models import LENET, random_weights

EPOCHS, BATCH, TRAIN, TEST = 8, 64, 12_000, 2_000


def forward(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    run = torch.nn.functional
    for name in ("conv1", "conv2"):
        x = run.max_pool2d(run.relu(run.conv2d(x, weights[name], weights[f"{name}.bias"])), 2)
    x = x.flatten(1)
    for name in ("fc1", "fc2"):
        x = run.relu(run.linear(x, weights[name], weights[f"{name}.bias"]))
    return run.linear(x, weights["fc3"], weights["fc3.bias"])


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data, test = glyphs(TRAIN, seed=1), glyphs(TEST, seed=2)
    pictures, labels = torch.from_numpy(data.pictures), torch.from_numpy(data.labels)
    weights = {name: torch.from_numpy(w * 0.5).requires_grad_() for name, w in random_weights(LENET, seed=0).items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(TRAIN).split(BATCH):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(forward(weights, pictures[batch]), labels[batch])
            loss.backward()
            optimiser.step()
        schedule.step()
        with torch.no_grad():
            right = (forward(weights, torch.from_numpy(test.pictures)).argmax(1).numpy() == test.labels).mean()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, accuracy on {TEST} new pictures {right:.4f}")
    np.savez_compressed(sys.argv[1], **{name: w.detach().numpy().astype(np.float16) for name, w in weights.items()})


if __name__ == "__main__":
    main()
