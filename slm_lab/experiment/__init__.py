"""Sessions, trials, and what is made of the files that they leave."""
