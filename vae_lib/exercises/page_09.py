"""Page 09: the convolutional VAE, block by block."""

import math
from functools import cache
from itertools import pairwise

import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional as F

from vae_lib.answers import Exercise
from vae_lib.models import conv_vae, dense_vae


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def _normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


third_block = Exercise("9.1", cases=[(28, 3), (45, 4), (50, 5), (64, 2)])


def _way_in(height, blocks):
    """The heights that blocks of kernel 3, stride 2 and padding 1 make of one, by torch's shapes."""
    heights = [height]
    for _ in range(blocks):
        heights.append(F.conv1d(torch.zeros(1, heights[-1]), torch.zeros(1, 1, 3), stride=2, padding=1).shape[-1])
    return heights


@third_block.right
def _(height, blocks):
    heights = _way_in(height, blocks)[::-1]
    layers = [nn.ConvTranspose1d(1, 1, 3, stride=2, padding=1, output_padding=o) for o in (0, 1)]
    return [[layer(torch.zeros(1, low)).shape[-1] for layer in layers].index(high) for low, high in pairwise(heights)]


@third_block.mistake("These are right, but in the order of the way in. The decoder begins with the smallest height.")
def _(height, blocks):
    return third_block.solution(height, blocks)[::-1]


@third_block.mistake("With 1 everywhere each block doubles the height. From 4 that leads to 8, where 7 is wanted.")
def _(height, blocks):
    return [1] * blocks


@third_block.mistake("Zeros and ones are exchanged: without `output_padding` (9.6) gives the odd number 2H - 1.")
def _(height, blocks):
    return [1 - extra for extra in third_block.solution(height, blocks)]


@third_block.mistake("The heights are rounded down here. On 7 rows, padded by 1, a window of 3 has 4 places.")
def _(height, blocks):
    return [(height >> i) - 2 * (height >> i + 1) + 1 for i in reversed(range(blocks))]


@third_block.mistake("Here the height that a block starts from decides. What counts is the one that it must reach: "
                     "4 must become 7, which is odd.")
def _(height, blocks):
    return [1 - low % 2 for low in _way_in(height, blocks)[:0:-1]]


@third_block.mistake("Without `output_padding` a block makes 2H - 1 of H, not 2H. So yours are too small by one.")
def _(height, blocks):
    return [extra - 1 for extra in third_block.solution(height, blocks)]


@third_block.mistake("These are the heights that the decoder's blocks make. Which `output_padding` does each need?")
def _(height, blocks):
    return _way_in(height, blocks)[-2::-1]


@third_block.mistake("These are the heights on the way in. Which `output_padding` do the blocks need on the way back?")
def _(height, blocks):
    return _way_in(height, blocks)


@third_block.mistake("These are the heights on the way back, from the smallest. Each step to the next one has its own "
                     "`output_padding`.")
def _(height, blocks):
    return _way_in(height, blocks)[::-1]


checkerboard = Exercise("9.2")


@checkerboard.right
def _():
    """Far from the border a pixel lies under as many copies as begin in a row of `kernel` pixels that ends there."""
    even = []
    for kernel, stride in ((3, 2), (5, 2), (4, 2), (5, 3)):
        copies = {sum(start % stride == 0 for start in range(last - kernel + 1, last + 1)) for last in range(stride)}
        even.append(len(copies) == 1)
    return "abcd"[even.index(True)]


checkerboard.letters(
    a="Copies of three pixels begin at every second one. Draw three of them under each other: where "
      "do two meet, and where is only one?",
    b="Wider copies overlap more, and not more evenly: under some pixels there are three of them.",
    d="All neighbours overlap alike. But does each pixel lie under equally many copies?")


reach = Exercise("9.3", cases=[(5, 20, 0.9), (300, 900, 0.998), (40, 50, 0.97)])


@reach.right
def _(k, T, rho):
    shares = rho ** -torch.arange(1.0, T + 1, dtype=torch.float64)
    return shares[T - k:].sum() / shares.sum()


@reach.mistake("This holds for a run without end. At k = T the share must be one.")
def _(k, T, rho):
    return 1 - rho**k


@reach.mistake("This is the share of the steps before the last k.")
def _(k, T, rho):
    return 1 - reach.solution(k, T, rho)


@reach.mistake("All steps count alike here. In (9.11) late ones count more.")
def _(k, T, rho):
    return k / T


@reach.mistake("Each of the k steps has the newest one's share here. From step to step it falls by the factor rho.")
def _(k, T, rho):
    return k * (1 - rho) / (1 - rho**T)


@reach.mistake("This is the share of k - 1 steps. Try k = 1: the newest step has a share, too.")
def _(k, T, rho):
    return reach.solution(k - 1, T, rho)


@reach.mistake("This is the share of k + 1 steps. Try k = T: no share is above one.")
def _(k, T, rho):
    return (1 - rho ** (k + 1)) / (1 - rho**T)


@reach.mistake("This is the share of the first k steps. In (9.11) late steps count more than early ones.")
def _(k, T, rho):
    return 1 - reach.solution(T - k, T, rho)


@reach.mistake("This is not divided by the sum of all T weights, 1 + rho + ... + rho^(T-1). A share is at most one.")
def _(k, T, rho):
    return (1 - rho**k) / (1 - rho)


@reach.mistake("This is in percent. A share is a number between 0 and 1.")
def _(k, T, rho):
    return 100 * reach.solution(k, T, rho)


work = Exercise("9.4", rtol=1.5e-4)  # the biases of the two heads are more


