"""Problems, prompts and tokenizers: everything between a data file and the token ids that a model reads."""
