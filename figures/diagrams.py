"""The pictures that no page has: diagrams, with shapes read from the library's networks, and the README's overview."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from vae_lib.data import fixed_binarization, load
from vae_lib.exact import LinearGaussian
from vae_lib.models import conv_vae
from vae_lib.plotting import COLOURS, image_grid
from vae_lib.recipes import WEIGHTS, pretrained, recorded_runs, vae_and_prior

SKY, ORANGE, GREY = COLOURS["sky"] + "55", COLOURS["orange"] + "66", "#DDDDDD"  # pale, behind black text


class Node(NamedTuple):
    x: float
    y: float
    patch: object


def canvas(width, height):
    """A figure and its one pair of axes, not drawn, which count in inches from the lower left."""
    fig = plt.figure(figsize=(width, height), layout="none")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return fig, ax


def box(ax, x, y, text, width, height=0.56, fill="white"):
    """A rectangle around the point (x, y) with a text in it."""
    patch = FancyBboxPatch((x - width / 2, y - height / 2), width, height, "round,pad=0,rounding_size=0.08",
                           facecolor=fill, edgecolor="black", linewidth=1.2)
    ax.text(x, y, text, ha="center", va="center", size=13)
    return Node(x, y, ax.add_patch(patch))


def circle(ax, x, y, text, fill="white"):
    ax.text(x, y, text, ha="center", va="center", size=18)
    return Node(x, y, ax.add_patch(Circle((x, y), 0.36, facecolor=fill, edgecolor="black", linewidth=1.2)))


def arrow(ax, start, end, bend=0.0):
    ax.add_patch(FancyArrowPatch(start[:2], end[:2], patchA=start.patch, patchB=end.patch, shrinkA=1, shrinkB=2,
                                 arrowstyle="-|>,head_width=4,head_length=7", color="black", linewidth=1.5,
                                 connectionstyle=f"arc3,rad={bend}"))


def graphical_model():
    fig, ax = canvas(8, 4.2)
    sides = ((2.3, "generative model", r"$p_\theta(x\,|\,z)\;p(z)$", r"$\theta$", "decoder's\nweights", 1.1),
             (6.2, "inference model", r"$q_\phi(z\,|\,x)$", r"$\phi$", "encoder's\nweights", 2.5))
    for middle, title, formula, weights, whose, height in sides:
        ax.text(middle, 3.95, title, ha="center", va="center", size=15, weight="bold")
        ax.text(middle, 3.5, formula, ha="center", va="center", size=17)
        ax.add_patch(Rectangle((middle - 0.6, 0.15), 1.75, 2.95, facecolor="none", edgecolor="black", linewidth=1.2))
        ax.text(middle + 1.05, 0.27, "N images", ha="right", size=12)
        nodes = circle(ax, middle, 2.5, "$z$"), circle(ax, middle, 1.1, "$x$", GREY)
        ax.text(middle - 1.35, height, weights, ha="center", va="center", size=20)
        ax.text(middle - 1.35, height - 0.28, whose, ha="center", va="top", size=12)
        start, end = nodes if height < 2 else nodes[::-1]
        arrow(ax, start, end)
        arrow(ax, Node(middle - 1.15, height, None), end)
    return fig


def objective():
    fig, ax = canvas(8, 4.2)
    x = circle(ax, 0.45, 2.6, "$x$", GREY)
    encoder = box(ax, 1.55, 2.6, "encoder\n" r"$\phi$", 0.95, 0.9, SKY)
    code = box(ax, 2.9, 2.6, r"$\mu,\ \log\sigma^2$", 1.2)
    z = box(ax, 4.55, 2.6, r"$z=\mu+\sigma\varepsilon$", 1.45)
    noise = circle(ax, 4.55, 3.75, r"$\varepsilon$", ORANGE)
    decoder = box(ax, 6.1, 2.6, "decoder\n" r"$\theta$", 1.0, 0.9, SKY)
    logits = box(ax, 7.3, 2.6, "logits", 0.85)
    kl = box(ax, 2.9, 1.4, r"$\mathrm{KL}\left(q(z\,|\,x)\,\|\,p(z)\right)$", 2.2)
    again, fit = circle(ax, 5.7, 1.4, "$x$", GREY), box(ax, 7.3, 1.4, r"$\log p(x\,|\,z)$", 1.3)
    elbo = box(ax, 4.7, 0.4, r"$\mathrm{ELBO}=\log p(x\,|\,z)-\mathrm{KL}$", 3.4, fill=ORANGE)
    for ends in ((x, encoder), (encoder, code), (code, z), (noise, z), (z, decoder), (decoder, logits), (logits, fit),
                 (again, fit), (code, kl), (kl, elbo), (fit, elbo)):
        arrow(ax, *ends)
    return fig


@torch.no_grad()
def network_shapes(latent_dim=20):
    """The shapes behind each layer of page 09's network: of the image and the encoder's blocks, heads, the decoder."""
    model, shapes = conv_vae(latent_dim=latent_dim).eval(), []
    encoder, decoder = model.encoder, model.decoder
    layers = [*encoder.stages, encoder.to_mu, encoder.to_log_var, decoder.from_latent, *decoder.stages,
              decoder.to_output]
    for layer in layers:
        layer.register_forward_hook(lambda layer, _, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, *encoder.image_shape))
    heads = len(encoder.stages)
    shapes[heads + 2] = decoder.start_shape  # the linear layer's numbers, as the blocks get them
    return [encoder.image_shape, *shapes[:heads]], shapes[heads:heads + 2], shapes[heads + 2:]


def volume(ax, x, y, shape):
    """A tensor (channels, height, width) as a rectangle: as high as the image, and wider for more channels."""
    width, height = 0.15 + 0.006 * shape[0], 0.05 * shape[1]
    patch = Rectangle((x - width / 2, y - height / 2), width, height, facecolor=SKY, edgecolor="black", linewidth=1.2)
    ax.text(x, y - 0.85, "×".join(map(str, shape)), ha="center", va="top", size=13)
    return Node(x, y, ax.add_patch(patch))


def chain(ax, nodes, layers):
    """Arrows from node to node, each under the name of a layer."""
    for start, end, layer in zip(nodes, nodes[1:], layers):
        arrow(ax, start, end)
        ax.text((start.x + end.x) / 2, start.y + 0.1, layer, ha="center", va="bottom", size=11)


def conv_network():
    fig, ax = canvas(8, 4.8)
    (image, *inner), (mu, log_var), outer = network_shapes()
    for y, name in (4.6, "encoder"), (2.3, "decoder"):
        ax.text(0.1, y, name, va="center", size=15, weight="bold")
    top = [volume(ax, x, 3.65, shape) for x, shape in zip((0.6, 2.3, 4.0), (image, *inner))]
    chain(ax, top, ["conv\nblock", "conv\nblock"])
    for y, symbol, shape in (4.25, r"$\mu$", mu), (3.05, r"$\log\sigma^2$", log_var):
        arrow(ax, top[-1], box(ax, 6.4, y, f"{symbol}: {shape[0]}", 1.4))
    ax.text(5.5, 3.65, "two linear layers", va="center", size=12)
    bottom = [box(ax, 0.5, 1.5, f"$z$: {mu[0]}", 0.8),
              *(volume(ax, x, 1.5, shape) for x, shape in zip((2.1, 3.85, 5.6, 7.35), outer))]
    chain(ax, bottom, ["linear\nlayer", "transposed\nconv block", "transposed\nconv block", "3×3\nconvolution"])
    ax.text(7.35, 2.35, "logits", ha="center", va="center", size=13)
    ax.text(0.1, 0.15, "A block: 3×3 convolution of stride 2, batch norm, leaky ReLU.", va="center", size=12)
    return fig


def residual_block():
    fig, ax = canvas(8, 2.6)
    start, fork, end = (Node(*at, None) for at in ((0.7, 0.7), (0.5, 0.9), (7.25, 0.7)))
    plus = circle(ax, 6.55, 0.7, "+", ORANGE)
    for x, text in (0.45, "$x_l$"), (7.6, "$x_{l+1}$"):
        ax.text(x, 0.7, text, ha="center", va="center", size=18)
    layers = (1.5, "ReLU", 0.75), (2.75, "3×3 conv\n$A$", 1.1), (4.0, "ReLU", 0.75), (5.2, "3×3 conv\n$B$", 1.1)
    row = [start, *(box(ax, x, 0.7, text, width, 0.85, SKY) for x, text, width in layers), plus, end]
    for ends in zip(row, row[1:]):
        arrow(ax, *ends)
    arrow(ax, fork, plus, bend=-0.45)
    ax.text(3.5, 1.75, "the input, as it is", ha="center", va="center", size=12)
    ax.text(5.2, 0.1, "$B=0$ at first", ha="center", va="center", size=12)
    return fig


def best_model():
    """The recipe of lowest NLL, among those whose recorded run was measured with 5,000 importance samples."""
    nlls = {name: log["nll"]["5000"]["nll"] for (name, seed), log in recorded_runs().items()
            if seed == 0 and "5000" in log.get("nll", {})}
    return min(nlls, key=nlls.get)


@torch.no_grad()
def draw_digits(ax):
    """Ten test digits, their reconstructions (means of p(x|z) for one draw of z each), and digits of the best model."""
    name = best_model()
    vae, prior = vae_and_prior(name, pretrained(name), WEIGHTS)
    torch.manual_seed(0)
    x = fixed_binarization(load("MNIST").test)[:10]
    output, _, _ = vae(x)
    generated = vae.decoder(prior.sample(20) if prior else torch.randn(20, vae.latent_dim))
    rows = torch.cat([x, vae.likelihood.mean(output), vae.likelihood.mean(generated)])
    image_grid(rows, columns=10, ax=ax, row_labels=["test digits", "reconstructed", "generated", ""])


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
    ax.legend(fontsize="small")


def overview():
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.5), width_ratios=(1.9, 1))
    draw_digits(left)
    draw_gap(right)
    return fig
