"""Correct VAEs of odd kinds, on which `checkup` may raise no alarm: each a function that returns its arguments."""

import math

import torch
from exhibits import IMAGES, made_of, network, over_images, right_bound, right_kl
from torch import nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.nn import functional as F

from vae_lib.gaussian import kl_between_normals, log_normal, reparameterize
from vae_lib.likelihoods import Bernoulli, Gaussian, LearnedVarianceGaussian
from vae_lib.models import VAE, DenseDecoder, DenseEncoder, dense_vae

GREY = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(6))
LOSS = made_of()


class Plain(nn.Module):
    """784-400-20 in small, as PyTorch's example has it: methods encode, reparameterize, decode; rows of pixels."""

    def __init__(self, sigmoid=True):
        super().__init__()
        self.hidden, self.to_mu, self.to_log_var = nn.Linear(64, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.from_z, self.to_pixels, self.sigmoid = nn.Linear(4, 16), nn.Linear(16, 64), sigmoid

    def encode(self, x):
        features = self.hidden(x).relu()
        return self.to_mu(features), self.to_log_var(features)

    def decode(self, z):
        logits = self.to_pixels(self.from_z(z).relu())
        return logits.sigmoid() if self.sigmoid else logits

    def forward(self, x):
        mu, log_var = self.encode(x.view(-1, 64))
        return self.decode(reparameterize(mu, log_var)), mu, log_var


def plain_loss(model, x):
    output, mu, log_var = model(x)
    error = F.binary_cross_entropy(output, x.view(-1, 64), reduction="sum")
    return error - 0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())


def plain():
    return Plain(), IMAGES, plain_loss, over_images(lambda model, x: plain_loss(model, x) / len(x))


def plain_per_pixel():
    """Both terms divided by the batch and by 64."""
    return Plain(), IMAGES, lambda model, x: plain_loss(model, x) / len(x) / 64


def logits_in_rows():
    def loss(model, x):
        output, mu, log_var = model(x)
        error = F.binary_cross_entropy_with_logits(output, x.flatten(1), reduction="none").sum(1)
        return {"loss": (error + right_kl(mu, log_var).sum(1)).mean(), "kl": right_kl(mu, log_var)}
    return Plain(sigmoid=False), IMAGES.flatten(1).unflatten(1, (1, 8, 8)), loss


class AsDict(Plain):
    """forward returns a dict, as Lightning modules often do."""

    def forward(self, x):
        output, mu, log_var = super().forward(x)
        return {"reconstruction": output, "mu": mu, "log_var": log_var}


def forward_returns_dict():
    def loss(model, x):
        out = model(x)
        error = F.mse_loss(out["reconstruction"], x.flatten(1), reduction="sum") / len(x)
        return error + right_kl(out["mu"], out["log_var"]).sum(1).mean()
    return AsDict(), GREY, loss


