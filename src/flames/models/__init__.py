"""Networks, from one image channel to tumour logits of the same size."""
