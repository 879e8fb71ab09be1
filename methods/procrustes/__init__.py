"""ProcrustesGPT: rotate the residual stream so that matrices come near structured ones, and project them."""
