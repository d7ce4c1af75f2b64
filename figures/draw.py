"""Draw the figure that the README shows, from the library and the weights that ship with it."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from vae_lib.data import fixed_binarization, load
from vae_lib.exact import LinearGaussian
from vae_lib.plotting import COLOURS, image_grid, use_style
from vae_lib.recipes import pretrained

FILE = Path(__file__).with_name("overview.png")


@torch.no_grad()
def draw_digits(ax):
    """Ten test digits, their reconstructions (means of p(x|z) for one draw of z each), and generated digits."""
    model = pretrained("conv_mnist")
    torch.manual_seed(0)
    x = fixed_binarization(load("MNIST").test)[:10]
    output, _, _ = model(x)
    generated = model.decoder(torch.randn(20, model.latent_dim))
    rows = [x, model.likelihood.mean(output), model.likelihood.mean(generated)]
    image_grid(torch.cat(rows), columns=10, ax=ax, row_labels=["test digits", "reconstructed", "generated", ""])


def draw_gap(ax):
    """The ELBO rising to log p(x) while only q is trained, on a linear-Gaussian model, where log p(x) is known."""
    weight = torch.tensor([[1.0, 0.6], [0.6, 1.0], [-0.3, 0.5]])
    model = LinearGaussian(weight, bias=torch.zeros(3), variance=0.2)
    x, _ = model.sample(200, torch.Generator().manual_seed(0))
    q = [torch.zeros(200, 2, dtype=torch.float64, requires_grad=True) for _ in ("mu", "log_var")]
    optimizer, bounds = torch.optim.SGD(q, lr=10), []
    for _ in range(60):
        optimizer.zero_grad()
        bound = model.elbo(x, *q).mean()
        (-bound).backward()
        optimizer.step()
        bounds.append(bound.item())
    log_px = model.log_px(x).mean().item()
    ax.axhline(log_px, color=COLOURS["black"], label="log p(x), exact")
    ax.plot(bounds, label="ELBO")
    ax.fill_between(range(60), bounds, log_px, color=COLOURS["orange"], alpha=0.4, label="gap: KL(q || posterior)")
    ax.set(xlabel="steps that train q alone", ylabel="nats")
    ax.legend()


if __name__ == "__main__":
    use_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 2.9), width_ratios=(1.8, 1))
    draw_digits(left)
    draw_gap(right)
    fig.savefig(FILE, metadata={"Software": None})
    print(f"figures/{FILE.name}")
