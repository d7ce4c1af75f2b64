"""How fast `fit` trains, beside other ways to train the same networks: `python3 run.py benchmark`.

It needs the full MNIST. All ways take turns, several rounds long, and each is represented by its fastest round, so
that what else the machine does weighs little. Options: --rounds N, --steps N (of the article's network in a round).

WANTED is our aim: how much time, in units of fit's, the others should take at least. speed.txt keeps one run. In it
three are short: the stock loop, 2.5 of 3.5, pythae, 1.6 of 2, and the article's loop, 2.1 of 3. A bare step with these
products of matrices, in float32, takes too much of that time by itself. (All keep freed memory with the process, as
`run.py` tells glibc to.) Tried, on a processor that multiplies in bfloat16: to round the factors of products to
bfloat16 took a tenth off at best, and next to nothing in the kept run ("fit, medium", after PyTorch's name for it); fit
with objective=torch.compile(elbo) took up to a tenth off, both together up to a sixth, after 20 s to start; autocast
took a tenth more, and flushing denormal numbers, or threads that never sleep (OMP_WAIT_POLICY=active), changed nothing.

The article's loop computes in float32 and resizes as it goes. fit computes in bfloat16, on images that were resized
beforehand; that takes seconds for all 60,000, and is not timed.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import math
import platform
import tempfile
import time
from functools import partial

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from vae_lib.data import load, to_article, to_unit
from vae_lib.models import article_conv_vae, dense_vae
from vae_lib.objectives import article_loss, elbo
from vae_lib.training import fit

BATCH = 128
WANTED = {"bare step": 1 / 1.1, "stock loop": 3.5, "pythae": 2, "article's loop": 3}  # x fit, at least


def small_vae():
    """784-400-20 and back, as in PyTorch's example of a VAE."""
    torch.manual_seed(0)
    return dense_vae(hidden=(400,), latent_dim=20)


def article_vae(seed):
    torch.manual_seed(seed)
    return article_conv_vae()


def timed(work):
    """The seconds that work() takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class InMemoryMNIST(datasets.MNIST):
    """torchvision's, after it has read its files: each image is opened and transformed whenever it is needed."""

    def __init__(self, images, transform):
        datasets.VisionDataset.__init__(self, transform=transform)
        self.data, self.targets = images.squeeze(1), torch.zeros(len(images), dtype=torch.int64)


def mnist_loader(images, transform, **options):
    return DataLoader(InMemoryMNIST(images, transform), batch_size=BATCH, shuffle=True, **options)


def stock_epoch(images):
    """An epoch as much example code has it: a loader with transforms, binary cross entropy, Adam."""
    model, loader = small_vae(), mnist_loader(images, transforms.ToTensor())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def epoch():
        total = 0.0
        for x, _ in loader:
            optimizer.zero_grad()
            output, mu, log_var = model(x)
            error = F.binary_cross_entropy(output.sigmoid(), x, reduction="sum")
            loss = error - 0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp())
            loss.backward()
            total += loss.item()
            optimizer.step()
        return total / len(loader.dataset)

    return timed(epoch)


