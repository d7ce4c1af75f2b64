"""What the exercises know: for each page, right answers and mistakes; they are read by `vae_lib.answers`."""
