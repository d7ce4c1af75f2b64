"""The library of the course: its modules, in an order in which to read them, and the pages that derive them.

| Module | Holds | Pages |
|---|---|---|
| gaussian | density, KL divergence and samples of diagonal Gaussians | 00, 04, 05 |
| likelihoods | p(x given z) from a decoder's output: Bernoulli, or Gaussian of fixed or learned variance | 00, 06 |
| models | encoders, decoders, VAE and autoencoder, fully connected and convolutional | 07 to 09 |
| objectives | the ELBO, importance-weighted bounds, and other objectives of training | 02, 08, 10 to 12 |
| training, muon | `fit`, the loop that maximises an objective, and an optimiser for convolutions | 08, 12 |
| latents | encodings of a data set, the aggregate posterior, active units | 08 to 10 |
| evaluation | the ELBO of held-out images, and their likelihood by importance sampling | 09, 11 |
| refinement, annealing | q optimised image by image, and bounds on log p(x) from below and above | 11 |
| loss_translator | the likelihood and the KL weight that a published loss implies | 06 |
| checkup | what is wrong with a VAE and its loss, found without the training code | 13, B |
| exact | two models whose log p(x) and posterior are known | 01, 02, 07 |
| mixture | a mixture of Gaussians, and EM | 03 |
| flow | a normalizing flow, as a prior, trained with its VAE or after it, or as a part of the decoder | 12 |
| residual | the residual networks of the recorded recipes | 10 to 12 |
| recipes, recording | recorded training runs: their choices, weights and logs; running and measuring | 09 to 12 |
| data, mnist_files | MNIST as tensors, and its files | 08 to 12 |
| checks, plotting, widgets | numbered checks, figures, and the explorer of the pages | all |
| answers, comparison, exercises | what `answer` says, how answers are compared, what is known of each exercise | all |
| guards | the checks of arguments, in front of most functions | |
| checkpoints, files, modes | files of weights and of interrupted runs; evaluation mode | |
"""
