"""What the pack of figures holds: names, captions, alternative texts and licences, and the list of them, README.md."""

import base64
import io
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import nbformat
from PIL import Image

from vae_lib.widgets import HEADING

PAGES = Path(__file__).resolve().parent.parent / "notebooks"
LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"
DIGITS = ("The digits are of MNIST, by Y. LeCun, C. Cortes and C. Burges: CC BY-SA 3.0, "
          "https://creativecommons.org/licenses/by-sa/3.0/, which holds for the picture with them")
INTRODUCTION = """# Figures for lectures

`python3 run.py figures` draws these figures and writes this list; names after it choose some. Each is there as SVG,
which stays sharp at any size, and as PNG, which fills a slide. A page's figure is the one that the page shows. Caption,
alternative text and licence are in the files too: in an SVG's title, description and rights, in a PNG's text.

Who uses a figure names the authors of the course, links to the licence and says what was changed
([LICENSE-text](../LICENSE-text)). `fashion_mnist_20.png` is no figure but data of page 09, cut out by
`fashion_mnist.py`, under [a licence of its own](fashion_mnist_20.LICENSE).
"""


class Figure(NamedTuple):
    """A figure that a page's cell shows, and of an explorer the picture at `still`, which no kernel is needed for."""

    page: str
    cell: str
    name: str
    caption: str
    digits: bool = False  # whether it shows digits of MNIST
    still: str = ""

    @property
    def file(self):
        return f"{self.page[:2]}_{self.name}"

    @property
    def alt(self):
        return stored(self)[1]


class Drawn(NamedTuple):
    """A figure that `diagrams` draws, in its function of the same name."""

    file: str
    caption: str
    alt: str
    digits: bool = False