class TrunkAndHeads(Plain):
    """`encode` is the whole encoder, `encoder` its trunk only; the loss takes what forward returns, and a KL weight."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.LeakyReLU())
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU())
        self.final = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        self.steps = 0

    def encode(self, x):
        features = self.encoder(x)
        return [self.to_mu(features), self.to_log_var(features)]

    def decode(self, z):
        return self.final(self.decoder(z))

    def forward(self, x):
        mu, log_var = self.encode(x)
        return [self.decode(reparameterize(mu, log_var)), x, mu, log_var]

    def loss_function(self, output, x, mu, log_var, M_N=0.00025):
        self.steps += 1
        kl = torch.mean(-0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp(), dim=1), dim=0)
        return {"loss": F.mse_loss(output, x) + M_N * kl, "KLD": -kl.detach()}


def trunk_and_heads():
    return TrunkAndHeads(), 2 * GREY - 1, lambda model, x: model.loss_function(*model(x))


class Wrapped(nn.Module):
    """A module around a VAE, which is called `net`."""

    def __init__(self):
        super().__init__()
        self.net = network("convolutional")

    def training_step(self, x):
        return LOSS(self.net, x)

    def forward(self, x):
        return self.net(x)[0]


def wrapped():
    return Wrapped(), IMAGES, Wrapped.training_step


def one_latent():
    return dense_vae((1, 8, 8), (16,), 1), IMAGES, LOSS, over_images(LOSS), right_bound


def one_pixel_wide():
    images = torch.rand(20, 1, 8, 1, generator=torch.Generator().manual_seed(7)).round()
    return dense_vae((1, 8, 1), (16,), 2), images, LOSS, over_images(LOSS), right_bound


def one_pixel():
    return dense_vae((1, 1, 1), (16,), 2, likelihood=Gaussian(0.3)), GREY[:, :, :1, :1], LOSS, over_images(LOSS)


def as_many_latents_as_pixels():
    images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(7))
    loss = made_of(error=lambda model, x, output: ((x - output) ** 2).mean((1, 2, 3)),
                   reduce=lambda error, kl: (error + kl.mean(1)).mean())
    return dense_vae((1, 2, 2), (16,), 4, likelihood=Gaussian(0.5)), images, loss


class LearnedPrior(VAE):
    """p(z) = N(m, s) with weights of its own, away from N(0, I)."""

    def __init__(self):
        inner = network("dense")
        super().__init__(inner.encoder, inner.decoder, inner.likelihood)
        self.prior_mu, self.prior_log_var = nn.Parameter(torch.ones(4)), nn.Parameter(-torch.ones(4))


def learned_prior():
    def loss(model, x):
        mu, log_var = model.encoder(x)
        kl = kl_between_normals(mu, log_var, model.prior_mu, model.prior_log_var)
        return (kl - model.likelihood.log_prob(x, model.decoder(reparameterize(mu, log_var)))).mean()
    return LearnedPrior(), IMAGES, loss, over_images(loss)


class MixturePrior(LearnedPrior):
    def log_prior(self, z):
        parts = Independent(Normal(torch.stack([self.prior_mu, -self.prior_mu]), self.prior_log_var.exp()), 1)
        return MixtureSameFamily(Categorical(torch.ones(2)), parts).log_prob(z)


def mixture_prior():
    def loss(model, x):
        mu, log_var = model.encoder(x)
        z = reparameterize(mu, log_var)
        kl = log_normal(z, mu, log_var) - model.log_prior(z)
        return (kl - model.likelihood.log_prob(x, model.decoder(z))).mean()
    return MixturePrior(), IMAGES, loss


def dropout():
    vae = network("dense")
    vae.encoder.stages = nn.Sequential(nn.Dropout(0.5), vae.encoder.stages, nn.Dropout(0.2))
    return vae, IMAGES, LOSS, over_images(LOSS), right_bound


def normalised_trunk():
    """Batch norm, then the heads, without any activation in between."""
    vae = network("dense")
    vae.encoder.stages.append(nn.BatchNorm1d(16))
    return vae, IMAGES, LOSS, over_images(LOSS), right_bound


def double():
    return network("residual").double(), IMAGES.double(), LOSS, over_images(LOSS), right_bound


def learned_variance():
    return network("convolutional", LearnedVarianceGaussian(0.1)), GREY, LOSS, over_images(LOSS), right_bound


def narrow_gaussian():
    """2 s2 is as large as the number of pixels, on purpose."""
    return network("dense", Gaussian(32.0)), GREY, LOSS, over_images(LOSS), right_bound


def beta_of_four():
    loss = made_of(reduce=lambda error, kl: (error + 4 * kl.sum(1)).mean())
    return network("dense"), IMAGES, loss, over_images(LOSS), right_bound


def beta_of_a_quarter():
    """One fourth, with four latents, is a weight here and no average."""
    loss = made_of(reduce=lambda error, kl: (error + 0.25 * kl.sum(1)).mean())
    return network("dense"), IMAGES, loss, over_images(LOSS), right_bound


def declared_beta():
    vae = network("dense")
    vae.beta = 2.0
    return vae, IMAGES, made_of(reduce=lambda error, kl: (error + vae.beta * kl.sum(1)).mean()), over_images(LOSS)


def free_bits():
    return network("dense"), IMAGES, made_of(reduce=lambda error, kl: (error + kl.clamp_min(0.5).sum(1)).mean())


def capacity():
    return network("dense"), IMAGES, made_of(reduce=lambda error, kl: (error + 10 * (kl.sum(1) - 3).abs()).mean())


def absolute_error():
    return network("dense", Gaussian(1.0)), GREY, made_of(error=lambda model, x, out: (x - out).abs().sum((1, 2, 3)))


def bits_drawn_in_the_loss():
    return network("dense"), GREY, lambda model, x: LOSS(model, torch.bernoulli(x))


def rescaled_in_the_loss():
    return network("convolutional", Gaussian(0.2)), GREY, lambda model, x: LOSS(model, 2 * x - 1)


class MeanAndSpread(nn.Module):
    """A decoder that returns mean and log-variance of each pixel."""

    def __init__(self, inner):
        super().__init__()
        self.mean, self.log_var = inner, nn.Linear(4, 64)
        self.latent_dim, self.image_shape = 4, (1, 8, 8)

    def forward(self, z):
        return self.mean(z), self.log_var(z).unflatten(-1, (1, 8, 8))


def variance_of_each_pixel():
    vae = network("dense", Gaussian(1.0))
    vae.decoder, vae.likelihood = MeanAndSpread(vae.decoder), None

    def error(model, x, output):
        return -Normal(output[0], (output[1] / 2).exp()).log_prob(x).sum((1, 2, 3))
    return vae, GREY, made_of(error=error)


class Distributions(nn.Module):
    """Encoder and decoder return torch.distributions."""

    def __init__(self):
        super().__init__()
        self.inner = Plain(sigmoid=False)
        self.inference, self.generator = Inference(self.inner), Generator(self.inner)

    def forward(self, x):
        return self.generator(self.inference(x).rsample())


class Inference(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = [inner]

    def forward(self, x):
        mu, second = self.inner[0].encode(x.flatten(1))
        return Independent(Normal(mu, F.softplus(second)), 1)


class Generator(Inference):
    def forward(self, z):
        return Independent(BernoulliDistribution(logits=self.inner[0].decode(z)), 1)


def distributions():
    def loss(model, x):
        q = model.inference(x)
        prior = Independent(Normal(torch.zeros_like(q.mean), 1.0), 1)
        return -(model.generator(q.rsample()).log_prob(x.flatten(1)) - kl_divergence(q, prior)).mean()
    return Distributions(), IMAGES, loss


class Softplus(Plain):
    """The second head is a standard deviation, and nothing says so."""

    def encode(self, x):
        mu, second = super().encode(x)
        return mu, F.softplus(second)

    def forward(self, x):
        mu, std = self.encode(x.flatten(1))
        return self.decode(mu + std * torch.randn_like(std)), mu, std


def standard_deviation():
    def loss(model, x):
        output, mu, std = model(x)
        kl = 0.5 * (mu**2 + std**2 - 2 * std.log() - 1).sum(1)
        return (F.binary_cross_entropy(output, x.flatten(1), reduction="none").sum(1) + kl).mean()
    return Softplus(), IMAGES, loss


def softplus_in_the_loss():
    """The standard deviation is the softplus of the second head, taken where it is used."""
    def loss(model, x):
        mu, second = model.encoder(x)
        q = Normal(mu, F.softplus(second))
        error = -model.likelihood.log_prob(x, model.decoder(q.rsample()))
        return (error + kl_divergence(q, Normal(0.0, 1.0)).sum(1)).mean()
    return network("dense"), IMAGES, loss, over_images(loss)


def log_std():
    def loss(model, x):
        mu, log_std = model.encoder(x)
        z = mu + log_std.exp() * torch.randn_like(mu)
        kl = 0.5 * (mu**2 + (2 * log_std).exp() - 2 * log_std - 1).sum(1)
        return (kl - model.likelihood.log_prob(x, model.decoder(z))).mean()
    return network("dense"), IMAGES, loss


class Maps(nn.Module):
    """Latents that are maps, 2 x 4 x 4, under convolutions."""

    def __init__(self):
        super().__init__()
        self.encoder, self.heads = nn.Conv2d(1, 8, 3, 2, 1), nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(2))
        self.decoder = nn.ConvTranspose2d(2, 1, 2, 2)

    def encode(self, x):
        features = self.encoder(x).relu()
        return tuple(head(features) for head in self.heads)


class Halves(Maps):
    """The encoder returns one tensor, with mu and log_var as its halves."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.encode = None


