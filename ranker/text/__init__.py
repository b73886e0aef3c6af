"""Text becomes ids here and nowhere else: templates, tokenizer cover, packing, token-budget batches."""
