"""Pretrained Hugging Face models as a second kind of backbone: load, fold norms, change the basis of the residual."""