def halves():
    def loss(model, x):
        mu, log_var = model.encoder(x).chunk(2, 1)
        error = F.binary_cross_entropy_with_logits(model.decoder(reparameterize(mu, log_var)), x, reduction="sum")
        return (error + right_kl(mu, log_var).sum()) / len(x)
    return Halves(), IMAGES, loss, over_images(loss)


class DrawsItself(Plain):
    """`encode` draws z, and returns it in front of its mean and log-variance."""

    def encode(self, x):
        mu, log_var = super().encode(x.flatten(1))
        return reparameterize(mu, log_var), mu, log_var

    def forward(self, x):
        z, mu, log_var = self.encode(x)
        return self.decode(z), mu, log_var


def encoder_draws_itself():
    return DrawsItself(), IMAGES, plain_loss, over_images(lambda model, x: plain_loss(model, x) / len(x))


def maps():
    def loss(model, x):
        mu, log_var = model.encode(x)
        error = F.binary_cross_entropy_with_logits(model.decoder(reparameterize(mu, log_var)), x, reduction="sum")
        return (error + right_kl(mu, log_var).sum()) / len(x)
    return Maps(), IMAGES, loss


def clamped_heads():
    def loss(model, x):
        mu, log_var = model.encoder(x)
        log_var = log_var.clamp(-10, 10)
        error = -model.likelihood.log_prob(x, model.decoder(reparameterize(mu, log_var)))
        return (error + right_kl(mu, log_var).sum(1)).mean()
    return network("residual"), IMAGES, loss


def heads_from_zero():
    vae = network("dense")
    for head in (vae.encoder.to_mu, vae.encoder.to_log_var):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return vae, IMAGES, LOSS


