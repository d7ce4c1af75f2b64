"""Small library behind a course on variational autoencoders."""
