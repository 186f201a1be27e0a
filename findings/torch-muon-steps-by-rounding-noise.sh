#!/usr/bin/env bash
# Seen 2026-11-29 with torch 2.13.0, CPU.
#
# One would guess: `torch.optim.Muon` works in the parameter's type. Its Newton-Schulz steps only
#   multiply matrices, so the update stays in the span of the gradient's rows, and a loss that is
#   scaled by a constant changes nothing: the gradient is divided by its norm first.
# True: torch/optim/_muon.py casts every gradient to bfloat16, a float64 one too (the class's
#   documentation has no word of it), and multiplies in it. What is rounded off is noise of full
#   rank, some thousandths of the norm, and each step multiplies small singular values by 3.4445:
#   five by 485. Where the gradient has few large singular values and nothing beneath them, the
#   noise is most of the update: for a layer that has seen one row nearly three quarters of it
#   point where no gradient was, and the same loss times three gives quite another update. In
#   float32 the same steps are exact.
# Why it matters: gradients of low rank are ordinary (an expert to which a few tokens went, a short
#   batch, an adapter), and float32 is what one switches to when a run looks noisy. Nor can a port
#   be compared with this class in float32: from one row they differ by more than the update.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq torch==2.13.0 numpy==2.4.6
"$scratch/venv/bin/python" - <<'PYTHON'
import torch

WIDTH = 256
A, B, C = 3.4445, -4.7750, 2.0315  # the class's defaults
N_STEPS = 5


def gradient(inputs, scale=1.0):
    """Of a linear layer, by a loss whose gradient at the layer's output is random."""
    layer = torch.nn.Linear(WIDTH, WIDTH, bias=False)
    random = torch.Generator().manual_seed(1)
    (scale * layer(inputs) * torch.randn(inputs.shape, generator=random)).sum().backward()
    return layer.weight.grad


def update(grad, dtype=torch.float32):
    """What the optimizer's first step adds to a weight of zeros, with a rate of one."""
    weight = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH, dtype=dtype))
    weight.grad = grad.to(dtype)
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
    return weight.detach().to(torch.float64)


def by_hand(grad):
    """The same steps in the gradient's own type."""
    x = grad / grad.norm()
    for _ in range(N_STEPS):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return -x.to(torch.float64)


def outside(step, inputs):
    """The share of `step`, by squares, that none of the inputs' directions explains."""
    span, _ = torch.linalg.qr(inputs.T.to(torch.float64))
    return float((step - step @ span @ span.T).norm() ** 2 / step.norm() ** 2)


def difference(step, other):
    return float((step - other).norm() / other.norm())


print("torch", torch.__version__)
print("expected: nothing outside the inputs' span, no change by a loss times three")
print("seen (float32, float64, by hand in float32; loss times three):")
seen = {}
for n_rows in (1, 4, 16, 64):
    inputs = torch.randn(n_rows, WIDTH, generator=torch.Generator().manual_seed(0))
    grad = gradient(inputs)
    steps = update(grad), update(grad, torch.float64), by_hand(grad)
    shares = [outside(step, inputs) for step in steps]
    tripled = difference(update(gradient(inputs, 3.0)), steps[0])
    tripled_by_hand = difference(by_hand(gradient(inputs, 3.0)), steps[2])
    seen[n_rows] = *shares, tripled, tripled_by_hand
    print(f"  {n_rows} rows: outside {shares[0]:.3f}, {shares[1]:.3f}, {shares[2]:.0e}; ", end="")
    print(f"changed by {tripled:.2f}, by hand {tripled_by_hand:.0e}")

for float32, float64, exact, tripled, tripled_by_hand in seen.values():
    assert exact < 1e-6 and tripled_by_hand < 1e-3
    assert float32 > 0.01 and abs(float64 - float32) < 0.01
    assert tripled > 0.1
assert seen[1][0] > 0.5 and seen[4][0] > 0.2
PYTHON
