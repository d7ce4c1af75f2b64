"""Correct VAEs on which `checkup` may raise no alarm: the course's, the article's, pythae's and Pyro's example."""

import pyro
import torch
from exhibits import IMAGES, network, over_images
from odd_models import GREY
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from pythae import models as pythae
from torch import nn
from torch.nn.functional import softplus

from vae_lib.flow import FlowVAE, RealNVP, folded, resampled_dreg_with_flow
from vae_lib.likelihoods import Gaussian
from vae_lib.models import article_conv_vae, article_dense_vae
from vae_lib.objectives import article_loss, averaged_elbo, dreg, elbo, iwae, resampled_dreg
from vae_lib.recipes import pretrained

BITS = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(1)).round()
ARTICLE = 2 * torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(2)) - 1


def minus_elbo(model, x):
    return -elbo(model, x).elbo.mean()


def minus_elbo_of_all(model, batches):
    return -torch.cat([elbo(model, x).elbo for x in batches]).mean()


def bound(model, x, num_samples):
    return iwae(model, x, num_samples).elbo


def of_course(model, images):
    return model, images, minus_elbo, minus_elbo_of_all, bound


def bent_flow():
    flow = RealNVP(4, 8, 2)
    for coupling in flow.couplings:
        nn.init.normal_(coupling.net[-1].weight, std=0.3)
    return flow


OURS = {
    **{f"{kind}, Bernoulli": lambda kind=kind: of_course(network(kind), IMAGES)
       for kind in ("dense", "convolutional", "residual")},
    **{f"{kind}, Gaussian": lambda kind=kind: of_course(network(kind, Gaussian(0.3)), GREY)
       for kind in ("dense", "convolutional", "residual")},
    "dense, with a flow in its decoder": lambda: of_course(folded(network("dense"), RealNVP(4, 8, 2)), IMAGES),
    "trained on the ELBO of 5 draws": lambda: (
        network("dense"), IMAGES, lambda model, x: -averaged_elbo(model, x, 5).elbo.mean(), minus_elbo_of_all,
        lambda model, x, num_samples: dreg(model, x, num_samples).elbo),
    "trained on the IWAE of 5 draws": lambda: (
        network("dense"), IMAGES, lambda model, x: -iwae(model, x, 5).elbo.mean(), minus_elbo_of_all,
        lambda model, x, num_samples: resampled_dreg(model, x, num_samples).elbo),
    "trained with a flow for its prior": lambda: (
        FlowVAE(network("dense"), bent_flow()), IMAGES,
        lambda model, x: -resampled_dreg_with_flow(model, x, 4).elbo.mean()),
    **{f"weights of {name}": lambda name=name: of_course(pretrained(name), BITS) for name in (
        "two_latents", "conv_mnist", "six_minutes", "two_hours", "two_hours_folded", "folded_64")},
}


def of_article(model):
    return model, ARTICLE, lambda model, x: article_loss(x, *model(x)).mean()


ARTICLES = {"the article's convolutional network": lambda: of_article(article_conv_vae((1, 16, 16), 8)),
            "the article's fully connected network": lambda: of_article(article_dense_vae((1, 16, 16), 8))}


def of_pythae(name, error, **options):
    torch.manual_seed(0)
    config = getattr(pythae, f"{name}Config")(
        input_dim=(1, 8, 8), latent_dim=4, reconstruction_loss=error, **options)
    loss = lambda model, x: model({"data": x}).loss
    nll = lambda model, x, num_samples: model.get_nll(x, n_samples=num_samples, batch_size=num_samples)
    images = IMAGES if error == "bce" else GREY
    return getattr(pythae, name)(config), images, loss, None if "beta" in options else over_images(loss), nll


PYTHAE = {f"pythae's {name}, {error}": lambda name=name, error=error, options=options: of_pythae(name, error, **options)
          for name, options in (("VAE", {}), ("BetaVAE", {"beta": 4.0}), ("IWAE", {"number_samples": 5}))
          for error in ("bce", "mse")}


class PyroEncoder(nn.Module):
    """Rows of pixels to loc and scale."""

    def __init__(self):
        super().__init__()
        self.hidden, self.to_loc, self.to_scale = nn.Linear(64, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        features = softplus(self.hidden(x.reshape(-1, 64)))
        return self.to_loc(features), torch.exp(self.to_scale(features))


class PyroVAE(nn.Module):
    """A model and a guide, and nothing else that runs: no forward."""

    def __init__(self):
        super().__init__()
        self.encoder = PyroEncoder()
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 64), nn.Sigmoid())

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(len(x), 4), x.new_ones(len(x), 4)).to_event(1))
            probs = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(probs, validate_args=False).to_event(1), obs=x.reshape(-1, 64))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


def of_pyro():
    torch.manual_seed(0)
    pyro.clear_param_store()
    per_image = lambda vae, x: Trace_ELBO().loss(vae.model, vae.guide, x) / len(x)
    return PyroVAE(), IMAGES, lambda vae, x: Trace_ELBO().loss(vae.model, vae.guide, x), over_images(per_image)


CORRECT = OURS | ARTICLES | PYTHAE | {"Pyro's example": of_pyro}