def collapsed():
    """The decoder ignores z, and every pixel is white with probability 0.6."""
    vae = network("dense")
    nn.init.zeros_(vae.decoder.to_output.weight)
    nn.init.constant_(vae.decoder.to_output.bias, math.log(1.5))
    return vae, IMAGES, LOSS


class Flowing(VAE):
    """A shift and a scale of z between encoder and decoder, whose log-determinant the loss counts."""

    def __init__(self):
        inner = network("dense")
        super().__init__(inner.encoder, inner.decoder, inner.likelihood)
        self.shift, self.log_scale = nn.Parameter(torch.ones(4)), nn.Parameter(0.5 * torch.ones(4))


def flow_in_between():
    def loss(model, x):
        mu, log_var = model.encoder(x)
        z0 = reparameterize(mu, log_var)
        z = z0 * model.log_scale.exp() + model.shift
        log_q = log_normal(z0, mu, log_var) - model.log_scale.sum()
        log_p = log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
        return (log_q - log_p - model.likelihood.log_prob(x, model.decoder(z))).mean()
    return Flowing(), IMAGES, loss


class TwoLayers(nn.Module):
    """z2 to z1 to x, with a learned p(z1|z2)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = DenseEncoder((1, 8, 8), (16,), 4), nn.Linear(4, 4)
        self.prior, self.decoder = nn.Linear(2, 8), DenseDecoder((1, 8, 8), (16,), 4)


def two_layers():
    def loss(model, x):
        mu, log_var = model.first(x)
        z1 = reparameterize(mu, log_var)
        above = model.second(z1).chunk(2, 1)
        log_ratio = log_normal(z1, mu, log_var) - log_normal(z1, *model.prior(reparameterize(*above)).chunk(2, 1))
        error = F.binary_cross_entropy_with_logits(model.decoder(z1), x, reduction="none").sum((1, 2, 3))
        return (error + log_ratio + right_kl(*above).sum(1)).mean()
    return TwoLayers(), IMAGES, loss, over_images(loss)


def warm_up():
    """The weight of the KL rises with a count of steps, and is 1 by now."""
    vae = network("dense")
    vae.steps = 999

    def loss(model, x):
        model.steps += 1
        return made_of(reduce=lambda error, kl: (error + model.steps / 1000 * kl.sum(1)).mean())(model, x)
    return vae, IMAGES, loss


def beta_in_a_buffer():
    vae = network("dense")
    vae.register_buffer("beta", torch.tensor(2.0))
    return vae, IMAGES, made_of(reduce=lambda error, kl: (error + vae.beta * kl.sum(1)).mean())


def denoising():
    def loss(model, x):
        mu, log_var = model.encoder(x + 0.3 * torch.randn_like(x))
        error = -model.likelihood.log_prob(x, model.decoder(reparameterize(mu, log_var)))
        return (error + right_kl(mu, log_var).sum(1)).mean()
    return network("dense"), IMAGES, loss, over_images(loss)


def half_precision():
    return network("dense").bfloat16(), IMAGES.bfloat16(), LOSS, over_images(LOSS), right_bound


def drawn_kl():
    """The KL from one draw, log q - log p."""
    def loss(model, x):
        return -right_bound(model, x, 1)
    return network("convolutional"), IMAGES, loss, over_images(loss), right_bound


def narrow_decoder():
    """Dense networks of another width, with a learned bias and Gaussian bits on [-1, 1]."""
    encoder, decoder = DenseEncoder((3, 4, 4), (8,), 2, nn.Tanh), DenseDecoder((3, 4, 4), (8,), 2, nn.Tanh)
    images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(8)) * 2 - 1
    return VAE(encoder, decoder, Gaussian(0.01)), images, LOSS, over_images(LOSS), right_bound


def other_optimum():
    """A Bernoulli whose loss is scaled by a hundred."""
    return network("dense", Bernoulli()), IMAGES, lambda model, x: 100 * LOSS(model, x)


ODD = (plain, plain_per_pixel, logits_in_rows, forward_returns_dict, trunk_and_heads, wrapped, one_latent,
       one_pixel_wide, one_pixel, as_many_latents_as_pixels, learned_prior, mixture_prior, dropout, normalised_trunk,
       double, learned_variance, narrow_gaussian, beta_of_four, beta_of_a_quarter, declared_beta, free_bits, capacity,
       absolute_error, bits_drawn_in_the_loss, rescaled_in_the_loss, variance_of_each_pixel, distributions,
       standard_deviation, softplus_in_the_loss, log_std, maps, halves, encoder_draws_itself, clamped_heads,
       heads_from_zero, collapsed, flow_in_between, two_layers, warm_up, beta_in_a_buffer,
       denoising, half_precision, drawn_kl, narrow_decoder, other_optimum)