@cache
def _uses():
    """Of both networks, one (weights, positions of the input, positions of the output) for each layer with a matrix."""
    networks, seen = (conv_vae(channels=(32, 64), latent_dim=20), dense_vae(hidden=(144,), latent_dim=20)), []
    for model in networks:
        seen.append([])
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(lambda layer, inputs, output: seen[-1].append(
                    (layer, inputs[0][0, 0].numel(), output[0, 0].numel())))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 1, 28, 28))
    return seen


def _work(positions):
    return [float(sum(layer.weight.numel() * positions(layer, *sizes) for layer, *sizes in uses)) for uses in _uses()]


def _pasted(layer):
    return isinstance(layer, nn.ConvTranspose2d)


def _changed(conv=0, dense=0):
    """The right numbers, with something added."""
    numbers = work.solution()
    return [numbers[0] + conv, numbers[1] + dense]


@work.right
def _():
    return _work(lambda layer, before, after: before if _pasted(layer) else after)


@work.mistake("These are the weights. A convolution uses each of its weights once for every position.")
def _():
    return _work(lambda layer, before, after: 1)


@work.mistake("Additions are counted too. Multiplications are asked for.")
def _():
    return [2 * number for number in work.solution()]


@work.mistake("The transposed convolutions count the positions of their outputs. They paste one window for each "
              "position of the input.")
def _():
    return _work(lambda layer, before, after: after)


@work.mistake("The convolutions count the positions of their inputs. At stride 2 the window skips most of them.")
def _():
    return _work(lambda layer, before, after: before)


@work.mistake("The second transposed convolution counts the 28*28 positions of its output. It pastes 14*14 windows.")
def _():
    return _changed(conv=9 * 32 * 32 * (28**2 - 14**2))


@work.mistake("The first convolution counts the 28*28 positions of its input. At stride 2 the window stands at 14*14.")
def _():
    return _changed(conv=9 * 32 * (28**2 - 14**2))


@work.mistake("The last convolution, from 32 channels to 1, is missing. It has few weights, but uses each 28*28 times.")
def _():
    return _changed(conv=-9 * 32 * 28**2)


@work.mistake("Biases are counted too. They are added, not multiplied.")
def _():
    return [number + sum(layer.bias.numel() * after for layer, _, after in uses)
            for number, uses in zip(work.solution(), _uses())]


def _in_one_or_both(message, conv, dense):
    """The same mistake in both networks and in each by itself. conv, dense: what it adds to the two numbers."""
    for where, i, j in (("both networks", 1, 1), ("the convolutional network", 1, 0),
                        ("the fully connected network", 0, 1)):
        work.mistake(f"In {where} {message}")(lambda i=i, j=j: _changed(i * conv, j * dense))


_in_one_or_both("a head is missing, or the linear layer with which the decoder begins: they have equally many weights.",
                -3136 * 20, -144 * 20)
_in_one_or_both("biases are counted: those of the first layer, perhaps of more. They are added, not multiplied.",
                32 * 14**2, 144)
_in_one_or_both("the parameters that the page counts stand for the multiplications. Biases are among them, which "
                "multiply nothing, and how often a weight is used does not show.", 238473 - 4083072, 235544 - 234432)


by_heart = Exercise("9.5", cases=[(_tensor(1, 1, 1, 1, 1),), (_tensor(3, 1, 2, 7),), (_tensor(12, 1),)], rtol=1e-4)


@by_heart.right
def _(counts):
    shares = (counts / counts.sum()).numpy()

    def cost(logits):
        log_p = logits - torch.logsumexp(torch.as_tensor(logits), 0).item()
        return -shares @ log_p, [*(math.e**log_p - shares)]

    return -minimize(cost, 0 * shares, jac=True, tol=1e-9).fun


@by_heart.mistake("This is right where all images differ. An image that stands twice may have twice the probability.")
def _(counts):
    return -_tensor(counts.sum()).log().squeeze()


@by_heart.mistake("Here every different image has the same probability. The more frequent ones deserve more.")
def _(counts):
    return -math.log(len(counts))


@by_heart.mistake("The average runs over the different images. It must run over all images, copies too.")
def _(counts):
    return (counts / counts.sum()).log().mean()


@by_heart.mistake("This is the sum over all images of the set. Divide it by their number, the sum of the counts.")
def _(counts):
    return counts.sum() * by_heart.solution(counts)


@by_heart.mistake("The sign is turned: no probability is above one.")
def _(counts):
    return -by_heart.solution(counts)


not_kept = Exercise("9.6", cases=[(_normal(6, 3), _tensor(-9.0, -4.5, -2.5, -3.5, -5.0, -7.0)),
                                  (_normal(5, 2, seed=1), _tensor(-8.0, -1.5, -6.0, -1.0, -3.0))])


@not_kept.right
def _(moves, scores):
    return moves.cumsum(0)[scores.argmax()]


@not_kept.mistake("These are the weights after the last step. Either `best` is another name for `weights`, which move "
                  "on, or the condition holds at every step: is `highest` updated?")
def _(moves, scores):
    return moves.sum(0)


@not_kept.mistake("These are the weights from before the best step. The score belongs to the weights after it.")
def _(moves, scores):
    return moves[:scores.argmax()].sum(0)


@not_kept.mistake("This is the lowest score. The scores are ELBOs: higher is better.")
def _(moves, scores):
    return moves.cumsum(0)[scores.argmin()]


@not_kept.mistake("This is the move that led to the best weights, not the weights.")
def _(moves, scores):
    return moves[scores.argmax()]
