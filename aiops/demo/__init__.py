"""A small cluster that serves language models, whose metrics and logs answer to what is done to it: the proving ground."""
