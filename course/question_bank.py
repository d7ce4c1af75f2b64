"""The questions of the exam, page by page: each draws its numbers and computes its answer (task `exam`).

`course/questions.py` says how to write one. vae_lib and torch compute the right answers, in float64.
"""

import math

import torch
from torch.nn.functional import conv1d, conv2d, softplus

from course.questions import TEMPLATES, Draw, asks, doubles, fill, grid, pick, shown, shuffled, some, table, total
from vae_lib.exact import LinearGaussian
from vae_lib.flow import RealNVP
from vae_lib.gaussian import kl_between_normals, kl_to_standard_normal, log_normal
from vae_lib.likelihoods import bernoulli_log_prob, gaussian_log_prob
from vae_lib.loss_translator import translate_loss
from vae_lib.mixture import Mixture, m_step
from vae_lib.models import conv_block
from vae_lib.objectives import log_mean_exp

__all__ = ["TEMPLATES"]


def data_with(eigenvalues):
    """Points whose covariance, divided by their number, is diagonal with these eigenvalues."""
    arms = (doubles(*eigenvalues) * len(eigenvalues)).sqrt().diag()
    return torch.cat([arms, -arms])


# Page 00

@asks("00_start_here", "How a page works", points=3, unit="nats", within=0.01)
def density_of_a_pair(rng):
    r"""A diagonal Gaussian has the means $\mu=<mu>$ and the variances $\sigma^2=<variance>$. What is its log density
    at $x=<x>$?
    ---
    - By (0.1) it is $-\frac{1}{2}\sum_j[\log 2\pi+\log\sigma_j^2+(x_j-\mu_j)^2/\sigma_j^2]$, with $\log 2\pi=1.838$.
    - The brackets are <brackets>.
    - Their sum, times $-\frac{1}{2}$, is $<right>$.
    """
    mu, x = (some(rng, 2, grid(-2, 2, 0.5)) for _ in range(2))
    variance = shuffled(rng, [0.25, 0.5, 2, 3, 4])[:2]
    point, centre, log_var = doubles(*x), doubles(*mu), doubles(*variance).log()
    right = log_normal(point, centre, log_var)
    sums = -2 * log_normal(point[:, None], centre[:, None], log_var[:, None])
    brackets = [fill(r"$1.838+\log <v>+(<a>-<b>)^2/<v>=<sum>$", dict(v=v, a=a, b=b, sum=term))
                for v, a, b, term in zip(variance, x, mu, sums)]
    return Draw(dict(mu=mu, x=x, variance=variance), right, {
        r"left out $\log 2\pi$": right + math.log(2 * math.pi),
        "read the variances as standard deviations": log_normal(point, centre, 2 * log_var),
        "averaged over the two variables in place of adding": right / 2}, dict(brackets=" and ".join(brackets)))


