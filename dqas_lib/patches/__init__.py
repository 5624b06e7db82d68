"""Stage 1, patchify: the least important patches of every image are dropped, and reconstructed from the kept ones."""