DRAWN = (
    Drawn("overview", "The course in one picture: a trained VAE, and the bound that it was trained on.",
          "Left: handwritten test digits, their reconstructions, and digits that the model generates. Right: a curve "
          "of the ELBO that rises to the exact log p(x), with the gap between them shaded.", digits=True),
    Drawn("graphical_model", "The two models as graphs, in plate notation.",
          "Two graphs in a plate for N images, with x grey, as it is observed. Left, the generative model: an arrow "
          "from z to x, and one from the decoder's weights theta to x. Right, the inference model: an arrow from x to "
          "z, and one from the encoder's weights phi to z."),
    Drawn("objective", "From an image to its ELBO.",
          "A graph. The image x goes through the encoder to the means and log-variances. With noise epsilon they give "
          "z, and the decoder turns z into logits. The logits and x give log p(x|z), the means and log-variances give "
          "the KL, and the ELBO is the first minus the second."),
    Drawn("conv_network", "The convolutional VAE of page 09, layer by layer.",
          "Encoder: an image of 1×28×28, a block, 32×14×14, a block, 64×7×7, then two linear layers to 20 means and 20 "
          "log-variances. Decoder: 20 latents, a linear layer, 64×7×7, a transposed block, 32×14×14, a transposed "
          "block, 32×28×28, a 3×3 convolution, and logits of 1×28×28."),
    Drawn("residual_block", "The residual block of page 12, equation (12.8).",
          "A chain from x to the next x: ReLU, 3×3 convolution A, ReLU, 3×3 convolution B, which is zero at first, and "
          "a sum. An arc leads from x to the sum, past the four layers."),
)
FIGURES = (
    Figure("00_start_here", "cell-14", "one_digit", "One digit on its way through a trained VAE.", digits=True),
    Figure("00_start_here", "cell-10", "rebuilt", "Ten test digits and their reconstructions.", digits=True),
    Figure("00_vae_in_half_an_hour", "cell-10", "short_training", "The ELBO and its two terms in 200 steps."),
    Figure("00_vae_in_half_an_hour", "cell-16", "short_digits", "What a VAE does after 200 steps.", digits=True),
    Figure("01_latent_variables", "cell-06", "latent", "From a latent variable to a density that is no Gaussian."),
    Figure("01_latent_variables", "cell-46", "draws_needed",
           "What plain Monte Carlo costs as the latents grow in number."),
    Figure("01_latent_variables", "cell-49", "posterior", "Few draws of the prior fall where the posterior is."),
    Figure("02_elbo", "cell-06", "two_bumps", "One pixel, two latents that explain it: a posterior with two bumps."),
    Figure("02_elbo", "cell-12", "jensen", "Jensen's inequality: average first, then take the logarithm."),
    Figure("02_elbo", "cell-29", "gap", "log p(x) = ELBO + gap, for four Gaussians q."),
    Figure("02_elbo", "cell-60", "two_directions", "The two directions of the KL divergence choose different q."),
    Figure("03_em_to_vae", "cell-21", "em_steps", "EM: an E step closes the gap, an M step lifts the bound."),
    Figure("03_em_to_vae", "033a8d72", "em_touching", "EM's bounds touch log p(x) where q is the posterior."),
    Figure("03_em_to_vae", "five-runs", "one_network_alone", "Why encoder and decoder are trained together."),
    Figure("04_gaussian_kl", "cell-39", "kl_terms", "What the KL term costs, by mean and by log-variance."),
    Figure("04_gaussian_kl", "158193ef", "kl_map", "The KL term as a map over mean and log-variance."),
    Figure("05_reparameterization", "1eecffd2", "two_graphs", "Score-function and pathwise estimators as graphs."),
    Figure("05_reparameterization", "cell-18", "same_noise", "One noise, moved and stretched: z = mean + std eps."),
    Figure("05_reparameterization", "f3dfea83", "variances", "The variance of three estimators of one gradient."),
    Figure("06_reconstruction_term", "cell-04", "three_widths", "What a squared error claims about a grey value."),
    Figure("06_reconstruction_term", "cell-62", "means_and_draws",
           "Means and draws of pixels under three losses.", digits=True),
    Figure("07_linear_vae", "cell-13", "eigenvalues",
           "The digits' eigenvalues: above 1/2 a direction is worth a latent."),
    Figure("07_linear_vae", "cell-47", "collapse", "Predicted and trained: latents die as the variance grows."),
    Figure("08_fully_connected_vae", "cell-31", "two_maps", "The latents of a VAE and the codes of an autoencoder."),
    Figure("08_fully_connected_vae", "cell-34", "two_sheets",
           "The plane of latents, decoded by a VAE and an autoencoder.", digits=True),
    Figure("09_conv_vae_mnist", "field", "receptive_field", "What a number of the second layer sees of the image.",
           digits=True, still="layers = 2"),
    Figure("09_conv_vae_mnist", "cell-62", "digits",
           "Reconstructions and samples after 200 steps, and of a longer recipe.", digits=True),
    Figure("10_reconstruct_and_generate", "cell-08", "six_kinds", "Six kinds of picture from a VAE.", digits=True),
    Figure("10_reconstruct_and_generate", "cell-16", "aggregate", "The average of all posteriors is not the prior."),
    Figure("11_measuring_likelihood", "cell-27", "two_averages",
           "The averaged ELBO stays below log p(x), IWAE rises to it."),
    Figure("11_measuring_likelihood", "c41220ca", "nll", "The likelihood of MNIST over the minutes of training."),
    Figure("12_training_on_the_bound", "cell-69", "signal_to_noise",
           "With more samples IWAE's gradient is lost in noise, DReG's is not."),
    Figure("12_training_on_the_bound", "073fa940", "flow", "A flow learns a density with a hole."),
    Figure("12_training_on_the_bound", "bound-60", "samples", "Samples of three models.", digits=True),
    Figure("13_bug_museum", "museum-losses-figure", "reductions", "What wrong reductions lead to.", digits=True),
    Figure("13_bug_museum", "museum-noise-figure", "record", "A record that is none: noise that the KL does not know."),
)


@cache
def cells(page):
    return nbformat.read(PAGES / f"{page}.ipynb", as_version=4).cells


def stored(figure):
    """The picture that a page shows, and its alternative text; an explorer's are stacked, a line for each."""
    cell = next(cell for cell in cells(figure.page) if cell.get("id") == figure.cell)
    data = next(output.data for output in cell.outputs if "image/png" in output.get("data", {}))
    picture, alt = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("L"), data["text/plain"]
    if not figure.still:
        return picture, alt
    lines = alt.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith(f"{figure.still}: "))
    height = picture.height // len(lines)
    top = height * row + HEADING
    return picture.crop((0, top, picture.width, height * (row + 1))), lines[row].removeprefix(f"{figure.still}: ")


def licence(figure):
    return f"{LICENCE}. {DIGITS}." if figure.digits else f"{LICENCE}."


def readme():
    """The list of all figures, as Markdown."""
    lines = [INTRODUCTION]
    for heading, figures in groupby((*DRAWN, *FIGURES), key=heading_of):
        lines.append(f"## {heading}\n")
        for figure in figures:
            lines += [f"### {figure.caption}\n", f"![{figure.alt}]({figure.file}.png)\n",
                      f"[SVG]({figure.file}.svg), [PNG]({figure.file}.png). Licence: {licence(figure)}\n",
                      f"<details><summary>Alt text</summary>\n\n{figure.alt}\n\n</details>\n"]
    return "\n".join(lines)


def heading_of(figure):
    if isinstance(figure, Drawn):
        return "Diagrams"
    return f"[{cells(figure.page)[0].source.splitlines()[0].removeprefix('# ')}](../notebooks/{figure.page}.ipynb)"