@asks("00_start_here", "Black and white pixels", points=3, unit="nats", within=0.01)
def pixels_from_logits(rng):
    r"""A decoder returns the logits $a=<logits>$ for three pixels. What is $\log p(x|z)$ of the image $x=<x>$, where
    1 is white?
    ---
    - By (0.2) it is $\sum_d[x_d a_d-\log(1+e^{a_d})]$.
    - The three terms are $<terms>$. Their sum is $<right>$.
    """
    logits = some(rng, 3, [value for value in grid(-3, 3, 0.5) if value])
    x = pick(rng, [[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    pixels, outputs = doubles(*x), doubles(*logits)
    terms = pixels * outputs - softplus(outputs)
    right = bernoulli_log_prob(pixels.reshape(1, 1, 3), outputs.reshape(1, 1, 3))
    return Draw(dict(logits=logits, x=x), right, {
        "averaged over the pixels in place of adding": right / 3,
        "left out the black pixels": (pixels * terms).sum(),
        "turned the sign, which gives the cross entropy": -right}, dict(terms=terms.tolist()))


# Page 01

@asks("01_latent_variables", "Exponential growth", points=4, unit="draws")
def draws_from_the_prior(rng):
    r"""Each of $J=<latents>$ latents moves a pixel of its own, $x_j=<slope>\,z_j+\varepsilon_j$, with
    $z_j,\varepsilon_j\sim\mathcal{N}(0,1)$. Take an $x$ in which each pixel lies $u=<u>$ standard deviations of $p(x)$
    above its mean. Let $R(x)=\mathbb{E}[p(x|z)^2]/p(x)^2$, over draws from the prior. With $\rho$ the variance of the
    signal over that of the noise, each latent adds $\log(1+\rho)-\frac{1}{2}\log(1+2\rho)+\frac{\rho}{1+2\rho}u^2$ to
    $\log R(x)$. How many draws does the average of $p(x|z)$ need for a standard error of <error> % of $p(x)$?
    ---
    - By (1.8), with $\rho=<slope>^2=<rho>$, a latent adds $<each>$. So $\log R=<latents>\cdot <each>$ and
      $R=<moment>$.
    - By (1.6) $N=(R-1)/<share>^2=<right>$.
    """
    slope, latents, u, error = (pick(rng, values) for values in ([1.5, 2, 3], [2, 3, 4, 5], [0.5, 1, 1.5], [5, 10, 20]))

    def second_moment(rho, num):  # equation (1.7)
        x, eye = doubles([u * math.sqrt(rho + 1)] * num), torch.eye(num, dtype=torch.float64)
        half, whole = (LinearGaussian(math.sqrt(rho) * eye, 0 * eye[0], s2).log_px(x)[0] for s2 in (0.5, 1))
        return (half - 2 * whole).exp() * (4 * math.pi) ** (-num / 2)
    rho, share = slope**2, error / 100
    moment = second_moment(rho, latents)
    return Draw(dict(slope=slope, latents=latents, u=u, error=error), (moment - 1) / share**2, {
        "divided by the error and not by its square": (moment - 1) / share,
        r"taken the slope for $\rho$, a ratio of variances": (second_moment(slope, latents) - 1) / share**2,
        "added the factors of the latents in place of multiplying": (latents * second_moment(rho, 1) - 1) / share**2},
        dict(rho=rho, each=moment.log() / latents, moment=moment, share=share))


@asks("01_latent_variables", "Pitfall: the average of densities that underflow", points=3, unit="nats", within=0.06)
def log_of_a_mean(rng):
    r"""Three draws from the prior gave the values $<logs>$ of $\log p(x|z)$. What is the logarithm of the average of
    the three densities?
    ---
    - Each density underflows, so take out the largest, (1.12): $a_{max}=<top>$.
    - $\frac{1}{3}(<powers>)=<mean>$, with the logarithm $<added>$.
    - $<top>+<added>=<right>$.
    """
    top = pick(rng, grid(-900, -750, 1))
    logs = [round(top - drop, 1) for drop in shuffled(rng, [0, pick(rng, grid(0.5, 1.5)), pick(rng, grid(1.6, 3))])]
    values = doubles(*logs)
    right = log_mean_exp(values)
    return Draw(dict(logs=logs), right, {
        "averaged the logarithms": values.mean(),
        "added the densities without dividing by three": values.logsumexp(0),
        "kept the largest term alone": values.max()},
        dict(top=top, powers=total(f"e^{{{shown(value - top)}}}" for value in logs), mean=(values - top).exp().mean(),
             added=right - top))


# Page 02

@asks("02_elbo", "The two terms of the bound", points=4, unit="nats", within=0.01)
def elbo_of_a_line(rng):
    r"""A model has one latent, $z\sim\mathcal{N}(0,1)$, and one pixel, $x\sim\mathcal{N}(<slope>\,z,\ s^2)$ with
    $s^2=<variance>$. For $x=<x>$ the encoder answers with a Gaussian of mean $\mu=<mu>$ and variance
    $\sigma^2=<width>$. What is the ELBO?
    ---
    - In (2.7), $(x-<slope>\,z)^2$ averages to $(<x>-<slope>\cdot <mu>)^2+<slope>^2\cdot <width>=<error>$ under $q$.
    - So the reconstruction term is
      $-<error>/(2\cdot <variance>)-\frac{1}{2}\log(2\pi\cdot <variance>)=<reconstruction>$.
    - By (4.5) the KL is $\frac{1}{2}(<mu>^2+<width>-\log <width>-1)=<kl>$. The difference is $<right>$.
    """
    slope, x, mu = pick(rng, [0.5, 1.5, 2]), pick(rng, grid(-2, 2, 0.5)), pick(rng, grid(-1, 1, 0.25))
    variance, width = pick(rng, [0.25, 0.5, 2]), pick(rng, grid(0.2, 0.6))
    q = doubles([mu]), doubles([width]).log()
    right = LinearGaussian(doubles([slope]), doubles(0), variance).elbo(doubles([x]), *q)[0]
    kl, spread = kl_to_standard_normal(*q)[0], slope**2 * width
    return Draw(dict(slope=slope, x=x, mu=mu, variance=variance, width=width), right, {
        "decoded the mean alone, without the width of $q$": right + spread / (2 * variance),
        "added the KL in place of subtracting it": right + 2 * kl,
        r"left out the constant $\frac{1}{2}\log 2\pi s^2$": right + 0.5 * math.log(2 * math.pi * variance)},
        dict(error=(x - slope * mu) ** 2 + spread, reconstruction=right + kl, kl=kl))


@asks("02_elbo", "The gap that a diagonal leaves", points=3, unit="nats", within=0.001)
def gap_of_a_diagonal(rng):
    r"""The posterior of two latents is a Gaussian whose inverse covariance $\Lambda$ has $\Lambda_{11}=<first>$,
    $\Lambda_{22}=<second>$ and $\Lambda_{12}=\Lambda_{21}=<off>$. How far below $\log p(x)$ is the ELBO of the best
    Gaussian $q$ with a diagonal covariance?
    ---
    - By (2.10) its variances are $1/\Lambda_{jj}$, and the gap is
      $\frac{1}{2}[\log\Lambda_{11}+\log\Lambda_{22}-\log\det\Lambda]$.
    - $\det\Lambda=<first>\cdot <second>-<off>^2=<det>$, so the gap is $\frac{1}{2}\log(<product>/<det>)=<right>$.
    """
    first, second = some(rng, 2, grid(2.5, 4, 0.5))
    off = pick(rng, [-1.4, -1.2, -1, 1, 1.2, 1.4])
    precision = doubles([first, off], [off, second])
    weight = torch.linalg.cholesky(precision - torch.eye(2)).mT
    model, x = LinearGaussian(weight, doubles(0, 0), 1), doubles([0, 0])
    mu, log_var = model.best_diagonal_q(x)
    right = model.kl_to_posterior(x, mu, log_var)[0]
    marginal = torch.linalg.inv(precision).diagonal().log()[None]
    return Draw(dict(first=first, second=second, off=off), right, {
        r"left out the factor $\frac{1}{2}$": 2 * right,
        "given $q$ the marginal variances of the posterior": model.kl_to_posterior(x, mu, marginal)[0],
        "left out the determinant": 0.5 * math.log(first * second)},
        dict(product=first * second, det=first * second - off**2))


@asks("02_elbo", "The bound is never crossed", points=2, unit="nats", within=0.06)
def log_px_from_three_numbers(rng):
    r"""For an image, $\mathbb{E}_q[\log p(x|z)]=<reconstruction>$, $\mathrm{KL}(q(z|x)\,\|\,p(z))=<kl>$ and
    $\mathrm{KL}(q(z|x)\,\|\,p(z|x))=<gap>$ nats. What is $\log p(x)$?
    ---
    - By (2.7) the ELBO is $<reconstruction>-<kl>=<elbo>$.
    - By (2.5) $\log p(x)$ is the ELBO plus the divergence from the posterior: $<elbo>+<gap>=<right>$.
    """
    reconstruction, kl, gap = (pick(rng, values) for values in (grid(-90, -60), grid(15, 30), grid(1, 6)))
    elbo = doubles(reconstruction)[0] - kl
    return Draw(dict(reconstruction=reconstruction, kl=kl, gap=gap), elbo + gap, {
        "reported the ELBO as the likelihood": elbo,
        "subtracted the gap from the bound": elbo - gap,
        "left out the divergence from the prior": reconstruction + gap}, dict(elbo=elbo))


@asks("02_elbo", "Pitfall: the entropy is dropped", points=3, unit="nats", within=0.01)
def entropy_that_is_dropped(rng):
    r"""A program averages $\log p(x,z)$ over draws of a Gaussian $q(z|x)$, whose latents are independent and have the
    standard deviations $\sigma=<std>$, and reports the average as the ELBO. Which number must be added to it?
    ---
    - By (2.2) the ELBO is $\mathbb{E}_q[\log p(x,z)]-\mathbb{E}_q[\log q(z|x)]$. The last term is the entropy of $q$.
    - By (0.1) it is $\frac{1}{2}\sum_j(\log 2\pi\sigma_j^2+1)$, as $(z_j-\mu_j)^2/\sigma_j^2$ averages to one:
      $<count>\cdot 1.4189+\log <product>=<right>$.
    """
    std = some(rng, pick(rng, [2, 3]), [0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
    right = torch.distributions.Normal(0, doubles(*std)).entropy().sum()
    return Draw(dict(std=std), right, {
        "taken $\\sigma^2$ for $\\sigma$": right + doubles(*std).log().sum(),
        "left out the 1 for each latent": right - len(std) / 2,
        "turned the sign": -right}, dict(count=len(std), product=math.prod(std)))


# Page 03

@asks("03_em_to_vae", "The E step: move q", points=3, within=0.001)
def responsibility_of_the_first(rng):
    r"""A mixture has two components with the weights $<weights>$, the means $<means>$ and the variances
    $<variances>$. How responsible is the first component for the point $x=<x>$?
    ---
    - By (3.2) it is $\pi_1\mathcal{N}(x;m_1,v_1)/\sum_j\pi_j\mathcal{N}(x;m_j,v_j)$.
    - $\pi_1\mathcal{N}(<x>;m_1,v_1)=<first>$ and $\pi_2\mathcal{N}(<x>;m_2,v_2)=<second>$.
    - $<first>/(<first>+<second>)=<right>$.
    """
    weight, x = pick(rng, [0.2, 0.3, 0.4, 0.6, 0.7]), pick(rng, grid(-0.5, 2.5, 0.5))
    means, variances = [0, pick(rng, [1, 2, 3])], shuffled(rng, [1, pick(rng, [0.25, 0.5, 2, 4])])
    weights = [weight, round(1 - weight, 1)]
    mixture = Mixture(doubles(*weights), doubles(*means)[:, None], doubles(*variances)[:, None, None])
    right, joint = mixture.responsibilities(doubles([x]))[0, 0], mixture.log_joint(doubles([x]))[0]
    return Draw(dict(weights=weights, x=x, means=means, variances=variances), right, {
        "left out the weights of the components": (joint - doubles(*weights).log()).softmax(0)[0],
        r"left out the factors $1/\sqrt{v_k}$ of the densities": (joint + doubles(*variances).log() / 2).softmax(0)[0],
        "given the share of the other component": 1 - right},
        dict(first=joint[0].exp(), second=joint[1].exp()))


@asks("03_em_to_vae", "The M step: move the model", points=3)
def variance_of_an_m_step(rng):
    r"""Three points $x=<x>$ have the responsibilities $q(1)=<q>$ of the first component. Which variance does the M
    step give this component?
    ---
    - By (3.3) $N_1=<size>$, and $m_1=(<moments>)/<size>=<mean>$.
    - $v_1=(<squares>)/<size>=<right>$.
    """
    x, q = shuffled(rng, [-2, -1, 0, 1, 2, 3, 4])[:3], some(rng, 3, grid(0.2, 0.9))
    points, shares = doubles(*x), doubles(*q)
    fitted = m_step(points[:, None], torch.stack([shares, 1 - shares], dim=1))
    right, mean, size = fitted.covariances[0, 0, 0], fitted.means[0, 0], shares.sum()
    return Draw(dict(x=x, q=q), right, {
        "divided by the number of points and not by $N_1$": right * size / 3,
        "taken the plain mean of the points": shares @ (points - points.mean()) ** 2 / size,
        "averaged the squares without subtracting the mean": shares @ points**2 / size},
        dict(size=size, mean=mean, moments=total(fill(r"<a>\cdot <b>", dict(a=a, b=b)) for a, b in zip(q, x)),
             squares=total(fill(r"<a>\cdot(<b>-<m>)^2", dict(a=a, b=b, m=mean)) for a, b in zip(q, x))))


@asks("03_em_to_vae", "Only the encoder", points=2)
def encoder_alone(rng):
    r"""Training goes on for the encoder of a VAE, while its decoder is frozen. The ELBO of an image rises from
    $<before>$ to $<after>$ nats. Before that, its $\log p(x)$ was $<log_px>$. What holds afterwards?
    ---
    - $p(x)$ contains decoder and prior only, so $\log p(x)$ stays. By (3.6) the gap loses what the ELBO gains.
    - Before: $<log_px>-<before>=<gap>$. After: $<log_px>-<after>=<left>$.
    """
    log_px, gain, left = pick(rng, grid(-100, -80)), pick(rng, grid(1, 4)), pick(rng, grid(0.5, 3))
    return Draw(dict(log_px=log_px, before=log_px - left - gain, after=log_px - left),
                r"$\log p(x)$ is $<log_px>$, and the gap has fallen from $<gap>$ to $<left>$.", {
        "lifted the likelihood by what the bound gained": r"$\log p(x)$ is $<lifted>$, and the gap is still $<gap>$.",
        "taken the gap for a property of the decoder": r"$\log p(x)$ is $<log_px>$, and the gap is still $<gap>$.",
        "taken the bound for the likelihood": r"$\log p(x)$ is $<after>$, and the gap is closed."},
        dict(gap=gain + left, left=left, lifted=log_px + gain))


# Page 04

@asks("04_gaussian_kl", "One latent: three integrals", points=3, unit="nats", within=0.01)
def kl_of_one_latent(rng):
    r"""What is $\mathrm{KL}(q\,\|\,p)$ of a Gaussian $q$ with mean $\mu=<mu>$ and standard deviation $\sigma=<std>$,
    where $p$ is $\mathcal{N}(0,1)$?
    ---
    - By (4.5) it is $\frac{1}{2}(\mu^2+\sigma^2-\log\sigma^2-1)$.
    - $\frac{1}{2}(<mu>^2+<std>^2-<log_var>-1)=<right>$.
    """
    mu, std = pick(rng, grid(-2, 2, 0.25)), pick(rng, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.5, 2])
    q, p = (doubles(mu), 2 * doubles(std).log()), (doubles(0), doubles(0))
    right = kl_to_standard_normal(*q)
    return Draw(dict(mu=mu, std=std), right, {
        r"taken $\sigma$ for $\sigma^2$": kl_to_standard_normal(q[0], q[1] / 2),
        r"left out the factor $\frac{1}{2}$": 2 * right,
        "exchanged the two distributions": kl_between_normals(*p, *q)}, dict(log_var=q[1]))


KL_LINES = ["log_ratio = log_var - math.log(<variance>)", "distance = (mu - <mean>)**2 / <variance>",
            "terms = 0.5 * (distance + log_ratio.exp() - log_ratio - 1)", "return terms.sum(-1)"]
KL_BUGS = [(0, "log_ratio = 0.5 * log_var - math.log(<variance>)",
            "half of `log_var` is the logarithm of the standard deviation"),
           (0, "log_ratio = math.log(<variance>) - log_var", "in (4.10) the prior's variance is the divisor"),
           (0, "log_ratio = log_var - <variance>", "the prior's variance must become a logarithm first"),
           (1, "distance = (mu - <mean>) / <variance>", "by (4.10) the distance is squared"),
           (1, "distance = (mu - <mean>)**2", "by (4.10) the distance is divided by the variance of the prior"),
           (2, "terms = 0.5 * (distance + log_ratio.exp() + log_ratio - 1)", "by (4.10) the logarithm is subtracted"),
           (2, "terms = 0.5 * (distance + log_ratio.exp() - log_ratio)",
            "without the 1 the prior has a divergence from itself"),
           (2, "terms = distance + log_ratio.exp() - log_ratio - 1", r"the factor $\frac{1}{2}$ of (4.10) is missing"),
           (3, "return terms.mean(-1)", "by (4.10) the divergence is a sum over the latents, not their mean"),
           (3, "return terms.sum()", "that adds up the images of a batch, and (4.10) is one number for each image")]


@asks("04_gaussian_kl", "Two Gaussians that are both free", points=2)
def line_of_a_kl(rng):
    r"""Each latent of a model has as prior a Gaussian with the mean $<mean>$ and the variance $<variance>$. The
    function should return the KL divergence of each image's $q(z|x)$ from the prior. Its arguments have the shape
    `(batch, latent_dim)`. `log_ratio` should be $\log(\sigma_q^2/\sigma_p^2)$, `distance` the squared distance of
    the means over $\sigma_p^2$, and `terms` the divergence of each latent. Which line is wrong?

    ```python
    def kl(mu, log_var):
        <line0>
        <line1>
        <line2>
        <line3>
    ```
    ---
    - `<wrong>`: <reason>.
    - Right is `<repair>`.
    """
    prior = dict(mean=pick(rng, grid(0.5, 3, 0.5)), variance=pick(rng, [0.25, 0.5, 2, 4]))
    right = [fill(line, prior) for line in KL_LINES]
    broken, wrong, reason = pick(rng, KL_BUGS)
    wrong = fill(wrong, prior)
    lines = {f"line{i}": wrong if i == broken else line for i, line in enumerate(right)}
    doubts = ["doubted the ratio of the variances", "doubted the distance of the means",
              "doubted the bracket or its factor", "doubted the sum over the latents"]
    return Draw(prior | lines, f"`{wrong}`", {doubt: f"`{line}`" for i, (doubt, line) in enumerate(zip(doubts, right))
                                              if i != broken}, dict(wrong=wrong, reason=reason, repair=right[broken]))


@asks("04_gaussian_kl", "Two Gaussians that are both free", points=3, unit="nats", within=0.01)
def kl_between_two(rng):
    r"""$q$ is a Gaussian with mean $<mu_q>$ and variance $<var_q>$, $p$ one with mean $<mu_p>$ and variance
    $<var_p>$. What is $\mathrm{KL}(q\,\|\,p)$?
    ---
    - In (4.10) the squared distance of the means is $(<mu_q>-<mu_p>)^2/<var_p>=<distance>$, and the ratio of the
      variances $<var_q>/<var_p>=<ratio>$.
    - $\frac{1}{2}(<distance>+<ratio>-\log <ratio>-1)=<right>$.
    """
    (mu_q, mu_p), (var_q, var_p) = shuffled(rng, grid(-1.5, 1.5, 0.5))[:2], shuffled(rng, [0.25, 0.5, 1, 2, 4])[:2]
    q, p = (doubles(mu_q), doubles(var_q).log()), (doubles(mu_p), doubles(var_p).log())
    right, distance = kl_between_normals(*q, *p), (mu_q - mu_p) ** 2 / var_p
    return Draw(dict(mu_q=mu_q, var_q=var_q, mu_p=mu_p, var_p=var_p), right, {
        "exchanged the two distributions": kl_between_normals(*p, *q),
        "read the variances as standard deviations": kl_between_normals(q[0], 2 * q[1], p[0], 2 * p[1]),
        "left the distance of the means unscaled": right + (distance * var_p - distance) / 2},
        dict(distance=distance, ratio=var_q / var_p))


@asks("04_gaussian_kl", "What does the money buy?", points=3, unit="nats", within=0.01)
def price_of_a_narrower_posterior(rng):
    r"""The posterior $q$ of a latent has the standard deviation $\sigma=<std>$. It shrinks by a factor of <factor>, and
    the mean stays. By how much does $\mathrm{KL}(q\,\|\,p)$ to the prior $\mathcal{N}(0,1)$ rise?
    ---
    - In (4.5) $-\frac{1}{2}\log\sigma^2$ rises by $\log <factor>=<log_factor>$.
    - $\frac{1}{2}\sigma^2$ falls by $\frac{1}{2}(<std>^2-<left>^2)=<fall>$. The difference is $<right>$. For a factor
      of 2 this is (4.11).
    """
    std, factor = pick(rng, grid(0.4, 1.2, 0.05)), pick(rng, [1.5, 2, 2.5, 3, 4, 5, 8, 10])
    before, after = ((doubles(0), 2 * doubles(value).log()) for value in (std, std / factor))
    fall = (std**2 - (std / factor) ** 2) / 2
    return Draw(dict(std=std, factor=factor), kl_to_standard_normal(*after) - kl_to_standard_normal(*before), {
        r"left out the term $\sigma^2$": math.log(factor),
        "charged the logarithm twice": 2 * math.log(factor) - fall,
        "added the two terms": math.log(factor) + fall},
        dict(log_factor=math.log(factor), left=std / factor, fall=fall))


# Page 05

@asks("05_reparameterization", "Second way: the noise stays, the draws move", points=3, within=0.01)
def pathwise_guess(rng):
    r"""Let $f(z)=<square>\,z^2+<slope>\,z$ and $z=\mu+\sigma\varepsilon$. For $\mu=<mu>$, $\sigma=<std>$ and the draw
    $\varepsilon=<eps>$, which number does the pathwise gradient give for the derivative of $\mathbb{E}[f(z)]$ with
    respect to $\log\sigma^2$?
    ---
    - $z=<mu>+<std>\cdot <eps>=<z>$, and $f'(z)=2\cdot <square>\cdot <z>+<slope>=<steep>$.
    - By (5.4) $\partial z/\partial\log\sigma^2=\frac{1}{2}\sigma\varepsilon=<path>$. By (5.3) the guess is the
      product of the two, $<right>$.
    """
    square, slope, mu = pick(rng, [0.5, 2, 3]), pick(rng, [-2, -1.5, 1.5, 2]), pick(rng, grid(-1, 1, 0.5))
    std, eps = pick(rng, grid(0.2, 0.8, 0.2)), pick(rng, [-1.5, -1.2, -0.8, -0.5, 0.5, 0.8, 1.2, 1.5])
    log_var = (2 * doubles(std).log()).requires_grad_()
    z = mu + (0.5 * log_var).exp() * eps
    f = square * z**2 + slope * z
    right, = torch.autograd.grad(f, log_var)
    z, f = z.item(), f.item()
    steep = 2 * square * z + slope
    return Draw(dict(square=square, slope=slope, mu=mu, std=std, eps=eps), right, {
        r"differentiated with respect to $\log\sigma$, without the factor $\frac{1}{2}$": 2 * right,
        r"differentiated with respect to $\sigma$": steep * eps,
        "given the guess of the score function": f * 0.5 * (eps**2 - 1)}, dict(z=z, steep=steep, path=std * eps / 2))


@asks("05_reparameterization", "Where the path breaks", points=3, within=0.005)
def gradient_of_a_coin(rng):
    r"""A latent is a coin: $z=1$ with the probability $\pi=1/(1+e^{-a})$, else $z=0$. The decoder gives $f(1)=<high>$
    and $f(0)=<low>$. What is the derivative of $\mathbb{E}[f(z)]$ with respect to the logit $a$, at
    $a=<logit>$?
    ---
    - By (5.12) it is $\mathbb{E}[f(z)(z-\pi)]=\pi f(1)(1-\pi)-(1-\pi)f(0)\pi=\pi(1-\pi)(f(1)-f(0))$.
    - With $\pi=<chance>$ that is $<chance>\cdot <rest>\cdot(<high>-<low>)=<right>$.
    """
    logit, high, low = pick(rng, [-2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2]), pick(rng, [3, 4, 5]), pick(rng, [-2, -1, 1, 2])
    a = doubles(logit).requires_grad_()
    right, = torch.autograd.grad(a.sigmoid() * high + (1 - a.sigmoid()) * low, a)
    chance = a.sigmoid().item()
    return Draw(dict(logit=logit, high=high, low=low), right, {
        r"differentiated with respect to $\pi$": high - low,
        "followed the path, which jumps and has no slope elsewhere": 0,
        "weighed one side of the coin only": high * chance * (1 - chance)}, dict(chance=chance, rest=1 - chance))


@asks("05_reparameterization", "Where the path breaks", points=2)
def gradient_of_a_step(rng):
    r"""Let $f(z)$ be 1 for $z$ above $<edge>$ and 0 elsewhere, and $z=\mu+\sigma\varepsilon$ with $\mu=<mu>$ and
    $\sigma=<std>$. Autograd differentiates $f(z)$ with respect to $\mu$, draw by draw. What comes out, and what
    is the derivative of $\mathbb{E}[f(z)]$ with respect to $\mu$?
    ---
    - No draw sees the edge: $f'(z)=0$ wherever it exists.
    - The average is the probability of $z$ above $<edge>$. When the bell moves, it changes by the density at the
      edge, $e^{-(<edge>-<mu>)^2/(2\sigma^2)}/(\sigma\sqrt{2\pi})=<density>$.
    """
    edge, mu, std = pick(rng, grid(0.5, 1.5, 0.25)), pick(rng, grid(0, 1, 0.25)), pick(rng, [0.5, 0.8, 1.25])
    density = log_normal(doubles(edge), doubles(mu), 2 * doubles(std).log()).exp()
    above = torch.special.ndtr((mu - doubles(edge)) / std)
    return Draw(dict(edge=edge, mu=mu, std=std), "Autograd gives 0 for every draw. The derivative is $<density>$.", {
        "taken a flat function for a flat average": "Autograd gives 0 for every draw. The derivative is 0 too.",
        "taken the average of $f$ for its derivative": "Autograd gives $<above>$ on average. That is the derivative.",
        "believed that a draw sees the edge": "Autograd gives $<density>$ on average. That is the derivative."},
        dict(density=density, above=above))


# Page 06

@asks("06_reconstruction_term", "What a weight says", points=3)
def variance_of_a_loss(rng):
    r"""A program minimises `<weight> * mse + <kl_weight> * kl`, averaged over images of shape $<shape>$ with pixels
    in $[<low>,\ 1]$. Here `mse` is the squared error averaged over channels, rows and columns, and `kl` is summed
    over the latents. Read as minus an ELBO, up to a factor and a constant: which variance $s^2$ does it claim for the
    decoder, in the unit in which pixels lie in $[0,\ 1]$?
    ---
    - A mean over $D=<pixels>$ pixels is a sum with the weight $w=<weight>/<pixels>$. The KL has the weight
      $c=<kl_weight>$.
    - By (6.2) $s^2=c/(2w)=<kl_weight>\cdot <pixels>/(2\cdot <weight>)=<in_its_unit>$.
    - By (6.3) that is divided by $<width>^2$ on $[0,\ 1]$: $<right>$.
    """
    shape, low = pick(rng, [[1, 28, 28], [3, 32, 32], [3, 64, 64]]), pick(rng, [-1, 0])
    weight, kl_weight = some(rng, 2, [0.1, 0.5, 1, 2, 10])
    pixels = math.prod(shape)
    meaning = translate_loss(reduction="mean", pixels=pixels, weight=weight, kl_weight=kl_weight, pixel_range=(low, 1))
    right = meaning.variance_on_unit_range
    return Draw(dict(shape=shape, weight=weight, kl_weight=kl_weight, low=low), right, {
        "taken the mean over pixels for a sum": right / pixels,
        r"forgotten the 2 in $1/(2s^2)$": 2 * right,
        ("kept the unit of an interval of length 2" if low else "divided by 4 though pixels are on $[0,\\ 1]$ already"):
            right * 4 if low else right / 4}, dict(pixels=pixels, in_its_unit=meaning.variance, width=1 - low))


@asks("06_reconstruction_term", "A loss translator", points=3)
def beta_of_a_cross_entropy(rng):
    r"""A program minimises `<weight> * bce + <kl_weight> * kl` for binary images of $<size>\times <size>$ pixels and
    $<latents>$ latents. `bce` is averaged over the pixels, `kl` is <reduced> over the latents. Which weight $\beta$
    of the KL does that amount to, in $\log p(x|z)-\beta\,\mathrm{KL}$?
    ---
    - The summed cross entropy has the weight $w=<weight>/<pixels>$, the summed KL the weight $c=<c>$.
    - By (6.6) $\beta=c/w=<right>$.
    """
    size, latents, reduced = pick(rng, [28, 32, 64]), pick(rng, [2, 10, 20, 32]), pick(rng, ["summed", "averaged"])
    weight, kl_weight = pick(rng, [[1, 1], [1, 0.5], [1, 0.01], [100, 1], [500, 1], [1, 2]])
    options = dict(pixels=size**2, weight=weight, kl_weight=kl_weight, latent_dim=latents)
    kinds = {"summed": "sum", "averaged": "mean"}
    right, other = (translate_loss("cross entropy", "mean", kl_reduction=kind, **options).beta
                    for kind in (kinds.pop(reduced), *kinds.values()))
    return Draw(dict(size=size, latents=latents, reduced=reduced, weight=weight, kl_weight=kl_weight), right, {
        "read the two weights off without counting the sums": float(kl_weight / weight),
        "turned the ratio round": 1 / right,
        ("averaged a KL that is summed" if reduced == "summed" else "taken the mean over latents for a sum"): other},
        dict(pixels=size**2, c=kl_weight if reduced == "summed" else f"{kl_weight:g}/{latents}"))


@asks("06_reconstruction_term", "Which variance is best?", points=3, unit="nats")
def price_of_a_variance(rng):
    r"""A Gaussian decoder for $28\times 28$ pixels has the mean squared error $<error>$, averaged over the pixels, and
    its loss claims the variance $s^2=<claimed>$. By how many nats for each image does $\log p(x|z)$ rise when the best
    variance takes its place, with the means as they are?
    ---
    - By (6.8) the best variance is the MSE. With $r=\mathrm{MSE}/s^2=<error>/<claimed>=<ratio>$ the price (6.9) is
      $\frac{D}{2}(r-1-\log r)$.
    - $\frac{784}{2}(<ratio>-1-<log_ratio>)=<right>$.
    """
    error, claimed = pick(rng, grid(0.01, 0.04, 0.002)), pick(rng, [0.05, 0.1, 0.125, 0.2, 0.25, 0.5, 1])
    x, ratio = doubles(error).sqrt().expand(1, 28, 28), error / claimed
    right = gaussian_log_prob(x, 0 * x, error) - gaussian_log_prob(x, 0 * x, claimed)
    return Draw(dict(error=error, claimed=claimed), right, {
        "given the price of one pixel": right / 784,
        r"turned the ratio $\mathrm{MSE}/s^2$ round": 392 * (1 / ratio - 1 + math.log(ratio)),
        "compared the logarithms of the variances alone": -392 * math.log(ratio)},
        dict(ratio=ratio, log_ratio=math.log(ratio)))


@asks("06_reconstruction_term", "Range, last activation and loss are one choice", points=2)
def range_activation_loss(rng):
    r"""The pixels of some images are <kind> $<low>$ and $<high>$. A decoder ends in a number $a$ for each pixel. From
    $a$ an output is computed, and a loss compares it with the pixel. In three of the options, pixels, output and loss
    do not belong together. Which is the one whose loss exists for every $a$, and has at every pixel the least value 0,
    reached at some $a$ or in a limit?
    ---
    - The least squared error is 0 where the outputs come as near as one likes to each of the pixels.
    - The least cross entropy is 0 where each pixel is 0 or 1, if the output is what the loss expects: a probability,
      or a logit, which is any number. At a pixel outside $[0,\ 1]$ the cross entropy falls without end.
    """
    kind, low, high = pick(rng, [
        ["black or white, stored as", 0, 1], ["grey, between", 0, 1],
        ["grey, between", 0, pick(rng, [2, 4, 8, 16, 100, 255])],
        pick(rng, [["grey, between", -size, size] for size in (0.5, 1, 2, 3)]),
        ["grey, between", -pick(rng, grid(0.3, 1.2)), pick(rng, grid(1.3, 3))]])

    def times(factor, output):
        return output if factor == 1 else f"{shown(factor)} * {output}"
    onto = times(high, "tanh(a)") if low == -high else times(high - low, "sigmoid(a)")
    if 0 != low != -high:
        onto += f" - {shown(-low)}"
    square, logits, chances = "squared error", "cross entropy with logits", "cross entropy of probabilities"
    fitting = [("a", square), (onto, square)]
    if kind.startswith("black"):
        fitting += [("a", logits), ("sigmoid(a)", chances)]
    if (low, high) == (0, 1):
        misfits = {("sigmoid(a)", logits): "a sigmoid twice keeps chances between 0.5 and 0.73",
                   ("tanh(a)", logits): "logits between -1 and 1 keep chances between 0.27 and 0.73",
                   ("tanh(a)", chances): "outputs below 0 have no logarithm",
                   ("a", chances): "$a$ need not be a probability"}
    else:
        misfits = {("sigmoid(a)", square): "a sigmoid stays between 0 and 1",
                   ("a", logits): r"pixels outside $[0,\ 1]$ bring this cross entropy below 0",
                   ("sigmoid(a)", chances): "a sigmoid bounds the outputs and not the pixels"}
    if high > 1:
        misfits["tanh(a)", square] = "tanh stays between -1 and 1"
    if low < 0:
        misfits[times(high, "sigmoid(a)"), square] = "a sigmoid is never below 0"
    option = "Output `{}`, {}.".format
    return Draw(dict(kind=kind, low=low, high=high), option(*pick(rng, fitting)), {
        f"overlooked that {misfits[row]}": option(*row) for row in shuffled(rng, misfits)[:3]})


# Page 07

@asks("07_linear_vae", "Which directions collapse", points=2)
def active_latents(rng):
    r"""A linear VAE with 7 latents is trained to its maximum, with the decoder variance fixed at $s^2=<variance>$ and
    the weight $\beta=<beta>$ on the KL. The covariance of the data has the eigenvalues $<eigenvalues>$. How many
    latents stay active?
    ---
    - By (7.14) the threshold is $\beta s^2=<beta>\cdot <variance>=<threshold>$, and by (7.4) directions with a
      smaller eigenvalue collapse. Of the first 7 eigenvalues, <count> exceed it.
    """
    eigenvalues = sorted(shuffled(rng, grid(0.13, 4.03))[:8], reverse=True)
    variance, beta = pick(rng, [0.2, 0.25, 0.3, 0.4, 0.5]), pick(rng, [1.5, 2, 3, 4])

    model = LinearGaussian.maximum_likelihood(data_with(eigenvalues), 7, beta * variance)
    count = (model.weight != 0).any(0).sum().item()

    def above(threshold):
        return str(sum(value > threshold for value in eigenvalues[:7]))
    return Draw(dict(eigenvalues=eigenvalues, variance=variance, beta=beta), "<count>", {
        r"left out $\beta$": above(variance),
        r"taken $s$ for $s^2$": above(beta * math.sqrt(variance)),
        "counted every latent that there is": "7"}, dict(threshold=beta * variance, count=count))


@asks("07_linear_vae", "The bound can be tight", points=3, unit="nats", within=0.01)
def price_of_a_latent(rng):
    r"""At the maximum of a linear VAE with the decoder variance $s^2=<variance>$, a latent serves a direction in which
    the data have the variance $\lambda=<eigenvalue>$, an eigenvalue of their covariance. How many nats of KL does it
    pay, on average over the images?
    ---
    - By (7.7) $\mu^2$ and $\sigma^2$ together average to one, so of the KL only the logarithm is left, (7.9):
      $\frac{1}{2}\log(\lambda/s^2)$.
    - $\frac{1}{2}\log(<eigenvalue>/<variance>)=<right>$.
    """
    eigenvalue, variance = pick(rng, grid(1, 6, 0.25)), pick(rng, [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5])
    x, ratio = data_with([eigenvalue, variance / 2]), eigenvalue / variance
    q = LinearGaussian.maximum_likelihood(x, 1, variance).best_diagonal_q(x)
    return Draw(dict(eigenvalue=eigenvalue, variance=variance), kl_to_standard_normal(*q).mean(), {
        r"left out the factor $\frac{1}{2}$": math.log(ratio),
        "given what the likelihood gains by the direction": (ratio - 1 - math.log(ratio)) / 2,
        r"taken the squared length $\lambda-s^2$ of the column for $\lambda$": math.log(ratio - 1) / 2})


@asks("07_linear_vae", "The solution: an eigendecomposition", points=2)
def leftover_variance(rng):
    r"""The covariance of six pixels has the eigenvalues $<eigenvalues>$. The number of latents of a linear
    VAE is $J=<latents>$. Which decoder variance makes the data most probable?
    ---
    - By (7.6) it is the average eigenvalue that is left over: $(<rest>)/<number>=<right>$.
    """
    latents, eigenvalues = pick(rng, [1, 2, 3]), sorted(shuffled(rng, grid(0.1, 3))[:6], reverse=True)
    rest = eigenvalues[latents:]
    return Draw(dict(latents=latents, eigenvalues=eigenvalues),
                LinearGaussian.maximum_likelihood(data_with(eigenvalues), latents).variance, {
        "divided by the number of all pixels": sum(rest) / 6,
        "averaged all eigenvalues": sum(eigenvalues) / 6,
        "taken the largest eigenvalue that is left over": rest[0]},
        dict(rest=total(map(shown, rest)), number=len(rest)))


# Page 08

@asks("08_fully_connected_vae", "Algorithm 1", points=3, within=0.01)
def second_step_of_adam(rng):
    r"""Adam, with $\beta_1=0.9$ and $\beta_2=0.999$, starts with $m=v=0$ and is to maximise. The first two gradients of
    a weight are $<first>$ and $<second>$. By how much does the second step change the weight, in units of the learning
    rate?
    ---
    - By (8.3) $m=0.9\cdot 0.1\cdot <first>+0.1\cdot <second>=<m>$ and
      $v=0.999\cdot 0.001\cdot <first>^2+0.001\cdot <second>^2=<v>$.
    - Divided by $1-0.9^2=0.19$ and by $1-0.999^2=0.001999$ they are $<m_hat>$ and $<v_hat>$.
    - $<m_hat>/\sqrt{<v_hat>}=<right>$.
    """
    first, second = some(rng, 2, [-4, -3, -2, -1, -0.5, 0.5, 1, 2, 3, 4])
    theta = doubles(0).requires_grad_()
    adam, places = torch.optim.Adam([theta], lr=1, maximize=True), []
    for gradient in (first, second):
        theta.grad = doubles(gradient)
        adam.step()
        places.append(theta.item())
    m, v = 0.09 * first + 0.1 * second, 0.000999 * first**2 + 0.001 * second**2
    m_hat, v_hat = m / 0.19, v / 0.001999
    return Draw(dict(first=first, second=second), places[1] - places[0], {
        r"left out the divisors $1-0.9^t$ and $1-0.999^t$": m / math.sqrt(v),
        "followed the last gradient, without the averages": second,
        "divided by the average of $g^2$ and not by its root": m_hat / v_hat}, dict(m=m, v=v, m_hat=m_hat, v_hat=v_hat))


@asks("08_fully_connected_vae", r"One curve over $\beta$", points=3)
def validate_at_one(rng):
    r"""Four VAEs were trained with different weights $\beta$ of the KL. On held-out digits they have the distortion
    $D=-\mathbb{E}_q[\log p(x|z)]$ and the rate $R$, the average KL, in nats:

    | run | $\beta$ | $D$ | $R$ |
    |---|---|---|---|
    <rows>

    Which run gives the highest lower bound on the average of $\log p(x)$, and how high is it?
    ---
    - Whatever $\beta$ was used in training, $-(D+R)$ is the ELBO, a lower bound on $\log p(x)$. For $\beta$ below 1
      the objective $-(D+\beta R)$ need be none.
    - The four ELBOs are $<bounds>$.
    """
    betas = shuffled(rng, [0.1, 0.5, 1, 2])
    rates = [round({0.1: 36, 0.5: 30, 1: 25, 2: 19}[beta] + pick(rng, grid(-1.5, 1.5)), 1) for beta in betas]
    costs = shuffled(rng, grid(97, 102))
    distortions = [round(cost + 6 * (beta < 0.5) - rate, 1) for cost, beta, rate in zip(costs, betas, rates)]
    sharp = -doubles(*distortions)
    bounds, own = sharp - doubles(*rates), sharp - doubles(*betas) * doubles(*rates)
    best = bounds.argmax()

    def option(run, values):
        return f"Run {run + 1}, $<value{run}>$ nats.".replace(f"<value{run}>", shown(values[run]))
    return Draw(dict(betas=betas, distortions=distortions, rates=rates), option(best, bounds), {
        "compared each run by its own objective": option(own.argmax(), own),
        "compared the reconstruction terms": option(sharp.argmax(), sharp),
        "added the rate in place of subtracting it": option(best, sharp + doubles(*rates))},
        dict(bounds=bounds.tolist(), rows=table(betas, distortions, rates)))


@asks("08_fully_connected_vae", "What the noise costs", points=3, unit="nats", within=0.01)
def cost_of_the_noise(rng):
    r"""A VAE has the prior $\mathcal{N}(0,I)$. For an image, its best $q(z|x)$ with independent latents has the
    standard deviations $\sigma=<std>$, and over its width $\log p(x|z)$ is a quadratic function of $z$. How many nats
    of reconstruction does the noise cost, against decoding the mean?
    ---
    - By (8.5) the cost is $\frac{1}{2}\sum_j(1-\sigma_j^2)$.
    - $\frac{1}{2}(<terms>)=<right>$.
    """
    std = some(rng, 3, grid(0.1, 0.9))
    variance, zero = doubles(*std) ** 2, doubles([0, 0, 0])
    model = LinearGaussian((1 / variance - 1).sqrt().diag(), zero[0], 1)
    q = model.best_diagonal_q(zero)
    right = log_normal(zero, zero, zero)[0] - (model.elbo(zero, *q) + kl_to_standard_normal(*q))[0]
    return Draw(dict(std=std), right, {
        r"taken $\sigma$ for $\sigma^2$": (1 - doubles(*std)).sum() / 2,
        r"left out the factor $\frac{1}{2}$": 2 * right,
        "given half a nat for each latent, which holds for narrow ones only": 1.5},
        dict(terms=total(shown(1 - value**2) for value in std)))


# Page 09

@asks("09_conv_vae_mnist", "First block: convolution, batch norm, leaky ReLU", points=2, unit="pixels")
def receptive_field(rng):
    r"""Three convolutions follow one another, with the kernel sizes $<kernels>$ and the strides $<strides>$. How many
    pixels wide is the receptive field of a number behind the third?
    ---
    - By (9.5) it is $1+\sum_l(k_l-1)\,s_1\cdots s_{l-1}=1+<terms>=<right>$.
    """
    kernels, strides = some(rng, 3, [2, 3, 4, 5]), some(rng, 3, [1, 2, 3])
    x = torch.zeros(1, 1, 300, requires_grad=True)
    y = x
    for kernel, stride in zip(kernels, strides):
        y = conv1d(y, torch.ones(1, 1, kernel), stride=stride)
    y[0, 0, 1].backward()
    seen = x.grad[0, 0].nonzero()
    before, after = ([math.prod(strides[:layer + more]) for layer in range(3)] for more in (0, 1))
    return Draw(dict(kernels=kernels, strides=strides), (seen[-1] - seen[0] + 1).item(), {
        "left out the strides": sum(kernels) - 2,
        "counted the stride of the layer itself": 1 + sum((kernel - 1) * step for kernel, step in zip(kernels, after)),
        "multiplied the kernel sizes": math.prod(kernels)},
        dict(terms=total(rf"{kernel - 1}\cdot {step}" for kernel, step in zip(kernels, before))))


@asks("09_conv_vae_mnist", "The networks, whole", points=2, unit="parameters")
def parameters_of_a_block(rng):
    r"""A block of the encoder is a convolution with $3\times 3$ windows from $<a>$ to $<b>$ channels, with a bias,
    then batch norm, then a leaky ReLU. How many parameters does it have?
    ---
    - The convolution has $3^2\cdot <a>\cdot <b>=<products>$ weights and $<b>$ biases. Batch norm has a scale and a
      shift for each of $<b>$ channels. (Its running statistics are no parameters.)
    - $<products>+3\cdot <b>=<right>$, as in (9.8).
    """
    a, b = pick(rng, [1, 3, *range(8, 65, 8)]), pick(rng, range(8, 129, 8))
    products = 9 * a * b
    return Draw(dict(a=a, b=b), sum(weights.numel() for weights in conv_block(a, b).parameters()), {
        "left out batch norm's scale and shift": products + b,
        "counted the running mean and variance": products + 5 * b,
        "left out the nine places of the window": a * b + 3 * b}, dict(products=products))


@asks("09_conv_vae_mnist", "Before training: four tests that take seconds", points=2)
def first_value(rng):
    r"""A new Bernoulli VAE for $<size>\times <size>$ pixels, whose logits are near zero and whose posteriors are near
    the prior, prints a loss near $<printed>$ for its first batch of $<batch>$ images. What does the number tell?
    ---
    - By (9.9) a fair coin for each of $<pixels>$ pixels costs $<pixels>\cdot\log 2=<nats>$ nats.
    - Averaged over the pixels that is $0.6931$, added up over the batch $<added>$, and in bits $<pixels>$.
    """
    size, batch = pick(rng, [14, 16, 20, 28, 32, 40, 64]), pick(rng, [16, 20, 32, 50, 64, 100, 128, 200])
    black = torch.zeros(batch, 1, size, size, dtype=torch.float64)
    nats = -bernoulli_log_prob(black, black)
    cases = [("taken it for the right value", nats.mean(),
              "As it should be: summed over the pixels, averaged over the batch, in nats."),
             ("taken it for a mean over pixels", nats.mean() / size**2, "The loss averages over the pixels."),
             ("taken it for a sum over the batch", nats.sum(), "The loss adds up the images of the batch."),
             ("taken it for bits", nats.mean() / math.log(2), "The loss takes logarithms to base 2.")]
    right = pick(rng, cases)
    return Draw(dict(size=size, batch=batch, printed=right[1]), right[2],
                {why: option for why, _, option in cases if option != right[2]},
                dict(pixels=size**2, nats=nats.mean(), added=nats.sum()))


@asks("09_conv_vae_mnist", "First block: convolution, batch norm, leaky ReLU", points=2, unit="rows")
def height_behind_two(rng):
    r"""An image of $<height>\times <height>$ pixels goes through two convolutions, each with the kernel size
    $<kernel>$, the stride $<stride>$ and the padding $<padding>$. How many rows come out?
    ---
    - By (9.2) the first gives $\lfloor(<height>+2\cdot <padding>-<kernel>)/<stride>\rfloor+1=<middle>$ rows.
    - The second gives $\lfloor(<middle>+2\cdot <padding>-<kernel>)/<stride>\rfloor+1=<right>$.
    """
    height, kernel = pick(rng, range(20, 70)), pick(rng, [3, 4, 5, 7])
    stride, padding = pick(rng, [2, 3]), pick(rng, [1, 2])
    sizes, y = [], torch.zeros(1, 1, height, height)
    for _ in range(2):
        y = conv2d(y, torch.ones(1, 1, kernel, kernel), stride=stride, padding=padding)
        sizes.append(y.shape[-1])

    def twice(step):
        return step(step(height))
    return Draw(dict(height=height, kernel=kernel, stride=stride, padding=padding), sizes[1], {
        "rounded up": twice(lambda h: math.ceil((h + 2 * padding - kernel) / stride) + 1),
        "padded one side only": twice(lambda h: (h + padding - kernel) // stride + 1),
        "left out the window at the start, the $+1$": twice(lambda h: (h + 2 * padding - kernel) // stride)},
        dict(middle=sizes[0]))


# Page 10

@asks("10_reconstruct_and_generate", "Two priors", points=4, unit="nats", within=0.01)
def gain_of_a_gaussian(rng):
    r"""Two images have posteriors of one latent with the means $<means>$ and the same variance $<variance>$. After
    training, the prior $\mathcal{N}(0,1)$ is replaced by the Gaussian with the mean and the variance of the aggregate
    posterior $q(z)$. By how much does the average ELBO rise?
    ---
    - $q(z)$ has the mean $m=<mean>$ and the variance $v=<variance>+<spread>=<v>$.
    - In (10.4) only these two enter for $r=\mathcal{N}(m,v)$: the left side is $\frac{1}{2}(m^2+v-\log v-1)=<right>$.
    """
    means, variance = shuffled(rng, grid(-2, 2, 0.5))[:2], pick(rng, [0.1, 0.2, 0.25, 0.4])
    mu, log_var = doubles(*means), doubles(variance).log()
    mean, spread = mu.mean(), mu.var(unbiased=False)
    return Draw(dict(means=means, variance=variance),
                kl_to_standard_normal(mean[None], (spread + variance).log()[None]), {
        "left out the spread of the means": kl_to_standard_normal(mean[None], log_var),
        "left out the variance of the posteriors": kl_to_standard_normal(mean[None], spread.log()[None]),
        "given the average KL, of which a prior gains a part only": kl_to_standard_normal(mu[:, None], log_var).mean()},
        dict(mean=mean, spread=spread, v=spread + variance))


@asks("10_reconstruct_and_generate", "Why that number must not be believed as it stands", points=2, unit="nats",
      within=0.02)
def least_divergence(rng):
    r"""Over $<images>$ images the average of $\mathrm{KL}(q(z|x)\,\|\,p(z))$ is $<average>$ nats. How large is the
    divergence $\mathrm{KL}(q(z)\,\|\,p(z))$ of these images' aggregate posterior at least?
    ---
    - By (10.1) the average KL is the mutual information plus this divergence. By (10.2) the information is at most
      $\log <images>=<most>$.
    - $<average>-<most>=<right>$.
    """
    images, average = pick(rng, [100, 500, 1000, 2000, 5000, 10000, 60000]), pick(rng, grid(18, 30, 0.5))
    most = doubles(images).log()
    return Draw(dict(images=images, average=average), average - most, {
        "taken the logarithm to base 2": average - math.log2(images),
        "given the most that the information can be": most,
        "taken all of the KL for a distance of the aggregate from the prior": average}, dict(most=most))


@asks("10_reconstruct_and_generate", "A mean or a draw?", points=3)
def error_of_a_draw(rng):
    r"""A Bernoulli decoder gives three pixels the probabilities $p=<probs>$ of white. A picture $X$, whose pixels are 0
    or 1, is drawn from it. What is the expected squared error $\mathbb{E}\|X-c\|^2$ to the picture $c=<target>$?
    ---
    - By (10.9) it is $\|p-c\|^2+\sum_i p_i(1-p_i)$.
    - $<error>+<speckle>=<right>$.
    """
    probs, target = shuffled(rng, [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])[:3], some(rng, 3, [0, 0.5, 1])
    p, c = doubles(*probs), doubles(*target)
    error, speckle = ((p - c) ** 2).sum(), (p * (1 - p)).sum()
    return Draw(dict(probs=probs, target=target), error + speckle, {
        "given the error of the mean picture": error,
        "given the speckle alone": speckle,
        "taken $p$ for the variance $p(1-p)$ of a pixel": error + p.sum()}, dict(error=error, speckle=speckle))


# Page 11

@asks("11_measuring_likelihood", "Average first, then take the logarithm", points=4, unit="nats", within=0.06)
def importance_bound(rng):
    r"""Three draws of $z$ from the encoder of an image gave, in nats:

    | draw | $\log p(x\mid z)$ | $\log p(z)$ | $\log q(z\mid x)$ |
    |---|---|---|---|
    <rows>

    What is the importance-weighted estimate of $\log p(x)$ from the three?
    ---
    - By (11.1) $\log w=\log p(x|z)+\log p(z)-\log q(z|x)$, which is $<log_w>$.
    - By (11.3) the estimate is $\log\frac{1}{3}\sum_j w_j=<top>+\log\frac{1}{3}(<powers>)=<right>$.
    """
    columns = [some(rng, 3, values) for values in (grid(-88, -84), grid(-32, -28), grid(-12, -9))]
    likely, prior, q = (doubles(*column) for column in columns)
    log_w = likely + prior - q
    return Draw(dict(zip(("likely", "prior", "q"), columns)), log_mean_exp(log_w), {
        "averaged the logarithms, which estimates the ELBO": log_w.mean(),
        "added the weights without dividing by three": log_w.logsumexp(0),
        r"put the losses $-\log w$ into the log-mean-exp": -log_mean_exp(-log_w),
        r"added $\log q$ in place of subtracting it": log_mean_exp(log_w + 2 * q)},
        dict(log_w=log_w.tolist(), top=log_w.max(), rows=table(*columns),
             powers=total(f"e^{{{shown(value - log_w.max())}}}" for value in log_w)))


@asks("11_measuring_likelihood", "How many draws count?", points=2, unit="draws")
def effective_size(rng):
    r"""Five draws have importance weights in the ratio $w=<weights>$. What is their effective sample size?
    ---
    - It is $(\sum_j w_j)^2/\sum_j w_j^2=<sum>^2/<squares>=<right>$.
    """
    weights = some(rng, 5, [1, 2, 3, 5, 8, 12, 20])
    log_w, squares = doubles(*weights).log(), sum(weight**2 for weight in weights)
    right = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
    return Draw(dict(weights=weights), right, {
        "given the share of the draws and not their number": right / 5,
        "divided the sum by the largest weight": sum(weights) / max(weights),
        "turned the fraction round": 1 / right}, dict(sum=sum(weights), squares=squares))


@asks("11_measuring_likelihood", "Nats and bits per pixel", points=2, unit="bits per pixel")
def bits_of_a_pixel(rng):
    r"""A model of black and white images of $<size>\times <size>$ pixels has the negative log-likelihood $<nats>$
    nats. How many bits per pixel is that?
    ---
    - A nat is $1/\log 2$ bits: $<nats>/(<pixels>\cdot 0.6931)=<right>$.
    """
    nats, size = pick(rng, grid(70, 120, 0.5)), pick(rng, [14, 28, 32])
    right = nats / size**2 / doubles(2).log()
    return Draw(dict(nats=nats, size=size), right, {
        r"multiplied by $\log 2$ in place of dividing": right * math.log(2) ** 2,
        "left the number in nats": nats / size**2,
        "added 8 bits, which belong to densities of grey values": right + 8}, dict(pixels=size**2))


@asks("11_measuring_likelihood", "Pitfall: summed over the images inside the logarithm", points=2)
def order_of_the_sums(rng):
    r"""The tensor `log_w`, of the shape `(<samples>, <images>)`, holds $\log w$ of $<samples>$ draws for each of
    $<images>$ images. Which line computes the negative log-likelihood, averaged over them?
    ---
    - By (11.3): log-mean-exp over the draws, which are dimension 0, then the mean over the images, and the sign in
      front.
    """
    samples = pick(rng, [20, 50, 100, 200, 400, 500, 1000, 5000])
    images = pick(rng, [16, 32, 64, 96, 128, 250, 300, 2000])
    wrong = {
        "summed over images inside the logarithm": "`-(log_w.sum(1).logsumexp(0) - math.log(<samples>)) / <images>`",
        "averaged the logarithms, which gives minus the ELBO": "`-log_w.mean()`",
        "put the losses into the log-mean-exp": "`((-log_w).logsumexp(0) - math.log(<samples>)).mean()`",
        "taken the images for the draws": "`-(log_w.logsumexp(1) - math.log(<images>)).mean()`"}
    return Draw(dict(samples=samples, images=images), "`-(log_w.logsumexp(0) - math.log(<samples>)).mean()`",
                {why: wrong[why] for why in shuffled(rng, wrong)[:3]})


# Page 12

@asks("12_training_on_the_bound", "The gradient of the bound", points=3, within=0.01)
def weighted_gradient(rng):
    r"""Three draws have $\log w=<log_w>$, and their derivatives with respect to a weight of the decoder are
    $<slopes>$. What is the derivative of the importance-weighted estimate $\log\frac{1}{3}\sum_j w_j$?
    ---
    - The normalised weights are the softmax of $\log w$, $<shares>$.
    - By (12.1) the derivative is $<terms>=<right>$.
    """
    drops = shuffled(rng, [0, pick(rng, grid(0.5, 1)), pick(rng, grid(1.2, 2.5))])
    log_w, slopes = [round(-90 - drop, 1) for drop in drops], some(rng, 3, grid(-3, 3, 0.5))
    t, values, gradients = doubles(0).requires_grad_(), doubles(*log_w), doubles(*slopes)
    right, = torch.autograd.grad(log_mean_exp(values + gradients * t), t)
    shares = values.softmax(0)
    return Draw(dict(log_w=log_w, slopes=slopes), right, {
        "averaged the gradients, as for the ELBO": gradients.mean(),
        "taken the softmax of the losses, so that the worst draw weighs most": (-values).softmax(0) @ gradients,
        "squared the normalised weights, which is right for the encoder's path only": shares**2 @ gradients},
        dict(shares=shares.tolist(),
             terms=total(fill(r"<a>\cdot <b>", dict(a=share, b=slope)) for share, slope in zip(shares, slopes))))


@asks("12_training_on_the_bound", "A flow as prior", points=4, unit="nats", within=0.01)
def density_of_a_coupling(rng):
    r"""A flow with one coupling keeps $z_A$ and maps $z_B$ to $u_B=z_B\,e^s+t$. At $z_A=<kept>$ and $z_B=<moved>$ its
    network returns $s=<scale>$ and $t=<shift>$, and $u$ is standard normal. What is the log density $\log r(z)$ of $z$?
    ---
    - By (12.6) $u_A=<kept>$ and $u_B=<moved>\cdot e^{<scale>}+<shift>=<image>$, and the log determinant is
      $s=<scale>$.
    - By (12.5) $\log r(z)=-\log 2\pi-\frac{1}{2}(<kept>^2+<image>^2)+<scale>=<right>$.
    """
    (kept, moved), shift = some(rng, 2, [-1.5, -1, -0.5, 0.5, 1, 1.5]), pick(rng, [-1, -0.5, 0.5, 1])
    scale = pick(rng, [-0.8, -0.5, -0.4, 0.3, 0.4, 0.5, 0.8])
    flow, z = RealNVP(2, hidden=1, couplings=1).double(), doubles(kept, moved)
    flow.couplings[0].net[-1].bias.data = doubles(math.atanh(scale), shift)
    right = flow.log_prob(z).item()
    return Draw(dict(kept=kept, moved=moved, scale=scale, shift=shift), right, {
        "subtracted the log determinant": right - 2 * scale,
        "left out the determinant": right - scale,
        "taken the density at $z$ and not at $u$": log_normal(z, 0 * z, 0 * z) + scale},
        dict(image=moved * math.exp(scale) + shift))


@asks("12_training_on_the_bound", "The sleep phase: the encoder alone", points=3)
def bounds_of_two_encoders(rng):
    r"""Over the test digits a VAE has the ELBO $<elbo>$ and $L_{256}=<bound>$ nats, the importance-weighted bound with
    256 draws, both free of noise. Its encoder alone is then trained by the sleep phase. Now the ELBO is $<lower>$ and
    $L_{256}$ is $<higher>$. What do the four numbers say of the average $\log p(x)$?
    ---
    - The decoder stays as it is, and with it $p(x)$. Only the estimates change.
    - By (11.3) each of the four is a lower bound on the same number. The highest, $<higher>$, says most.
    """
    elbo, gain = pick(rng, grid(-104, -100)), pick(rng, grid(3, 7))
    loss, rise = pick(rng, grid(2, 6)), pick(rng, grid(0.2, 1.2))
    return Draw(dict(elbo=elbo, bound=elbo + gain, lower=elbo - loss, higher=elbo + gain + rise),
                "It has not changed, and is at least $<higher>$.", {
        "believed that the likelihood follows the ELBO": "It has fallen by $<loss>$.",
        "believed that the likelihood follows the tighter bound": "It has risen by $<rise>$.",
        "taken a lower bound for an upper one": "It has not changed, and is at most $<lower>$."},
        dict(loss=loss, rise=rise))


# Page 13

@asks("13_bug_museum", "Room 3: noise and heads", points=3, unit="nats", within=0.06)
def nats_left_out(rng):
    r"""A VAE with $<latents>$ latents multiplies its noise by $<factor>$, so that $z=\mu+<factor>\,\sigma\varepsilon$.
    The KL in its loss is that of $N(\mu,\sigma^2)$, and $\sigma=<std>$ in every latent. By how many nats is this KL
    less than that of the draws?
    ---
    - The draws have the standard deviation $<factor>\cdot <std>$. By (4.7) $\mu$ cancels in the difference.
    - A latent is short by $-\log <factor>-\frac{1}{2}\cdot <std>^2\cdot (1-<factor>^2)=<one>$ nats.
    - All $<latents>$ are short by $<right>$.
    """
    latents, factor, std = pick(rng, [8, 16, 20, 32]), pick(rng, [0.01, 0.02, 0.1, 0.5]), pick(rng, grid(0.3, 1.2))
    mu, log_var = torch.zeros(latents).double(), 2 * doubles(std).log().expand(latents)
    drawn = log_var + 2 * math.log(factor)
    right = kl_to_standard_normal(mu, drawn) - kl_to_standard_normal(mu, log_var)
    logs = -latents * math.log(factor)
    return Draw(dict(latents=latents, factor=factor, std=std), right, {
        "counted the logarithms only": logs,
        "given the number for one latent": right / latents,
        "multiplied the variance by the factor and not by its square": (logs - latents * std**2 * (1 - factor)) / 2},
        dict(one=right / latents))


@asks("13_bug_museum", "Room 2: two terms and their reductions", points=3)
def weight_of_two_means(rng):
    r"""A loss for images of $<channels>\times <size>\times <size>$ black and white pixels averages the cross entropy
    over pixels and batch, and the KL over $<latents>$ latents and batch. It adds $<factor>$ times the first mean and
    the second. Which weight $\beta$ has the KL beside the cross entropy, both being sums?
    ---
    - A mean over $<pixels>$ pixels is a sum with $w=<factor>/<pixels>$, a mean over $<latents>$ latents one with
      $c=1/<latents>$.
    - By (6.6) $\beta=c/w=<pixels>/(<latents>\cdot <factor>)=<right>$.
    """
    channels, size = pick(rng, [1, 3]), pick(rng, [28, 32, 64])
    latents, factor = pick(rng, [8, 16, 20, 32, 64]), pick(rng, [2, 5, 10, 100])
    pixels = channels * size**2
    right = translate_loss("cross entropy", "mean", pixels=pixels, weight=factor, kl_reduction="mean",
                           latent_dim=latents).beta
    return Draw(dict(channels=channels, size=size, latents=latents, factor=factor), right, {
        r"turned the fraction round, which gives $1/\beta$": 1 / right,
        "left out the mean over the latents": right * latents,
        "left out the mean over the pixels": right / pixels,
        "left out the factor": right * factor}, dict(pixels=pixels))


@asks("13_bug_museum", "Pitfall: a check where right and wrong agree", points=2)
def test_that_sees_a_mean(rng):
    r"""Somebody's KL averages over the latents in place of adding them up. Four tests are proposed, with $<latents>$
    latents or with one, with $\mu=<mu>$ and $\sigma=<std>$ in each or at the prior. Which one fails, as it should?
    ---
    - At the prior the KL is zero, summed or averaged. With one latent a mean is a sum. A mean of numbers that are not
      below zero is not below zero either.
    - With $<latents>$ latents away from the prior the mean is $1/<latents>$ of the sum: only this test fails.
    """
    latents, mu, std = pick(rng, [4, 8, 16, 32]), pick(rng, [-2, -1.5, -0.5, 0.5, 1.5, 2]), pick(rng, [0.2, 0.5, 2, 3])
    equal, place = "is it that of `torch.distributions`?", r"at $\mu=<mu>$, $\sigma=<std>$"
    return Draw(dict(latents=latents, mu=mu, std=std), f"$<latents>$ latents, {place}: {equal}", {
        "tested at the prior, where all of them are zero": rf"$<latents>$ latents, at $\mu=0$, $\sigma=1$: {equal}",
        "tested one latent, where a mean is a sum": f"$1$ latent, {place}: {equal}",
        "tested the sign, which a mean does not change": f"$<latents>$ latents, {place}: is it at least $0$?"})