def pythae_epoch(images):
    """An epoch of pythae's trainer, with layers of the same widths."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            mu, log_var = self.inner(x)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, z):
            return ModelOutput(reconstruction=self.inner(z).sigmoid())

    inner = small_vae()
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(inner.encoder), decoder=Decoder(inner.decoder))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        options = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1,
                                    learning_rate=1e-3, optimizer_cls="Adam", no_cuda=True)
        data = BaseDataset(to_unit(images), torch.zeros(len(images)))
        trainer = BaseTrainer(model, data, training_config=options)
        trainer.prepare_training()
        return timed(lambda: float(trainer.train_step(epoch=1)))


def fit_epoch(images, precision="highest"):
    """An epoch of fit; with "medium", factors of matrix products are rounded to bfloat16, if the processor can."""
    steps = len(images) // BATCH
    model = small_vae()

    def epoch():
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            history = fit(model, images, steps=steps, batch_size=BATCH, binarized=False, device="cpu", progress=False)
        finally:
            torch.set_float32_matmul_precision(before)
        return -sum(history["elbo"]) / steps

    return timed(epoch)


def bare_epoch(images):
    """As many steps on one batch that is there already: forward, backward, optimiser, and nothing else."""
    model, x = small_vae(), to_unit(images[:BATCH])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def epoch():
        for _ in range(len(images) // BATCH):
            loss = -elbo(model, x).elbo.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return timed(epoch)


def article_loop(images, steps, seed):
    """Steps as the article's code takes them: four workers resize each image, networks in float32. Seconds, losses."""
    resize = transforms.Compose([transforms.Resize(64), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    model = article_vae(seed).requires_grad_(True)  # every bias too
    batches = iter(mnist_loader(images[:BATCH * steps], resize, num_workers=4))
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-3), []

    def step():
        x, _ = next(batches)
        output, mu, log_var = model(x)
        loss = article_loss(x, output, mu, log_var).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    step()  # workers start, and kernels are chosen
    return timed(lambda: [step() for _ in range(steps - 1)])[0] / (steps - 1), losses


def article_fit(images, steps, seed):
    """The same steps by fit, in bfloat16, on images resized beforehand; its bound is turned back into that loss."""
    constant = 0.5 * math.log(math.pi) * 64 * 64
    pixels, options = to_article(images[:BATCH * steps]), dict(autocast=True, device="cpu", progress=False)
    fit(article_vae(seed), pixels, steps=1, batch_size=BATCH, **options)
    model = article_vae(seed)
    taken, history = timed(lambda: fit(model, pixels, steps=steps, batch_size=BATCH, seed=seed, **options))
    return taken / steps, [-bound - constant for bound in history["elbo"]]


def profile(title, work):
    """Print which operations the time of one run goes into."""
    with torch.profiler.profile() as profiler:
        work()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    print(f"\n{title}: where the time goes")
    for row in rows[:10]:
        print(f"  {row.key[:44]:<44} {100 * row.self_cpu_time_total / total:5.1f} %  {row.count:6,} calls")


def beside_fit(name, taken, fit_time):
    """A cell of a table, as text: a way's time in units of fit's, and whether that is as much as was wanted."""
    ratio, wanted = taken / fit_time, WANTED.get(name, 0)
    verdict = f"({'short of' if ratio < wanted else 'wanted'} {wanted:.2f})" if wanted else ""
    return f"{ratio:5.2f} x fit {verdict:<15}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    if options.rounds < 1 or options.steps < 4:
        parser.error(f"wanted 1 round and 4 steps or more, got {options.rounds} and {options.steps}")
    images = load("MNIST").train
    if len(images) < 60_000:
        raise SystemExit("speed: the full MNIST is needed; VAE_DATA names its folder")
    print(f"{datetime.date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, pythae {importlib.metadata.version('pythae')}")

    ways = {"fit": fit_epoch, "fit, medium": partial(fit_epoch, precision="medium"), "bare step": bare_epoch,
            "stock loop": stock_epoch, "pythae": pythae_epoch}
    rounds = [{name: way(images) for name, way in ways.items()} for _ in range(options.rounds)]
    best = {name: min(found[name] for found in rounds) for name in ways}
    print("\n784-400-20 on grey pixels, batch 128, one epoch of 60,000 images; loss: its mean, in nats an image")
    for name, (taken, loss) in sorted(best.items(), key=lambda item: item[1]):
        every = ", ".join(f"{found[name][0]:.2f}" for found in rounds)
        loss = "one batch" if name == "bare step" else f"{loss:9.1f}"
        print(f"  {name:<12} {taken:6.2f} s   {beside_fit(name, taken, best['fit'][0])}   loss {loss}   "
              f"(rounds: {every})")

    ways = {"fit": article_fit, "article's loop": article_loop}
    rounds = [{name: way(images, options.steps, seed) for name, way in ways.items()} for seed in range(options.rounds)]
    best = {name: min(found[name][0] for found in rounds) for name in ways}
    quarter = options.steps // 4
    print(f"\nthe article's network at 64x64, batch 128, {options.steps} steps a round: a step, an epoch of 468, and "
          f"the losses,\n  mean and standard deviation over rounds, each a seed, of the mean of every {quarter} steps")
    for name, taken in best.items():
        losses = torch.tensor([found[name][1][:4 * quarter] for found in rounds]).unflatten(1, (4, quarter)).mean(2)
        curve = ", ".join(f"{part.mean():.0f}" + (f" ± {part.std():.0f}" if len(part) > 1 else "")
                          for part in losses.T)
        print(f"  {name:<14} {taken:6.3f} s  {468 * taken:5.0f} s  {beside_fit(name, taken, best['fit'])}  {curve}")

    profile("784-400-20, one epoch of fit", lambda: fit_epoch(images))
    profile("the article's network, fit", lambda: article_fit(images, 4, 0))


if __name__ == "__main__":
    main()
